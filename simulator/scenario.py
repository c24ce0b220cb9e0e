"""A scenario: arrivals, failures, throttling, and the seed of all randomness.

The boards of one failure go down and come up together: one switch, one supply.  Failures do not
depend on what the boards do, so their times can be looked up ahead of the simulation's clock.

The clock factor of a throttled board is piecewise constant, so that work done by a time is exact:
a step of d ms that starts at s ends at the e with  integral from s to e of factor(t) dt = d.

Each purpose and step has a stream of random numbers of its own, all from one seed.  So a run is
the same whatever else is random in it, and the nth image draws the same numbers on every path
through the simulator on which the images keep their order.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from nonn_common.csv_table import CsvTable
from nonn_common.errors import InputError, SimulationError
from simulator.task_graph import TaskGraph

COLUMN = "start_ms"
"""Column of a CSV trace that holds the arrivals."""

_BATCH = 1024


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """One image at a time: the next when the last is answered or lost."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Images at random, `per_s` a second on average."""

    per_s: float

    def __post_init__(self) -> None:
        _require_positive("a Poisson stream needs a rate", self.per_s, "1/s")

    def batches(self, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Yield the arrivals, in ms, some at a time."""
        now_ms = 0.0
        while True:
            gaps_ms = generator.exponential(1000 / self.per_s, _BATCH)
            batch: NDArray[np.float64] = np.add.accumulate(np.concatenate([[now_ms], gaps_ms]))[1:]
            now_ms = float(batch[-1])
            yield batch

    def times(self, generator: np.random.Generator) -> Iterator[float]:
        """Yield the arrivals, in ms."""
        return chain.from_iterable(batch.tolist() for batch in self.batches(generator))


@dataclass(frozen=True, slots=True)
class Periodic:
    """An image every `every_ms`, the first at once."""

    every_ms: float

    def __post_init__(self) -> None:
        _require_positive("a periodic stream needs a period", self.every_ms, "ms")

    def batches(self, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:  # noqa: ARG002
        """Yield the arrivals, in ms, some at a time."""
        for first in count(0, _BATCH):
            batch = np.arange(first, first + _BATCH, dtype=np.float64)
            batch *= self.every_ms
            yield batch

    def times(self, generator: np.random.Generator) -> Iterator[float]:
        """Yield the arrivals, in ms."""
        return chain.from_iterable(batch.tolist() for batch in self.batches(generator))


@dataclass(frozen=True, slots=True)
class Times:
    """Images at these times, in ms, which do not fall.

    `source` is the file that they are from.
    """

    ms: tuple[float, ...]
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.ms or not all(0 <= each < math.inf for each in self.ms):
            raise SimulationError("arrivals must be at least one time of at least 0 ms")
        for index, (earlier, later) in enumerate(pairwise(self.ms), start=1):
            if later < earlier:
                raise SimulationError(
                    f"arrivals must not fall; found {later:g} ms after {earlier:g} ms "
                    f"at position {index}"
                )

    @classmethod
    def from_csv(cls, path: Path) -> Self:
        """Read the column `start_ms` of a CSV table; raises InputError."""
        table = CsvTable.read(path)
        try:
            return cls(tuple(_column(table)), table.place)
        except SimulationError as error:
            raise InputError(str(error), where=f"{table.place}: column {COLUMN}") from error

    def batches(self, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:  # noqa: ARG002
        """Yield the arrivals, in ms, at once."""
        return iter((np.array(self.ms),))

    def times(self, generator: np.random.Generator) -> Iterator[float]:  # noqa: ARG002
        """Yield the arrivals, in ms."""
        return iter(self.ms)


OpenArrivals = Poisson | Periodic | Times
Arrivals = ClosedLoop | OpenArrivals


def _column(table: CsvTable) -> Iterator[float]:
    if COLUMN not in table.columns:
        raise InputError(
            "this trace has no column of arrivals",
            where=table.place,
            found=", ".join(table.columns) or "an empty file",
            allowed=f"a header line with a column {COLUMN}, in ms",
        )
    for row in table.rows():
        text = row.cells.get(COLUMN, "")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise InputError(
                "not a time",
                where=f"{table.place} line {row.line}, column {COLUMN}",
                found=text,
                allowed="a number of ms, at least 0, with a point: 12.5",
            )
        yield value


def _require_positive(what: str, value: float, unit: str) -> None:
    if not 0 < value < math.inf:
        raise SimulationError(f"{what} above 0 {unit}; found {value:g}")


Purpose = Literal["arrivals", "failures", "service", "loss", "jitter", "spread"]

_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def random_stream(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """Random numbers of one purpose, for the step or failure of this index."""
    key = (_PURPOSES.index(purpose), index)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True, slots=True)
class TimedFailure:
    """`boards` fail at `at_ms` and are up again at `repaired_ms`; never, if None."""

    boards: tuple[str, ...]
    at_ms: float
    repaired_ms: float | None = None

    def __post_init__(self) -> None:
        _require_boards(self.boards)
        if not 0 <= self.at_ms < math.inf:
            raise SimulationError(f"boards fail at a time of at least 0 ms; found {self.at_ms:g}")
        if self.repaired_ms is not None and not self.at_ms < self.repaired_ms < math.inf:
            raise SimulationError(
                f"boards that fail at {self.at_ms:g} ms are repaired after that; "
                f"found {self.repaired_ms:g} ms"
            )


@dataclass(frozen=True, slots=True)
class RenewalFailure:
    """`boards` fail and are repaired again and again, with exponential times of these means."""

    boards: tuple[str, ...]
    mttf_ms: float
    mttr_ms: float

    def __post_init__(self) -> None:
        _require_boards(self.boards)
        if not (0 < self.mttf_ms < math.inf and 0 < self.mttr_ms < math.inf):
            raise SimulationError(
                "mean times to failure and to repair must be above 0 ms; "
                f"found {self.mttf_ms:g} and {self.mttr_ms:g}"
            )


Failure = TimedFailure | RenewalFailure


class DownTimes:
    """The intervals [down, up) of one failure, made as far ahead as somebody asks."""

    def __init__(self, failure: Failure, generator: np.random.Generator) -> None:
        self.boards = frozenset(failure.boards)
        self._downs_ms: list[float] = []
        self._ups_ms: list[float] = []
        self._renewal = failure if isinstance(failure, RenewalFailure) else None
        self._generator = generator
        if isinstance(failure, TimedFailure):
            repaired_ms = math.inf if failure.repaired_ms is None else failure.repaired_ms
            self._downs_ms.append(failure.at_ms)
            self._ups_ms.append(repaired_ms)

    def next(self, time_ms: float) -> tuple[float, float]:
        """First interval that ends after `time_ms`; at infinity if there is none."""
        while self._renewal and (not self._ups_ms or self._ups_ms[-1] <= time_ms):
            self._go_on(self._renewal)
        index = bisect_right(self._ups_ms, time_ms)
        if index == len(self._ups_ms):
            return math.inf, math.inf
        return self._downs_ms[index], self._ups_ms[index]

    def _go_on(self, renewal: RenewalFailure) -> None:
        up_ms = self._ups_ms[-1] if self._ups_ms else 0.0
        down_ms = up_ms + self._generator.exponential(renewal.mttf_ms)
        self._downs_ms.append(down_ms)
        self._ups_ms.append(down_ms + self._generator.exponential(renewal.mttr_ms))


class Availability:
    """Times at which all the places that a step needs are up.

    Between `quiet_from_ms` and `quiet_to_ms`, which each look-up renews, nothing goes down.
    """

    def __init__(self, downs: tuple[DownTimes, ...]) -> None:
        self.downs = downs
        self.quiet_from_ms = self.quiet_to_ms = 0.0

    def touched(self, start_ms: float, end_ms: float) -> tuple[float, float] | None:
        """First down time (from, to) that touches [start, end), or None."""
        down_ms, up_ms = min(downs.next(start_ms) for downs in self.downs)
        if down_ms < end_ms:
            return down_ms, up_ms
        self.quiet_from_ms, self.quiet_to_ms = start_ms, down_ms
        return None


class FailureTimes:
    """The availability of any set of places, all from the same failures."""

    def __init__(self, failures: Sequence[Failure], seed: int) -> None:
        self.downs = [
            DownTimes(failure, random_stream(seed, "failures", index))
            for index, failure in enumerate(failures)
        ]
        self._made: dict[frozenset[str], Availability | None] = {}

    def of(self, places: frozenset[str]) -> Availability | None:
        """Availability of all `places` together; None where none of them ever fails."""
        if places not in self._made:
            downs = tuple(each for each in self.downs if each.boards & places)
            self._made[places] = Availability(downs) if downs else None
        return self._made[places]


def _require_boards(boards: tuple[str, ...]) -> None:
    if not boards:
        raise SimulationError("a failure needs at least one board")


@dataclass(frozen=True, slots=True)
class Throttle:
    """From `at_ms` on the clock of `board` is `factor` times that of its profile."""

    board: str
    at_ms: float
    factor: float

    def __post_init__(self) -> None:
        if not (0 <= self.at_ms < math.inf and 0 < self.factor < math.inf):
            raise SimulationError(
                f"throttling of {self.board} needs a time of at least 0 ms and a clock factor "
                f"above 0; found {self.at_ms:g} ms and {self.factor:g}"
            )


class ClockSpeed:
    """The clock factor of one board over time; 1 until its first throttle."""

    def __init__(self, throttles: Sequence[Throttle] = ()) -> None:
        ordered = sorted(throttles, key=lambda throttle: throttle.at_ms)
        self._since_ms = [0.0, *(throttle.at_ms for throttle in ordered)]
        self._factors = [1.0, *(throttle.factor for throttle in ordered)]
        self._done_ms = [0.0]
        for factor, (since_ms, until_ms) in zip(
            self._factors, pairwise(self._since_ms), strict=False
        ):
            self._done_ms.append(self._done_ms[-1] + factor * (until_ms - since_ms))

    @property
    def last_factor(self) -> float:
        """Factor from the last throttle on."""
        return self._factors[-1]

    def end_ms(self, start_ms: float, work_ms: float) -> float:
        """Time at which `work_ms` of work, begun at `start_ms`, are done.

        Work is counted at a clock factor of 1.
        """
        piece = bisect_right(self._since_ms, start_ms) - 1
        end_ms = start_ms + work_ms / self._factors[piece]
        if piece + 1 == len(self._since_ms) or end_ms <= self._since_ms[piece + 1]:
            return end_ms
        done_ms = self._done(piece, start_ms) + work_ms
        piece = bisect_right(self._done_ms, done_ms) - 1
        return self._since_ms[piece] + (done_ms - self._done_ms[piece]) / self._factors[piece]

    def work_ms(self, start_ms: float, end_ms: float) -> float:
        """Work, at factor 1, that is done from `start_ms` to `end_ms`."""
        first = bisect_right(self._since_ms, start_ms) - 1
        last = bisect_right(self._since_ms, end_ms) - 1
        if first == last:
            return (end_ms - start_ms) * self._factors[first]
        return self._done(last, end_ms) - self._done(first, start_ms)

    def _done(self, piece: int, time_ms: float) -> float:
        return self._done_ms[piece] + self._factors[piece] * (time_ms - self._since_ms[piece])


OnFailure = Literal["wait", "lose"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Arrivals and disturbances around a task graph; none by default.

    What a step did is lost when a board that it needs goes down.  With `on_failure` wait it queues
    again when that board is up again; only resources that serve nothing but that board's steps, as
    its processor does, are kept for it meanwhile.  With lose, and where no repair comes, it never
    ends and its resources are free.  In a closed loop the host gives up a lost image when nothing
    of it is under way any more and enough of what it lost is up again for an answer, at once if
    that never comes, or at its deadline.

    With `spread`, each board draws its computing time for each image about its mean, by the
    compute_cv of its device; without, all take the mean.  Energy is that of the mean.
    """

    arrivals: Arrivals = field(default_factory=ClosedLoop)
    failures: tuple[Failure, ...] = ()
    throttling: tuple[Throttle, ...] = ()
    on_failure: OnFailure = "wait"
    seed: int = 0
    spread: bool = False

    def check(self, graph: TaskGraph) -> None:
        """Refuse boards that `graph` does not have; raises SimulationError."""
        failing = {board for failure in self.failures for board in failure.boards}
        throttled = {throttle.board for throttle in self.throttling}
        named = failing | throttled
        if named and (unknown := sorted(named - graph.places)):
            raise SimulationError(
                f"the scenario names boards that have no part in this workload: "
                f"{', '.join(unknown)}; it has: {', '.join(sorted(graph.places))}"
            )

    def arrival_times(self) -> Iterator[float] | None:
        """Times at which images come, in ms; None in a closed loop."""
        if isinstance(self.arrivals, ClosedLoop):
            return None
        return self.arrivals.times(random_stream(self.seed, "arrivals"))

    def arrival_batches(self) -> Iterator[NDArray[np.float64]] | None:
        """The same some at a time; None in a closed loop."""
        if isinstance(self.arrivals, ClosedLoop):
            return None
        return self.arrivals.batches(random_stream(self.seed, "arrivals"))

    def failure_times(self) -> FailureTimes:
        """Times at which places are up."""
        return FailureTimes(self.failures, self.seed)

    def speed(self, board: str) -> ClockSpeed | None:
        """Clock of `board` over time, or None if it is never throttled."""
        own = [throttle for throttle in self.throttling if throttle.board == board]
        return ClockSpeed(own) if own else None


UNDISTURBED = Scenario()
"""A closed loop in which nothing fails and nothing slows down."""
