"""What this machine can emulate of a network: found by trying, each try undone."""

from dataclasses import dataclass

from boards.emulation.owner import new_name, remove_namespace
from boards.emulation.system import Tool, called, configure
from profiles.errors import BoardError


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the system lets this process do; `refused` says why the rest is missing."""

    namespaces: bool = False
    """A network of its own for each board."""
    rates: bool = False
    """The rate of a link, by tc's tbf."""
    media: bool = False
    """One medium for several links or both directions, by an ifb; only where there are rates."""
    delays: bool = False
    """Latency and loss, by tc's netem."""
    refused: tuple[str, ...] = ()


LOOPBACK = Capabilities(refused=("not asked for",))
"""Plain processes on the loopback network."""

_RATE = "qdisc add dev near root tbf rate 1mbit burst 1600 limit 10000"
_DELAY = "qdisc add dev far root netem delay 1ms"


def redirect(link: str, medium: str, directions: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines for `tc` that lead what passes a link through an ifb.

    The filter is u32, with which kernels are built that lack matchall.
    """
    return (
        f"qdisc add dev {link} clsact",
        *(
            f"filter add dev {link} {direction} protocol all u32 match u32 0 0 "
            f"action mirred egress redirect dev {medium}"
            for direction in directions
        ),
    )


def detect() -> Capabilities:
    """Try what an emulated fleet needs, in a network namespace that is removed again."""
    namespace = new_name()
    try:
        return _tried(namespace)
    except BoardError as error:
        return Capabilities(refused=(str(error),))
    finally:
        remove_namespace(namespace)


def _tried(namespace: str) -> Capabilities:
    called(["ip", "netns", "add", namespace])
    called(["ip", "netns", "exec", namespace, "true"])
    configure("ip", ["link add near type veth peer name far"], namespace)
    refused: list[str] = []

    def works(tool: Tool, *lines: str) -> bool:
        try:
            configure(tool, lines, namespace)
        except BoardError as error:
            refused.append(str(error))
            return False
        return True

    rates = works("tc", _RATE)
    return Capabilities(
        namespaces=True,
        rates=rates,
        media=rates
        and works("ip", "link add medium type ifb")
        and works("tc", *redirect("near", "medium", ("egress", "ingress"))),
        delays=works("tc", _DELAY),
        refused=tuple(refused),
    )
