"""What an emulated fleet does for a plan's boards and links, and what it does not, for people."""

from collections.abc import Iterator, Mapping, Sequence

from boards.emulation.capabilities import Capabilities
from boards.emulation.duties import Duty
from boards.emulation.ways import SMALL_MS, Ways
from profiles.device import DeviceProfile
from profiles.link import wire_ms
from simulator.hops import join_ms


def emulated_by(can: Capabilities, ways: Mapping[str, Ways]) -> tuple[str, ...]:
    """Return what stands for boards and links."""
    return tuple(_doing(can, bool(ways)))


def not_emulated(
    duties: Sequence[Duty],
    host: DeviceProfile,
    can: Capabilities,
    ways: Mapping[str, Ways],
    own_message_ms: float,
) -> tuple[str, ...]:
    """Return what of the profiles this machine does not show."""
    return (
        *_refused(can),
        *_of_links(duties, can),
        *_of_messages(duties, ways, own_message_ms),
        *(
            f"{duty.board.name}: its students have no one precision in plan and bundle; the worker "
            "chooses"
            for duty in duties
            if duty.precision is None
        ),
        f"the host is this machine: the {join_ms(host):.3g} ms in which {host.name} joins replies "
        "are not emulated",
        "energy, memory and the load of boards beside their students are not emulated",
    )


def _doing(can: Capabilities, relayed: bool) -> Iterator[str]:
    yield "boards: a worker process each, which holds answers for the board's compute time"
    if can.namespaces:
        yield "networks: a namespace and a veth pair for each board"
    if can.rates:
        yield "rates: tbf at both ends of each link"
    if can.media:
        yield "media and the host's card: one ifb for all that share them"
    if can.delays:
        yield "latency and loss: netem at both ends of each link"
    if relayed:
        left = ["cost of messages", "jitter"]
        left += [] if can.delays else ["latency"]
        left += [] if can.rates else ["rates"]
        left += [] if can.media else ["media"]
        yield f"{', '.join(left)}: a relay between host and boards"


def _refused(can: Capabilities) -> Iterator[str]:
    if not can.namespaces:
        reason = "; ".join(can.refused)
        yield f"no network for each board: workers share the loopback network ({reason})"
    elif not can.rates:
        yield "the system has no tbf"


def _of_links(duties: Sequence[Duty], can: Capabilities) -> Iterator[str]:
    for link in {duty.board.link.name: duty.board.link for duty in duties}.values():
        if link.loss_pct.value and not can.delays:
            yield (
                f"{link.name}: its loss of {link.loss_pct.value:g} % is not emulated, for which "
                "the kernel would need netem"
            )
        elif link.loss_pct.value:
            yield (
                f"{link.name}: packets are lost, and TCP repeats them when it does, not messages "
                f"after {link.retransmit_ms.value:g} ms"
            )
    for duty in duties:
        on_wire_ms = wire_ms(duty.board.link, duty.image_bytes)
        if not can.rates and on_wire_ms < SMALL_MS:
            yield (
                f"{duty.board.name}: {on_wire_ms:.3g} ms on the wire are less than a relay costs "
                "and are not emulated"
            )
        for between in duty.board.via:
            yield (
                f"{duty.board.name}: is reached over one link that stands for those through "
                f"{between.name}, which does not feel it"
            )


def _of_messages(
    duties: Sequence[Duty], ways: Mapping[str, Ways], own_message_ms: float
) -> Iterator[str]:
    if ways:
        yield f"the relay itself costs each message up to about {SMALL_MS:g} ms each way"
    left = [duty.board.name for duty in duties if 0 < duty.message_ms <= own_message_ms]
    if left:
        yield (
            f"{', '.join(left)}: messages cost what they cost here, which is taken to be "
            f"{own_message_ms:g} ms; no more is added"
        )
