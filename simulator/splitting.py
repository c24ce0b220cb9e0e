"""Splitting one model over boards: what all ways of doing it have in common.

A layer table says what is to be done; the host holds the image, and what passes between devices
are feature maps of fp32 values.
"""

from collections.abc import Sequence

from profiles.device import DeviceProfile
from profiles.errors import SimulationError
from profiles.fleet import Board
from profiles.layer import LayerTable
from profiles.link import BYTES_PER_FEATURE
from simulator.hops import HOST_CPU, JobBuilder
from simulator.job import HOST, Step
from simulator.pace import Effort


def check(table: LayerTable, boards: Sequence[Board]) -> None:
    """Raise SimulationError unless there are layers, and boards with names of their own."""
    if not table or not boards:
        raise SimulationError(
            "a model is split over at least one board and has at least one layer; "
            f"found {len(boards)} boards and {len(table)} layers"
        )
    names = [board.name for board in boards]
    if len({HOST, *names}) <= len(names):
        raise SimulationError(
            f"board names must be unique, and none may be host; found: {', '.join(sorted(names))}"
        )


def alive_bytes(table: LayerTable, layers: int) -> int:
    """Return the size of all that is alive between the first `layers` layers and the rest.

    It is the image before the first layer, and later a layer's output with what shortcuts hold.
    """
    if not layers:
        return BYTES_PER_FEATURE * table[0].in_elements
    last = table[layers - 1]
    return BYTES_PER_FEATURE * (last.out_elements + last.held_elements)


def receive_ms(host: DeviceProfile) -> float:
    """Return how long `host` needs to receive and put together what boards return, in ms."""
    if host.hosting is None:
        raise SimulationError(f"device {host.name} cannot host: its profile has no hosting figures")
    return host.hosting.join_fixed_ms.value


def on_host(build: JobBuilder, effort: Effort, after: tuple[int, ...]) -> int:
    """Add a step in which the host computes; return its index."""
    return build.add(Step(HOST, "compute", (HOST_CPU,), effort.ms, after, energy_mj=effort.mj))
