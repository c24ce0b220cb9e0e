"""Published deployment figures beside simulated ones, with the error.

The simulator runs each published row as a workload on the library's profiles.  Several boards
compute for the expected maximum of their times, and draw their power as long (decision 0053).  A
withheld figure has a prediction alone.  Beside it stands the error that the calibration makes on
the row when it is fitted without it (`profiles.leave_one_out`).
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from pydantic import Field

from nonn_common.document import Record
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_table
from profiles.calibration_data import (
    METRICS,
    Measurement,
    Metric,
    PublishedFacts,
    PublishedSweep,
    published_facts,
)
from profiles.device import DEVICES, compute_mj, compute_ms, spread_cv
from profiles.fleet import DEFAULT_LINK, Board
from profiles.leave_one_out import FittedRow, fitted_rows
from profiles.link import BYTES_PER_FEATURE, LINKS
from profiles.time_spread import SpreadTime, expected_maximum_ms
from simulator.engine.simulation import simulate
from simulator.graph_builder import GraphBuilder
from simulator.student_sweep import StudentSweep, SweepPoint, least_total_at
from simulator.task_graph import TaskGraph
from simulator.workloads import model_split
from simulator.workloads.closed_form import fan_out_breakdown, join_spread
from simulator.workloads.fan_out import FanOut, Sending, StudentWork, longest_first

IMAGE, CLASSES = ImageShape(3, 32, 32), 10
"""CIFAR-10, on which all models that are split were measured."""

PUBLISHED_SENDING: Sending = "per-student"
"""One TCP wrapper for each student (arXiv:1907.11804, Figure 7); this host sends per board."""


class ReproducedFigure(Record):
    """One published quantity beside the simulated one."""

    table: str = Field(description="Table or figure it was published in.")
    row: str = Field(description="Device and name of the row within the table.")
    device: str = Field(description="Device of the boards, by the name of its profile.")
    quantity: str = Field(description="What was measured; the suffix is the unit.")
    published: float | None = Field(description="The published value; null where it is withheld.")
    simulated: float = Field(description="What the simulator says.")
    error_pct: float | None = Field(
        description="Relative error, in per cent with its sign; null where it is withheld."
    )
    used_for_fit: bool = Field(description="Whether the profiles were fitted to the value.")
    loo_error_pct: float | None = Field(
        description="Relative error, in per cent, of profiles that were fitted without this row."
    )
    loo_reason: str | None = Field(description="Why there is no such error; else null.")


def reproduced_figures() -> tuple[ReproducedFigure, ...]:
    """Every published deployment figure, simulated."""
    facts = published_facts()
    fits = {(row.table, row.device, row.row, row.quantity): row for row in fitted_rows(facts)}
    rows = list(_measured(facts, fits))
    return (*rows, *(_moved(facts.sweep, facts) if facts.sweep else ()))


def workload_of(row: Measurement, facts: PublishedFacts) -> FanOut | TaskGraph:
    """Workload of one image where `row` was measured."""
    device, link = DEVICES.get(row.device), LINKS.get(row.link or DEFAULT_LINK)
    if not row.boards:
        return _alone(Board(device.name, device, link), row.macs)
    boards = tuple(Board(f"{device.name}-{b + 1}", device, link) for b in range(row.boards))
    if row.exchanges:
        table = teacher_table(parse_network(row.model or ""), IMAGE, CLASSES)
        return model_split.channel_split_graph(table, boards)
    features = (row.reply_bytes or 0) // BYTES_PER_FEATURE // row.models_per_board
    works = tuple(
        StudentWork(f"{board.name}, student {n + 1}", board.name, row.macs, features)
        for board in boards
        for n in range(row.models_per_board)
    )
    host = DEVICES.get(facts.host.device)
    image_bytes = row.image_bytes or 0
    order = longest_first(boards, works, image_bytes)
    return FanOut(host, boards, works, order, image_bytes, sending=PUBLISHED_SENDING)


def _alone(board: Board, macs: int) -> TaskGraph:
    """Task graph of a model alone; the device's power may be unknown."""
    build = GraphBuilder()
    powerless = board.device.missing("power_fixed_w", "power_busy_w")
    mj = 0.0 if powerless else compute_mj(board.device, macs)
    build.compute(board, ms=compute_ms(board.device, macs), mj=mj)
    return build.graph()


def move_of(sweep: PublishedSweep, facts: PublishedFacts) -> StudentSweep:
    """Published sweep, with a message for each student.

    Images and replies are those of the slow boards' other rows.
    """
    like = next(row for row in facts.measured_on(sweep.slow_device) if row.fans_out)
    return StudentSweep(
        slow=DEVICES.get(sweep.slow_device),
        fast=DEVICES.get(sweep.fast_device),
        link=LINKS.get(like.link or DEFAULT_LINK),
        host=DEVICES.get(facts.host.device),
        students=sweep.students,
        macs=sweep.macs,
        features=(like.reply_bytes or 0) // BYTES_PER_FEATURE,
        image_bytes=like.image_bytes or 0,
        sending=PUBLISHED_SENDING,
    )


def _measured(
    facts: PublishedFacts, fitted: Mapping[tuple[str, str, str, Metric], FittedRow]
) -> Iterator[ReproducedFigure]:
    for row in facts.measurements:
        workload = workload_of(row, facts)
        for quantity in METRICS:
            fit = fitted.get((row.table, row.device, row.row, quantity))
            if fit is not None:
                yield _reproduced(fit, published_value(workload, quantity))


def published_value(workload: FanOut | TaskGraph, quantity: Metric) -> float:
    """Value of a quantity in the way in which it is published, in its unit.

    Of students on boards in expectation: times of the join that waits for all of them, and energy
    as power times the time of the slowest board of each device.
    """
    if isinstance(workload, TaskGraph):
        value: float = getattr(simulate(workload), quantity)
        return value
    if quantity == "energy_per_node_mj":
        spent = _energies_mj(workload)
        return sum(spent) / len(spent)
    spread = join_spread(workload)
    return {
        "total_ms": spread.expected_ms,
        "compute_ms": spread.compute_ms,
        "communication_ms": spread.communication_ms,
    }[quantity]


def _energies_mj(workload: FanOut) -> list[float]:
    """Energy of each board, in mJ, over the time of the slowest of its device."""
    devices = {board.name: board.device for board in workload.boards}
    rows = fan_out_breakdown(workload).boards
    found = []
    for row in rows:
        alike = [
            SpreadTime.of(other.busy_ms, spread_cv(devices[other.board]))
            for other in rows
            if other.device == row.device
        ]
        slowest = max(other.busy_ms for other in rows if other.device == row.device)
        found.append(row.energy_mj * expected_maximum_ms(alike) / slowest)
    return found


def _reproduced(fit: FittedRow, simulated: float) -> ReproducedFigure:
    return ReproducedFigure(
        table=fit.table,
        row=f"{fit.device} {fit.row}",
        device=fit.device,
        quantity=fit.quantity,
        published=fit.published,
        simulated=simulated,
        error_pct=_error_pct(fit.published, simulated),
        used_for_fit=fit.used_for_fit,
        loo_error_pct=fit.loo_error_pct,
        loo_reason=fit.reason,
    )


def _moved(sweep: PublishedSweep, facts: PublishedFacts) -> Iterator[ReproducedFigure]:
    """Yield what is published of the sweep, and predictions of what is withheld."""
    move = move_of(sweep, facts)
    moved = tuple(_expected(move, count) for count in range(move.students + 1))
    at_once = sweep.students_at_once
    one_ms = compute_ms(move.slow, sweep.macs)
    yield _of_sweep(
        sweep,
        f"{at_once} at once on {sweep.fast_device}",
        f"compute_ms over that of one on {sweep.slow_device}",
        published=1.0,
        simulated=_computing_ms(move, at_once) / one_ms,
        reason="no other row tells it",
        used=True,
    )
    yield _of_sweep(
        sweep,
        "least total latency",
        f"students on {sweep.fast_device}",
        published=float(sweep.least_total_ms_at),
        simulated=float(least_total_at(moved)),
        reason="not fitted",
    )
    yield from _withheld(sweep, moved)


def _expected(move: StudentSweep, moved: int) -> SweepPoint:
    """Point of a sweep in the way in which figures are published."""
    workload = move.fan_out(moved)
    spread, spent = join_spread(workload), _energies_mj(workload)
    return SweepPoint(
        moved=moved,
        total_ms=spread.expected_ms,
        compute_ms=spread.compute_ms,
        communication_ms=spread.communication_ms,
        slow_done_ms=None,
        fast_done_ms=None,
        energy_per_node_mj=sum(spent) / len(spent),
        energy_per_fleet_mj=sum(spent),
    )


def _computing_ms(move: StudentSweep, students: int) -> float:
    """Computing time of the fast board with `students` on it."""
    boards = simulate(move.fan_out(students)).boards
    return next(row.busy_ms for row in boards if row.board == "fast")


def _withheld(sweep: PublishedSweep, moved: Sequence[SweepPoint]) -> Iterator[ReproducedFigure]:
    reason = "withheld: predicted, not fitted"
    for quantity in sweep.withheld:
        for row in moved:
            name = f"{row.moved} of {sweep.students} on {sweep.fast_device}"
            yield _of_sweep(sweep, name, quantity, None, _of_moved(row, quantity), reason)
        mean = fmean(_of_moved(row, quantity) for row in moved)
        yield _of_sweep(sweep, "mean of the sweep", quantity, None, mean, reason)


def _of_moved(row: SweepPoint, quantity: str) -> float:
    value: float = getattr(row, quantity)
    return value


def _of_sweep(
    sweep: PublishedSweep,
    row: str,
    quantity: str,
    published: float | None,
    simulated: float,
    reason: str,
    used: bool = False,
) -> ReproducedFigure:
    return ReproducedFigure(
        table=sweep.table,
        row=row,
        device=sweep.fast_device,
        quantity=quantity,
        published=published,
        simulated=simulated,
        error_pct=_error_pct(published, simulated),
        used_for_fit=used,
        loo_error_pct=None,
        loo_reason=reason,
    )


def _error_pct(published: float | None, simulated: float) -> float | None:
    return None if published is None else 100.0 * (simulated / published - 1.0)
