"""The event engine: at most one SimPy event per step, whatever disturbs the boards.

A resource is busy until a known time.  What becomes ready queues at once: nothing can overtake
what came before, so the start is known at that moment and the only event is the end.  Where the
end sets off one step that nobody else can be in the way of (`TaskGraph.next_steps`), that step
queues at once, too, and there is no event between.
"""

import math
from dataclasses import dataclass

from simulator.engine.kernel import (
    LATE,
    MOST_TRIES,
    CallbackEvent,
    Clock,
    CpuCallbacks,
    ImageState,
    QueuedStep,
    SampledTimes,
    SharedCpu,
    StepEnd,
    StepRetry,
    answerable_ms,
    endless_step,
    sample_times,
)
from simulator.results.statistics import Recorder
from simulator.scenario import (
    Availability,
    ClockSpeed,
    FailureTimes,
    Scenario,
)
from simulator.task_graph import TaskGraph


@dataclass(frozen=True, slots=True)
class StochasticStep:
    """A step that is more than a constant time on undisturbed resources.

    It has an index, resources, sampled times, and the availability and clock of its boards.

    One that `stays` keeps its resources until its boards are up again: nobody else could use them.
    """

    step: int
    resources: tuple[int, ...]
    draws: SampledTimes
    availability: Availability | None
    speed: ClockSpeed | None
    cpu: SharedCpu | None
    queue: str
    stays: bool
    recorder: Recorder

    def hold(
        self, inference: int, start_ms: float, hold_ms: float
    ) -> tuple[float, float, float | None]:
        """Start and end of the last try, and its repair if it failed.

        The repair is at infinity if it never comes.  Raises SimulationError for a step that stays
        and never gets through.
        """
        for _ in range(MOST_TRIES):
            if self.speed is None:
                free_ms = start_ms + hold_ms
            else:
                free_ms = self.speed.end_ms(start_ms, hold_ms)
            down = self.availability.touched(start_ms, free_ms) if self.availability else None
            if down is None:
                return start_ms, free_ms, None
            down_ms, up_ms = down
            if start_ms < down_ms:
                speed = self.speed or ClockSpeed()
                done_ms = speed.work_ms(start_ms, down_ms)
                self.recorder.broke(inference, self.step, start_ms, down_ms, done_ms)
            if up_ms == math.inf or not self.stays:
                return start_ms, max(start_ms, down_ms), up_ms
            start_ms = up_ms
        raise endless_step(self.step, hold_ms)


_ConstantStep = tuple[int, int, float, Availability | None]
"""A step on one resource (named twice) or two, for a constant time; when its boards are up."""


class EventSimulation:
    """One run by events: each step begins when it is ready."""

    def __init__(
        self, graph: TaskGraph, inferences: int, scenario: Scenario, recorder: Recorder
    ) -> None:
        self._clock = Clock()
        self._at = self._clock.at
        self._recorder = recorder
        self._inferences = inferences
        self._loses = scenario.on_failure == "lose"
        self._arrivals = scenario.arrival_times()
        self._graph, self._sink = graph, graph.sink
        self._followers, self._next_steps = graph.followers, graph.next_steps
        self._missing = [step.needed for step in graph.steps]
        self._roots = tuple(i for i, step in enumerate(graph.steps) if not step.after)
        self._deadlines = tuple(
            (i, step.deadline_ms)
            for i, step in enumerate(graph.steps)
            if step.deadline_ms is not None
        )
        self._on_end, self._on_loss = (self._ended,), (self._gone,)
        self._on_deadline, self._on_start = (self._due,), (self._take_up,)
        self._on_repair = (self._again,)
        self._free_ms = [0.0] * len(graph.resources)
        self._lay_out(graph, scenario)
        self._number = 0
        self._start_ms = 0.0

    def run(self) -> None:
        """Run from the first image until nothing more happens."""
        self._next_image(0.0)
        self._clock.run()
        for name, cpu in self._cpus.items():
            self._recorder.shared_busy_ms[name] = cpu.busy_ms

    def _lay_out(self, graph: TaskGraph, scenario: Scenario) -> None:
        """Divide the steps into plain ones (one or two resources, a constant time) and others."""
        failure_times = scenario.failure_times()
        self._cpus: dict[str, SharedCpu] = {}
        self._plain: list[_ConstantStep | None] = []
        self._stochastic: list[StochasticStep] = []
        for index, step in enumerate(graph.steps):
            held = graph.held[index]
            availability = failure_times.of(step.places) if scenario.failures else None
            speed = scenario.speed(step.actor) if step.activity == "compute" else None
            queue = step.resources[0] if step.resources else ""
            cpu = None
            if processor := graph.processors.get(queue):
                cpu = self._cpus.get(processor) or self._shared(processor, scenario, failure_times)
            drawn = sample_times(step, index, scenario.seed)
            stays = graph.exclusive[index] and not self._loses
            self._stochastic.append(
                StochasticStep(
                    index, held, drawn, availability, speed, cpu, queue, stays, self._recorder
                )
            )
            plain = speed is None and cpu is None and 1 <= len(held) <= 2 and step.steady
            self._plain.append(
                (held[0], held[-1], step.duration_ms, availability) if plain else None
            )

    def _shared(self, name: str, scenario: Scenario, failure_times: FailureTimes) -> SharedCpu:
        board = name.removesuffix(".cpu")
        speed, availability = (
            scenario.speed(board) or ClockSpeed(),
            failure_times.of(frozenset({board})),
        )
        notify = CpuCallbacks(self._computed, self._broke_off, self._lost)
        cpu = SharedCpu(self._clock, speed, availability, self._loses, notify)
        self._cpus[name] = cpu
        return cpu

    # The images, one after the other.

    def _next_image(self, now_ms: float) -> None:
        """Schedule the next image: now in a closed loop, else when it arrives."""
        if self._number < self._inferences:
            self._start_ms = next(self._arrivals) if self._arrivals else now_ms
            self._at(self._start_ms, CallbackEvent(self._on_start))

    def _take_up(self, _: CallbackEvent) -> None:
        start_ms = self._start_ms
        image = ImageState(self._number, start_ms, self._missing[:])
        self._number += 1
        for step in self._roots:
            self._begin(image, step, start_ms)
        for step, deadline_ms in self._deadlines:
            image.under_way += 1
            self._at(start_ms + deadline_ms, StepEnd(self._on_deadline, image, step), LATE)
        if self._arrivals:
            self._next_image(start_ms)

    def _settle(self, image: ImageState, now_ms: float) -> None:
        """Call the next image of a closed loop at an answer or loss."""
        if not image.settled:
            image.settled = True
            if self._arrivals is None:
                self._next_image(now_ms)

    def _give_up(self, image: ImageState, now_ms: float) -> None:
        """Settle a lost image once the next one could be answered.

        At once, if it never could.
        """
        repair_ms = answerable_ms(self._graph, image)
        self._settle(image, max(now_ms, repair_ms) if repair_ms < math.inf else now_ms)

    def _retire(self, image: ImageState, now_ms: float) -> None:
        if not image.settled:
            self._give_up(image, now_ms)
        self._recorder.add(
            image.inference,
            image.start_ms,
            image.end_ms,
            image.starts_ms,
            image.frees_ms,
            image.ends_ms,
        )

    # The steps of one image.

    def _begin(self, image: ImageState, step: int, ready_ms: float) -> None:
        """Queue a step that is ready, and the steps that it alone sets off.

        Only the last end is an event.
        """
        free_ms = self._free_ms
        following: int | None = step
        while following is not None:
            step = following
            plain = self._plain[step]
            quiet = False
            if plain is not None:
                resource, other, duration_ms, availability = plain
                start_ms = free_ms[resource]
                if start_ms < ready_ms:
                    start_ms = ready_ms
                if start_ms < free_ms[other]:
                    start_ms = free_ms[other]
                end_ms = start_ms + duration_ms
                quiet = availability is None or (
                    availability.quiet_from_ms <= start_ms and end_ms <= availability.quiet_to_ms
                )
            if quiet:
                free_ms[resource] = free_ms[other] = end_ms
                image.starts_ms[step] = start_ms
                image.frees_ms[step] = image.ends_ms[step] = end_ms
            elif not self._begin_stochastic(image, step, ready_ms):
                return
            ready_ms = image.ends_ms[step]
            following = self._next_steps[step]
        image.under_way += 1
        self._at(ready_ms, StepEnd(self._on_end, image, step))

    def _begin_stochastic(self, image: ImageState, step: int, ready_ms: float) -> bool:
        """Queue a step that is not plain; return whether its end is known already."""
        stochastic = self._stochastic[step]
        drawn_ms = next(stochastic.draws)
        if stochastic.cpu is not None:
            image.under_way += 1
            stochastic.cpu.take(stochastic.queue, QueuedStep(image, step, drawn_ms[0]), ready_ms)
            return False
        return self._queue(image, step, ready_ms, drawn_ms)

    def _queue(
        self,
        image: ImageState,
        step: int,
        ready_ms: float,
        drawn_ms: tuple[float, float],
        tries: int = 0,
    ) -> bool:
        """Queue a step that broke off `tries` times; return whether its end is known already."""
        stochastic = self._stochastic[step]
        hold_ms, delay_ms = drawn_ms
        start_ms = max((self._free_ms[each] for each in stochastic.resources), default=ready_ms)
        start_ms, free_ms, repair_ms = stochastic.hold(
            image.inference, max(start_ms, ready_ms), hold_ms
        )
        for resource in stochastic.resources:
            self._free_ms[resource] = free_ms
        if repair_ms is None:
            image.starts_ms[step], image.frees_ms[step] = start_ms, free_ms
            image.ends_ms[step] = free_ms + delay_ms
            return True
        image.under_way += 1
        if self._loses or repair_ms == math.inf:
            image.repairs_ms[step] = repair_ms
            self._at(free_ms, StepEnd(self._on_loss, image, step))
        else:
            if tries + 1 == MOST_TRIES:
                raise endless_step(step, hold_ms)
            self._at(repair_ms, StepRetry(self._on_repair, image, step, drawn_ms, tries + 1))
        return False

    def _again(self, retry: StepRetry) -> None:
        """Queue a step again whose boards are up again."""
        image, step = retry.image, retry.step
        image.under_way -= 1
        if self._queue(image, step, self._clock.now, retry.drawn_ms, retry.tries):
            self._go_on(image, step)

    def _go_on(self, image: ImageState, step: int) -> None:
        """Begin what `step`, whose end is known, alone sets off, or wait for the end."""
        following = self._next_steps[step]
        if following is not None:
            self._begin(image, following, image.ends_ms[step])
        else:
            image.under_way += 1
            self._at(image.ends_ms[step], StepEnd(self._on_end, image, step))

    def _ended(self, end: StepEnd) -> None:
        """Pass on the end of a step: begin what waits for nothing else."""
        image, step = end.image, end.step
        now_ms = image.ends_ms[step]
        missing = image.missing
        for follower in self._followers[step]:
            missing[follower] -= 1
            if not missing[follower]:
                self._begin(image, follower, now_ms)
        if step == self._sink:
            image.end_ms = now_ms
            self._settle(image, now_ms)
        image.under_way -= 1
        if not image.under_way:
            self._retire(image, now_ms)

    def _due(self, end: StepEnd) -> None:
        """Meet a deadline: the step begins with what came; if nothing came, it never does."""
        image, step = end.image, end.step
        now_ms = self._clock.now
        waited_for = image.missing[step]
        if waited_for > 0:
            image.missing[step] = 0
            if waited_for < self._missing[step]:
                self._begin(image, step, now_ms)
            else:
                self._settle(image, now_ms)
        self._gone(end)

    def _gone(self, end: StepEnd) -> None:
        image = end.image
        image.under_way -= 1
        if not image.under_way:
            self._retire(image, self._clock.now)

    # Calls of shared processors.

    def _computed(self, queued: QueuedStep, now_ms: float) -> None:
        image, step = queued.image, queued.step
        image.starts_ms[step] = queued.start_ms
        image.frees_ms[step] = image.ends_ms[step] = now_ms
        self._ended(queued)

    def _broke_off(self, queued: QueuedStep, now_ms: float) -> None:
        done_ms = queued.work_ms - queued.left_ms
        self._recorder.broke(queued.image.inference, queued.step, queued.start_ms, now_ms, done_ms)

    def _lost(self, queued: QueuedStep, repair_ms: float) -> None:
        queued.image.repairs_ms[queued.step] = repair_ms
        self._gone(queued)
