"""G0 on a board of its own: what it asks of that board, and what every answer waits for first.

The host sends the image to this board alone, which runs G0 and sends its maps on to each board
that has a student (A, 4.3, shares G0; a copy of it on each board is the other way to do so).  The
maps travel as fp32, as features do.
"""

from dataclasses import dataclass

from nonn_core.costs import Cost, Precision, group0_cost, group0_maps
from nonn_core.family import NetworkSpec
from nonn_core.image import Image
from planner.scaling import UNITS_PER_MJ, UNITS_PER_MS, up
from planner.view import Figure
from profiles.device import compute_mj, compute_ms
from profiles.fleet import Board
from profiles.link import BYTES_PER_FEATURE
from simulator.workload import send_ms


@dataclass(frozen=True, slots=True)
class Group0:
    """G0 of one shape: its cost for one image, and its maps in bytes."""

    shape: str
    cost: Cost
    maps_bytes: int

    @classmethod
    def of(cls, spec: NetworkSpec, image: Image) -> "Group0":
        """Describe the G0 of a network."""
        maps_bytes = BYTES_PER_FEATURE * group0_maps(spec, image).elements
        return cls(spec.group0, group0_cost(spec, image), maps_bytes)

    def on(self, place: int, board: Board, precision: Precision, image_bytes: int) -> "OwnGroup0":
        """Put it on a board, which has this place in the fleet."""
        sent_ms = send_ms(board, image_bytes)
        busy_ms = compute_ms(board.device, self.cost.macs)
        under_way_ms = 2 * board.link.latency_ms.value
        return OwnGroup0(
            shape=self.shape,
            board=place,
            precision=precision,
            maps_bytes=self.maps_bytes,
            params=self.cost.params,
            macs=self.cost.macs,
            memory_bytes=self.cost.memory_bytes(precision),
            busy=up(busy_ms, UNITS_PER_MS),
            energy=up(compute_mj(board.device, self.cost.macs), UNITS_PER_MJ),
            sent=up(sent_ms, UNITS_PER_MS),
            lead=up(sent_ms + busy_ms + under_way_ms, UNITS_PER_MS),
        )


@dataclass(frozen=True, slots=True)
class OwnGroup0:
    """G0 on a board of its own, by the board's place in the fleet; times in solver units.

    `sent` is the host's time for the image; `lead` is all that passes until maps can be sent, and
    the latency of this board's link on the way back, which all of them have.
    """

    shape: str
    board: int
    precision: Precision
    maps_bytes: int
    params: int
    macs: int
    memory_bytes: int
    busy: int
    energy: int
    sent: int
    lead: int

    def of(self, figure: Figure) -> int:
        """Return a figure; precisions are those of students, which it is not."""
        return 0 if figure == "value_bytes" else int(getattr(self, figure))
