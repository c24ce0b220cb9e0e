"""The emulation of links: workloads of boards, delays of a relay, limitations.

The kernel emulates rates (tbf), shared channels (ifb) and delays (netem), where it has them.  Left
to a relay are the cost of messages, jitter, and what the kernel lacks, but for loss.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from boards.emulation.namespace import Capabilities, carrier_name
from boards.emulation.relay import LinkDirection
from nonn_common.errors import InputError
from nonn_core.export.bundle import Manifest, ModelPrecision
from planner.plan_file.decision_workload import works_by_board
from planner.plan_file.plan_document import PlanDocument, PlannedModel, require_students
from profiles.device import DeviceProfile, quantity_value
from profiles.fleet import Board, resolve
from profiles.link import LinkProfile, wire_ms
from simulator.graph_builder import join_ms
from simulator.workloads.fan_out import busy_ms

RELAY_COST_MS = 0.2
"""Own cost of a relay for a message; a shorter delay gets no relay."""
_CARD = "card"


@dataclass(frozen=True, slots=True)
class BoardWorkload:
    """A board, its students, and their compute and message times.

    An answer is ready `holds_ms` after its computation began.  An image, a message of
    `image_bytes`, costs the host's sender `message_ms` on top of its time on the wire; or maps of
    G0 that of their `sender`, another board, whose link they pass as well.
    """

    board: Board
    holds_ms: Mapping[str, float]
    precision: ModelPrecision | None
    image_bytes: int
    message_ms: float
    sender: Board | None = None

    @property
    def students(self) -> tuple[str, ...]:
        """Names of its students."""
        return tuple(self.holds_ms)

    @property
    def links(self) -> tuple[LinkProfile, ...]:
        """Links that its input passes: its own, and that of the sender of maps."""
        return (self.board.link, *((self.sender.link,) if self.sender else ()))


def board_workloads(plan: PlanDocument, bundle: Manifest) -> tuple[BoardWorkload, ...]:
    """Workload of each board that has a student, in the fleet's order.

    Models of one board run at once, so that each is done when all are: the simulator's busy_ms.
    Raises InputError for a plan without students, and for a bundle that lacks a student.
    """
    require_students(plan)
    _require_students_of(plan, bundle)
    _, boards = resolve(plan.question.fleet)
    return tuple(
        _workload(plan, bundle, board, boards)
        for board in boards
        if board.name in plan.decision.used
    )


def _workload(
    plan: PlanDocument, bundle: Manifest, board: Board, boards: Sequence[Board]
) -> BoardWorkload:
    here = [model for model in plan.decision.models if board.name in model.boards]
    together_ms = busy_ms(board.device, works_by_board(plan.question, plan.decision)[board.name])
    sender = plan.group0 if plan.group0 and plan.group0.board != board.name else None
    return BoardWorkload(
        board=board,
        holds_ms={model.name: together_ms for model in here},
        precision=_precision(here, bundle),
        image_bytes=sender.maps_bytes if sender else plan.question.image_shape.size_bytes,
        message_ms=quantity_value(board.device, "message_ms"),
        sender=next((each for each in boards if sender and each.name == sender.board), None),
    )


def _precision(students: list[PlannedModel], bundle: Manifest) -> ModelPrecision | None:
    """Find the precision that a board's students share in plan and bundle."""
    names = {student.name for student in students}
    common = {student.precision for student in students}
    if len(common) > 1:
        return None
    for model in bundle.models:
        if model.name in names:
            common &= {one.precision for one in model.files}
    return next((each for each in ("fp32", "int8") if each in common), None)


def _require_students_of(plan: PlanDocument, bundle: Manifest) -> None:
    found = {model.name for model in bundle.models}
    if missing := [student.name for student in plan.students if student.name not in found]:
        raise InputError(
            f"this bundle has no {missing[0]}: it is of another plan",
            where="bundle",
            found=", ".join(sorted(found)),
            allowed=", ".join(student.name for student in plan.students),
            fix="export the run that was trained with this plan's configuration",
        )


@dataclass(frozen=True, slots=True)
class LinkEmulation:
    """Both directions of a board's link."""

    down: LinkDirection
    up: LinkDirection


def link_emulations(
    workloads: Sequence[BoardWorkload], can: Capabilities, own_message_ms: float
) -> Mapping[str, LinkEmulation]:
    """Link emulation of each board by name; empty if the kernel emulates everything.

    What a message costs here anyway, `own_message_ms`, is left out.  If one board needs a relay,
    all have one: the host sends to one after the other, whichever they are.
    """
    # Each carrier is an ifb of its own; only a relay sends one message at a time through several.
    one = len({carrier_name(workload.board) for workload in workloads}) == 1
    shared_channels = can.shared_channels and one
    if not any(
        _needed(workload, len(workloads), can, shared_channels, own_message_ms)
        for workload in workloads
    ):
        return {}
    return {
        workload.board.name: LinkEmulation(_down(workload, can, own_message_ms), _up(workload, can))
        for workload in workloads
    }


def _needed(
    workload: BoardWorkload,
    boards: int,
    can: Capabilities,
    shared_channels: bool,
    own_message_ms: float,
) -> bool:
    late_ms = sum(
        link.jitter_ms.value + (0.0 if can.delays else link.latency_ms.value)
        for link in workload.links
    )
    alone = boards == 1 and workload.board.link.duplex == "full"
    by_kernel = shared_channels or (can.rates and alone)
    serial = _wire_counts(workload) and not by_kernel
    return late_ms > 0 or serial or workload.message_ms > own_message_ms


def _down(workload: BoardWorkload, can: Capabilities, own_message_ms: float) -> LinkDirection:
    """Direction to the board, which occupies the host's card and unsupported channels.

    Maps occupy their sender's link in place of the card, and are late by both links.
    """
    source = _CARD if workload.sender is None else f"up {workload.sender.name}"
    carriers = dict.fromkeys(
        [source] if can.shared_channels else [source, carrier_name(workload.board)]
    )
    if workload.sender is not None:
        carriers.pop(_CARD, None)
    return replace(
        _direction(can, tuple(carriers), _wire_ms_per_byte(workload, can), workload.links),
        message_ms=max(0.0, workload.message_ms - own_message_ms),
        message_bytes=workload.image_bytes,
    )


def _up(workload: BoardWorkload, can: Capabilities) -> LinkDirection:
    full = workload.board.link.duplex == "full"
    if can.shared_channels or (can.rates and full):
        return _direction(can, (), 0.0, workload.links[:1])
    own = f"up {workload.board.name}" if full else carrier_name(workload.board)
    links = workload.links[:1]
    counts = can.rates or _wire_counts(workload)
    return _direction(can, (own,), wire_ms(links[0], 1) if counts else 0.0, links)


def _direction(
    can: Capabilities,
    carriers: tuple[str, ...],
    on_wire_ms: float,
    links: Sequence[LinkProfile],
) -> LinkDirection:
    return LinkDirection(
        carriers=carriers,
        wire_ms_per_byte=on_wire_ms,
        wire_by_kernel=can.rates,
        latency_ms=0.0 if can.delays else sum(link.latency_ms.value for link in links),
        jitter_ms=sum(link.jitter_ms.value for link in links),
    )


def _wire_ms_per_byte(workload: BoardWorkload, can: Capabilities) -> float:
    counts = can.rates or _wire_counts(workload)
    return max(wire_ms(link, 1) for link in workload.links) if counts else 0.0


def _wire_counts(workload: BoardWorkload) -> bool:
    return max(wire_ms(link, workload.image_bytes) for link in workload.links) >= RELAY_COST_MS


def emulation_methods(can: Capabilities, links: Mapping[str, LinkEmulation]) -> tuple[str, ...]:
    """Methods by which boards and links are emulated, for people."""
    return tuple(_methods(can, bool(links)))


def limitations(
    workloads: Sequence[BoardWorkload],
    host: DeviceProfile,
    can: Capabilities,
    links: Mapping[str, LinkEmulation],
    own_message_ms: float,
) -> tuple[str, ...]:
    """Parts of the profiles that this machine does not emulate, for people."""
    return (
        *_refused(can),
        *_of_links(workloads, can),
        *_of_messages(workloads, links, own_message_ms),
        *(
            f"{workload.board.name}: its students have no one precision in plan and bundle; "
            "the worker chooses"
            for workload in workloads
            if workload.precision is None
        ),
        f"the host is this machine: the {join_ms(host):.3g} ms in which {host.name} joins replies "
        "are not emulated",
        "energy, memory and the load of boards beside their students are not emulated",
    )


def _methods(can: Capabilities, relayed: bool) -> Iterator[str]:
    yield "boards: a worker process each, which holds answers for the board's compute time"
    if can.namespaces:
        yield "networks: a namespace and a veth pair for each board"
    if can.rates:
        yield "rates: tbf at both ends of each link"
    if can.shared_channels:
        yield "media and the host's card: one ifb for all that share them"
    if can.delays:
        yield "latency and loss: netem at both ends of each link"
    if relayed:
        left = ["cost of messages", "jitter"]
        left += [] if can.delays else ["latency"]
        left += [] if can.rates else ["rates"]
        left += [] if can.shared_channels else ["media"]
        yield f"{', '.join(left)}: a relay between host and boards"


def _refused(can: Capabilities) -> Iterator[str]:
    if not can.namespaces:
        reason = "; ".join(can.refused)
        yield f"no network for each board: workers share the loopback network ({reason})"
    elif not can.rates:
        yield "the system has no tbf"


def _of_links(workloads: Sequence[BoardWorkload], can: Capabilities) -> Iterator[str]:
    for link in {workload.board.link.name: workload.board.link for workload in workloads}.values():
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
    for workload in workloads:
        on_wire_ms = wire_ms(workload.board.link, workload.image_bytes)
        if not can.rates and on_wire_ms < RELAY_COST_MS:
            yield (
                f"{workload.board.name}: {on_wire_ms:.3g} ms on the wire are less than a relay "
                "costs and are not emulated"
            )
        for between in workload.board.via:
            yield (
                f"{workload.board.name}: is reached over one link that stands for those through "
                f"{between.name}, which does not feel it"
            )


def _of_messages(
    workloads: Sequence[BoardWorkload], links: Mapping[str, LinkEmulation], own_message_ms: float
) -> Iterator[str]:
    if links:
        yield f"the relay itself costs each message up to about {RELAY_COST_MS:g} ms each way"
    left = [
        workload.board.name for workload in workloads if 0 < workload.message_ms <= own_message_ms
    ]
    if left:
        yield (
            f"{', '.join(left)}: messages cost what they cost here, which is taken to be "
            f"{own_message_ms:g} ms; no more is added"
        )
