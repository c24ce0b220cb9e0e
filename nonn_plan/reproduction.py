"""Reproduction: every published deployment figure beside what the simulator says.

The simulator runs each published row as a workload on the library's profiles.  A withheld figure
has a prediction alone.  Beside it stands the error that the calibration makes on the row when it is
fitted without it (`profiles.leave_one_out`).
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from pydantic import Field

from nonn_core.family import parse_network
from nonn_core.image import Image
from nonn_core.layer_table import teacher_table
from profiles.device import DEVICES, compute_mj, compute_ms
from profiles.document import Record
from profiles.fleet import DEFAULT_LINK, Board
from profiles.leave_one_out import FittedRow, fitted_rows
from profiles.link import BYTES_PER_FEATURE, LINKS
from profiles.measurements import QUANTITIES, Measurement, Quantity
from profiles.published import PublishedFacts, Sweep, published_facts
from simulator import channel_split
from simulator.engine import simulate
from simulator.hops import JobBuilder
from simulator.job import Job
from simulator.moving import Move, Moved, least_total_at
from simulator.result import SimulationResult
from simulator.send_order import longest_first
from simulator.workload import FanOut, StudentWork

IMAGE, CLASSES = Image(3, 32, 32), 10
"""CIFAR-10, on which all models that are split were measured."""


class Reproduced(Record):
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


def reproduced() -> tuple[Reproduced, ...]:
    """Return every published deployment figure, simulated."""
    facts = published_facts()
    fitted = {(row.table, row.device, row.row, row.quantity): row for row in fitted_rows(facts)}
    rows = list(_measured(facts, fitted))
    return (*rows, *(_moved(facts.sweep, facts) if facts.sweep else ()))


def workload_of(row: Measurement, facts: PublishedFacts) -> FanOut | Job:
    """Return what one image set off where `row` was measured."""
    device, link = DEVICES.get(row.device), LINKS.get(row.link or DEFAULT_LINK)
    if not row.boards:
        return _alone(Board(device.name, device, link), row.macs)
    boards = tuple(Board(f"{device.name}-{b + 1}", device, link) for b in range(row.boards))
    if row.exchanges:
        table = teacher_table(parse_network(row.model or ""), IMAGE, CLASSES)
        return channel_split.job(table, boards)
    features = (row.reply_bytes or 0) // BYTES_PER_FEATURE // row.models_per_board
    works = tuple(
        StudentWork(f"{board.name}, student {n + 1}", board.name, row.macs, features)
        for board in boards
        for n in range(row.models_per_board)
    )
    host = DEVICES.get(facts.host.device)
    order = longest_first(boards, works)
    return FanOut(host, boards, works, order, image_bytes=row.image_bytes or 0)


def _alone(board: Board, macs: int) -> Job:
    """Return a model alone on a device, whose power may be unknown."""
    build = JobBuilder()
    powerless = board.device.missing("power_fixed_w", "power_busy_w")
    mj = 0.0 if powerless else compute_mj(board.device, macs)
    build.compute(board, ms=compute_ms(board.device, macs), mj=mj)
    return build.job()


def move_of(sweep: Sweep, facts: PublishedFacts) -> Move:
    """Return the published sweep; images and replies are those of the slow boards' other rows."""
    like = next(row for row in facts.measured_on(sweep.slow_device) if row.fans_out)
    return Move(
        slow=DEVICES.get(sweep.slow_device),
        fast=DEVICES.get(sweep.fast_device),
        link=LINKS.get(like.link or DEFAULT_LINK),
        host=DEVICES.get(facts.host.device),
        students=sweep.students,
        macs=sweep.macs,
        features=(like.reply_bytes or 0) // BYTES_PER_FEATURE,
        image_bytes=like.image_bytes or 0,
    )


def _measured(
    facts: PublishedFacts, fitted: Mapping[tuple[str, str, str, Quantity], FittedRow]
) -> Iterator[Reproduced]:
    for row in facts.measurements:
        found = simulate(workload_of(row, facts))
        for quantity in QUANTITIES:
            fit = fitted.get((row.table, row.device, row.row, quantity))
            if fit is not None:
                yield _reproduced(fit, _value(found, quantity))


def _value(found: SimulationResult, quantity: Quantity) -> float:
    value: float = getattr(found, quantity)
    return value


def _reproduced(fit: FittedRow, simulated: float) -> Reproduced:
    return Reproduced(
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


def _moved(sweep: Sweep, facts: PublishedFacts) -> Iterator[Reproduced]:
    """Yield what is published of the sweep, and predictions of what is withheld."""
    move = move_of(sweep, facts)
    moved = move.simulated()
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


def _computing_ms(move: Move, students: int) -> float:
    """Return how long the fast board computes with `students` on it."""
    boards = simulate(move.fan_out(students)).boards
    return next(row.busy_ms for row in boards if row.board == "fast")


def _withheld(sweep: Sweep, moved: Sequence[Moved]) -> Iterator[Reproduced]:
    reason = "withheld: predicted, not fitted"
    for quantity in sweep.withheld:
        for row in moved:
            name = f"{row.moved} of {sweep.students} on {sweep.fast_device}"
            yield _of_sweep(sweep, name, quantity, None, _of_moved(row, quantity), reason)
        mean = fmean(_of_moved(row, quantity) for row in moved)
        yield _of_sweep(sweep, "mean of the sweep", quantity, None, mean, reason)


def _of_moved(row: Moved, quantity: str) -> float:
    value: float = getattr(row, quantity)
    return value


def _of_sweep(
    sweep: Sweep,
    row: str,
    quantity: str,
    published: float | None,
    simulated: float,
    reason: str,
    used: bool = False,
) -> Reproduced:
    return Reproduced(
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
