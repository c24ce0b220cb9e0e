"""A simulation: a workload run in a scenario, on the quickest exact path.

Two paths give the same result.  The event engine, one SimPy event per step, can do everything.
The recurrence takes all steps of an image in one go, with one SimPy event per image::

    start = max(ends of what the step waits for, its resources free);  free = start + duration

in an order of the steps that is the same for each image.  That is exact only where nothing can
change the order in which steps come to a resource (`recurrence_applies`).

Time is SimPy's, in ms.  In a closed loop without randomness every inference takes as long as
`simulator.workloads.closed_form` says.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from operator import itemgetter
from typing import Literal

from nonn_common.errors import SimulationError
from simulator.engine.compiled_events import EVENTS
from simulator.engine.compiled_run import RECURRENCE, EventRun, RecurrenceRow, run_recurrence
from simulator.engine.event_engine import EventSimulation
from simulator.engine.kernel import (
    CallbackEvent,
    Clock,
    ImageState,
    SampledTimes,
    is_constant,
    sample_batches,
    sample_times,
)
from simulator.native_code import Kernel, has_place
from simulator.results.simulation_result import SimulationResult, summarise
from simulator.results.statistics import ImageProgress, Keep, Recorder
from simulator.scenario import (
    UNDISTURBED,
    Arrivals,
    ClosedLoop,
    Periodic,
    Poisson,
    RenewalFailure,
    Scenario,
    Times,
)
from simulator.task_graph import Step, TaskGraph, held_ms, owner_of, spread_graph
from simulator.workloads.fan_out import Workload

Path = Literal["events", "recurrence"]

_EQUAL = 1e-9
"""Relative difference below which two rates are equal."""


def simulate(
    workload: Workload | TaskGraph,
    inferences: int = 1,
    scenario: Scenario = UNDISTURBED,
    keep: Keep = "all",
    progress: ImageProgress | None = None,
    path: Path | None = None,
    compiled: bool | None = None,
) -> SimulationResult:
    """Run `inferences` images of `workload` in `scenario`.

    With `keep` totals, memory does not grow with the images: no tables, and percentiles with the
    error that the result states.  `progress` hears of each batch of images.  `path` names the way
    to the result, which must be exact; the quickest exact one if None.  `compiled` says whether
    numba's code runs it, with the same result to the last bit: where that saves time, if None.
    Raises SimulationError for fewer than one inference and where scenario and workload do not fit,
    ProfileError where a profile lacks a quantity.
    """
    graph = workload if isinstance(workload, TaskGraph) else workload.graph()
    if scenario.spread:
        graph = spread_graph(graph)
    _check(graph, inferences, scenario)
    if path is None:
        path = "recurrence" if inferences > 1 and recurrence_applies(graph, scenario) else "events"
    kernel = RECURRENCE if path == "recurrence" else _event_kernel(graph, scenario)
    if compiled is None:
        compiled = kernel is not None and _pays(inferences * len(graph.steps), kernel)
    if compiled and kernel and not kernel.make():
        raise SimulationError("numba cannot compile here; leave `compiled` out")
    recorder = Recorder(graph, keep, progress)
    if not (compiled and kernel and _run_compiled(graph, inferences, scenario, recorder, path)):
        recorder = Recorder(graph, keep, progress)
        run = _Recurrence if path == "recurrence" else EventSimulation
        run(graph, inferences, scenario, recorder).run()
    recording = recorder.finish()
    found = summarise(recorder.statistics, recording)
    return replace(found, warnings=overload(graph, inferences, scenario))


_PYTHON_S = 0.2e-6
"""Time of a step of an image in Python, at least, statistics included."""
_CALL_S, _START_S, _ONCE_S, _COMPILE_S = 0.01, 0.2, 2.5, 20.0
"""Time that compiled code must save: when it is loaded; when it is on disk; when it is not, so that
the first long run compiles for all later ones; and where there is no place to keep it."""


def _pays(steps: int, kernel: Kernel) -> bool:
    """Whether compiled code saves more time than it takes until it is there."""
    python_s = _PYTHON_S * steps
    if python_s < (_CALL_S if kernel.is_loaded else _START_S):
        return False
    if kernel.find():
        return True
    once_s = _ONCE_S if has_place() else _COMPILE_S
    return python_s >= once_s and find_spec("numba") is not None and kernel.make()


def _check(graph: TaskGraph, inferences: int, scenario: Scenario) -> None:
    if inferences < 1:
        raise SimulationError(f"at least one inference is needed; found {inferences}")
    arrivals = scenario.arrivals
    if isinstance(arrivals, Times) and inferences > len(arrivals.ms):
        raise SimulationError(
            f"the trace holds {len(arrivals.ms)} arrivals; {inferences} inferences are too many"
        )
    scenario.check(graph)


def overload(graph: TaskGraph, inferences: int, scenario: Scenario) -> tuple[str, ...]:
    """Warning where images come faster than `graph` can take them; in a closed loop never.

    An image holds a resource for h ms in the mean, lost tries included, at the board's last clock.
    In a share u of all time its board is up, where it waits for repair.  With images at a rate r
    the queue grows without bound where r h >= u, for chance arrivals, or r h > u.  What failures
    make a board do again is not counted: such a queue may grow without a warning.
    """
    per_s = _arrivals_per_s(scenario.arrivals, inferences)
    if per_s is None:
        return ()
    means = replace(graph, steps=tuple(_mean_step(step, scenario) for step in graph.steps))
    rates = (
        (1000 * _share_up(name, scenario) / held, name)
        for name, held in held_ms(means).items()
        if held
    )
    least_per_s, name = min(rates, default=(math.inf, ""))
    by_chance = isinstance(scenario.arrivals, Poisson)
    if per_s < least_per_s * (1 - _EQUAL if by_chance else 1 + _EQUAL):
        return ()
    traced = isinstance(scenario.arrivals, Times)
    return (
        f"{per_s:.4g} images come in a second, and {name} can take {least_per_s:.4g}: its queue "
        f"grows {'from image to image' if traced else 'without bound'}, and latency with it",
    )


def _arrivals_per_s(arrivals: Arrivals, inferences: int) -> float | None:
    """Images that come in a second; None in a closed loop, or all at once."""
    if isinstance(arrivals, Poisson):
        return arrivals.per_s
    if isinstance(arrivals, Periodic):
        return 1000 / arrivals.every_ms
    if isinstance(arrivals, Times):
        lasting_ms = arrivals.ms[inferences - 1] - arrivals.ms[0]
        return 1000 * (inferences - 1) / lasting_ms if lasting_ms else None
    return None


def _mean_step(step: Step, scenario: Scenario) -> Step:
    """Step as it is in the mean, lost tries included, at its board's last clock."""
    tries = 1 / (1 - step.transit.loss_pct / 100)
    speed = scenario.speed(step.actor) if step.activity == "compute" else None
    once_ms = step.duration_ms / (speed.last_factor if speed else 1.0)
    return replace(step, duration_ms=once_ms + (tries - 1) * step.transit.retry_ms)


def _share_up(resource: str, scenario: Scenario) -> float:
    """Share of time in which a resource's board is up; 1 where failures lose work."""
    share, board = 1.0, owner_of(resource)
    for failure in scenario.failures:
        if scenario.on_failure == "wait" and isinstance(failure, RenewalFailure):
            cycle_ms = failure.mttf_ms + failure.mttr_ms
            share *= failure.mttf_ms / cycle_ms if board in failure.boards else 1.0
    return share


Gather = Callable[[Sequence[float]], float]


def recurrence_applies(graph: TaskGraph, scenario: Scenario) -> bool:
    """Whether the steps come to each resource in one order, whatever the image."""
    if scenario.failures or scenario.throttling:
        return False
    return keeps_order(graph) or (
        isinstance(scenario.arrivals, ClosedLoop)
        and graph.waits_for_all
        and all(_same_each_time(step) for step in graph.steps)
    )


def keeps_order(graph: TaskGraph) -> bool:
    """Whether images keep their order at each step of `graph`.

    They do where each resource is used only by steps that become ready together: no image can
    then overtake an earlier one, as start = max(ready, free) never falls from image to image.
    Jitter, and random times without a queue, would let one overtake.
    """
    if graph.processors or any(map(_overtakes, graph.steps)):
        return False
    waits: dict[int, tuple[tuple[int, ...], int]] = {}
    for step, resources in zip(graph.steps, graph.held, strict=True):
        wait = tuple(sorted(step.after)), step.needed
        if any(waits.setdefault(resource, wait) != wait for resource in resources):
            return False
    return True


def _overtakes(step: Step) -> bool:
    random = step.service != "constant" or step.transit.loss_pct > 0 or step.cv > 0
    jitters = step.transit.jitter_ms > 0 or step.deadline_ms is not None
    return jitters or (random and not step.resources)


def _same_each_time(step: Step) -> bool:
    noisy = step.transit.loss_pct or step.transit.jitter_ms or step.cv
    return step.service == "constant" and not noisy


@dataclass(frozen=True, slots=True)
class _GeneralStep:
    """A step beyond one wait, two resources and a constant time."""

    gather: Gather
    resources: tuple[int, ...]
    draws: SampledTimes


StepRow = tuple[int, int, int, int, float, _GeneralStep | None]
"""A step: its index, the step it waits for, its resource (twice) or two, ms; or the rest."""


class _Recurrence:
    """One run: an image after the other, each in one go."""

    def __init__(
        self, graph: TaskGraph, inferences: int, scenario: Scenario, recorder: Recorder
    ) -> None:
        self._recorder = recorder
        self._inferences, self._number = inferences, 0
        self._arrivals = scenario.arrival_times()
        self._sink = graph.sink
        self._clock, self._on_start = Clock(), (self._image,)
        self._start_ms = 0.0
        self._free_ms = [0.0] * len(graph.resources)
        self._ends_ms = [0.0] * (len(graph.steps) + 1)  # the last one: the image's start
        self._starts_ms = [0.0] * len(graph.steps)
        self._frees_ms = [0.0] * len(graph.steps)
        if keeps_order(graph):
            self._rows = [self._row(graph, i, scenario) for i in range(len(graph.steps))]
        else:
            first = _Rehearsal(graph)
            self._rows = [self._row(graph, i, scenario, first.held_ms[i]) for i in first.order]
            for name, busy_ms in first.shared_busy_ms.items():
                recorder.shared_busy_ms[name] = busy_ms * inferences

    def run(self) -> None:
        """Run from the first image to the last."""
        self._next_image(0.0)
        self._clock.run()

    def _row(
        self, graph: TaskGraph, index: int, scenario: Scenario, held_ms: float | None = None
    ) -> StepRow:
        """Lay out one step; `held_ms` is how long it held its resources in a rehearsal."""
        step, resources = graph.steps[index], graph.held[index]
        after = step.after or (len(graph.steps),)
        in_queue = any(resource in graph.processors for resource in step.resources)
        duration_ms = held_ms if in_queue and held_ms is not None else step.duration_ms
        plain = len(after) == 1 and 1 <= len(resources) <= 2 and step.steady and not graph.delays
        if plain:
            return index, after[0], resources[0], resources[-1], duration_ms, None
        drawn = sample_times(replace(step, duration_ms=duration_ms), index, scenario.seed)
        return index, 0, 0, 0, 0.0, _GeneralStep(_gatherer(after, step.needed), resources, drawn)

    def _next_image(self, now_ms: float) -> None:
        if self._number < self._inferences:
            self._start_ms = next(self._arrivals) if self._arrivals else now_ms
            self._clock.at(self._start_ms, CallbackEvent(self._on_start))

    def _image(self, _: CallbackEvent) -> None:
        """Let one image pass through all steps."""
        starts, frees, ends, free = self._starts_ms, self._frees_ms, self._ends_ms, self._free_ms
        begin_ms = ends[-1] = self._start_ms
        for index, after, resource, other, duration_ms, rest in self._rows:
            if rest is None:
                start = ends[after]
                if start < free[resource]:
                    start = free[resource]
                if start < free[other]:
                    start = free[other]
                starts[index] = start
                free[resource] = free[other] = ends[index] = start + duration_ms
            else:
                hold_ms, delay_ms = next(rest.draws)
                start = rest.gather(ends)
                for each in rest.resources:
                    if start < free[each]:
                        start = free[each]
                starts[index] = start
                through = frees[index] = start + hold_ms
                for each in rest.resources:
                    free[each] = through
                ends[index] = through + delay_ms
        answer_ms = ends[self._sink]
        self._recorder.add(self._number, begin_ms, answer_ms, starts, frees, ends[:-1])
        self._number += 1
        self._next_image(answer_ms)


def _event_kernel(graph: TaskGraph, scenario: Scenario) -> Kernel | None:
    """The compiled event loop, which knows no shared processor and no throttling."""
    return None if graph.processors or scenario.throttling else EVENTS


def _run_compiled(
    graph: TaskGraph, inferences: int, scenario: Scenario, recorder: Recorder, path: Path
) -> bool:
    """Run in compiled code; return whether that found a result, as the recurrence always does."""
    if path == "events":
        return EventRun(graph, inferences, scenario, recorder).run()
    order, held_ms = list(range(len(graph.steps))), [step.duration_ms for step in graph.steps]
    if not keeps_order(graph):
        first = _Rehearsal(graph)
        order = first.order
        for index, step in enumerate(graph.steps):
            if any(each in graph.processors for each in step.resources):
                held_ms[index] = first.held_ms[index]
        for name, busy_ms in first.shared_busy_ms.items():
            recorder.shared_busy_ms[name] = busy_ms * inferences
    rows: list[RecurrenceRow] = []
    for index in order:
        step = replace(graph.steps[index], duration_ms=held_ms[index])
        after, needed = (step.after, step.needed) if step.after else ((len(graph.steps),), 1)
        drawn = None if is_constant(step) else sample_batches(step, index, scenario.seed)
        times_ms = step.duration_ms, step.transit.latency_ms
        rows.append((index, after, needed, graph.held[index], *times_ms, drawn))
    arrivals = scenario.arrival_batches()
    run_recurrence(rows, arrivals, inferences, len(graph.resources), recorder)
    return True


class _Rehearsal(EventSimulation):
    """One image through the event path, to see in which order its steps begin."""

    def __init__(self, graph: TaskGraph) -> None:
        recorder = Recorder(graph, "totals")
        super().__init__(graph, 1, UNDISTURBED, recorder)
        self.order: list[int] = []
        self.held_ms: list[float] = []
        self.run()
        self.shared_busy_ms = recorder.shared_busy_ms

    def _begin(self, image: ImageState, step: int, ready_ms: float) -> None:
        begun: int | None = step
        while begun is not None:
            self.order.append(begun)
            begun = self._next_steps[begun]
        super()._begin(image, step, ready_ms)

    def _retire(self, image: ImageState, now_ms: float) -> None:  # noqa: ARG002
        times = zip(image.starts_ms, image.frees_ms, strict=True)
        self.held_ms = [free_ms - start_ms for start_ms, free_ms in times]


def _gatherer(after: tuple[int, ...], needed: int) -> Gather:
    """Function that finds the time at which enough of `after` have ended."""
    if len(after) == 1:
        return itemgetter(*after)
    pick: Callable[[Sequence[float]], tuple[float, ...]] = itemgetter(*after)
    if needed == len(after):
        return lambda ends: max(pick(ends))
    return lambda ends: sorted(pick(ends))[needed - 1]
