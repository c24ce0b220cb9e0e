"""The event path: at most one SimPy event per hop, whatever disturbs the boards.

A resource is busy until a known time.  What becomes ready queues at once: nothing can overtake
what came before, so the start is known at that moment and the only event is the end.  Where the
end sets off one step that nobody else can be in the way of (`Job.next_steps`), that step queues at
once, too, and there is no event between.
"""

import math
from collections.abc import Iterator

from simulator.arrivals import ClosedLoop
from simulator.clock import LATE, Clock, Moment
from simulator.failures import Uptime, Uptimes
from simulator.image import Hop, Image, Retry, answerable_ms
from simulator.job import Job
from simulator.noise import draws, stream
from simulator.recorder import Recorder
from simulator.scenario import Scenario
from simulator.shared_cpu import MOST_TRIES, Hooks, SharedCpu, Task, endless
from simulator.special import Special
from simulator.throttling import Speed


def play(job: Job, inferences: int, scenario: Scenario, recorder: Recorder) -> None:
    """Run `inferences` images of `job` and tell `recorder` of each."""
    EventPlay(job, inferences, scenario, recorder).run()


_Plain = tuple[int, int, float, Uptime | None]
"""A step on one resource (named twice) or two, for a constant time; when its boards are up."""


class EventPlay:
    """One run: it takes up images, begins each step when it is ready, and passes on its end."""

    def __init__(self, job: Job, inferences: int, scenario: Scenario, recorder: Recorder) -> None:
        self._clock = Clock()
        self._at = self._clock.at
        self._recorder = recorder
        self._inferences = inferences
        self._loses = scenario.on_failure == "lose"
        self._arrivals = arrivals_of(scenario)
        self._job, self._answer = job, job.answer
        self._followers, self._next_steps = job.followers, job.next_steps
        self._missing = [step.needed for step in job.steps]
        self._roots = tuple(i for i, step in enumerate(job.steps) if not step.after)
        self._deadlines = tuple(
            (i, step.deadline_ms)
            for i, step in enumerate(job.steps)
            if step.deadline_ms is not None
        )
        self._on_end, self._on_loss = (self._ended,), (self._gone,)
        self._on_deadline, self._on_start = (self._due,), (self._take_up,)
        self._on_repair = (self._again,)
        self._free_ms = [0.0] * len(job.resources)
        self._lay_out(job, scenario)
        self._number = 0
        self._start_ms = 0.0

    def run(self) -> None:
        """Run from the first image until nothing more happens."""
        self._next_image(0.0)
        self._clock.run()
        for name, cpu in self._cpus.items():
            self._recorder.shared_busy_ms[name] = cpu.busy_ms

    def _lay_out(self, job: Job, scenario: Scenario) -> None:
        """Divide the steps into plain ones (one or two resources, a constant time) and others."""
        uptimes = scenario.uptimes()
        self._cpus: dict[str, SharedCpu] = {}
        self._plain: list[_Plain | None] = []
        self._special: list[Special] = []
        for index, step in enumerate(job.steps):
            held = job.held[index]
            uptime = uptimes.of(step.places) if scenario.failures else None
            speed = scenario.speed(step.actor) if step.activity == "compute" else None
            lane = step.resources[0] if step.resources else ""
            cpu = None
            if processor := job.processors.get(lane):
                cpu = self._cpus.get(processor) or self._shared(processor, scenario, uptimes)
            drawn = draws(step, index, scenario.seed)
            stays = job.alike[index] and not self._loses
            self._special.append(
                Special(index, held, drawn, uptime, speed, cpu, lane, stays, self._recorder)
            )
            plain = speed is None and cpu is None and 1 <= len(held) <= 2 and step.steady
            self._plain.append((held[0], held[-1], step.duration_ms, uptime) if plain else None)

    def _shared(self, name: str, scenario: Scenario, uptimes: Uptimes) -> SharedCpu:
        board = name.removesuffix(".cpu")
        speed, uptime = scenario.speed(board) or Speed(), uptimes.of(frozenset({board}))
        hooks = Hooks(self._computed, self._broke_off, self._lost)
        cpu = SharedCpu(self._clock, speed, uptime, self._loses, hooks)
        self._cpus[name] = cpu
        return cpu

    # The images, one after the other.

    def _next_image(self, now_ms: float) -> None:
        """Schedule the next image: now in a closed loop, else when it arrives."""
        if self._number < self._inferences:
            self._start_ms = next(self._arrivals) if self._arrivals else now_ms
            self._at(self._start_ms, Moment(self._on_start))

    def _take_up(self, _: Moment) -> None:
        start_ms = self._start_ms
        image = Image(self._number, start_ms, self._missing[:])
        self._number += 1
        for step in self._roots:
            self._begin(image, step, start_ms)
        for step, deadline_ms in self._deadlines:
            image.under_way += 1
            self._at(start_ms + deadline_ms, Hop(self._on_deadline, image, step), LATE)
        if self._arrivals:
            self._next_image(start_ms)

    def _settle(self, image: Image, now_ms: float) -> None:
        """In a closed loop an answer, or the end of all hope for one, calls the next image."""
        if not image.settled:
            image.settled = True
            if self._arrivals is None:
                self._next_image(now_ms)

    def _give_up(self, image: Image, now_ms: float) -> None:
        """Settle a lost image once the next one could be answered; at once if it never could."""
        repair_ms = answerable_ms(self._job, image)
        self._settle(image, max(now_ms, repair_ms) if repair_ms < math.inf else now_ms)

    def _retire(self, image: Image, now_ms: float) -> None:
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

    def _begin(self, image: Image, step: int, ready_ms: float) -> None:
        """Queue a step that is ready, and what it alone sets off; the last end is an event."""
        free_ms = self._free_ms
        following: int | None = step
        while following is not None:
            step = following
            plain = self._plain[step]
            quiet = False
            if plain is not None:
                resource, other, duration_ms, uptime = plain
                start_ms = free_ms[resource]
                if start_ms < ready_ms:
                    start_ms = ready_ms
                if start_ms < free_ms[other]:
                    start_ms = free_ms[other]
                end_ms = start_ms + duration_ms
                quiet = uptime is None or (
                    uptime.quiet_from_ms <= start_ms and end_ms <= uptime.quiet_to_ms
                )
            if quiet:
                free_ms[resource] = free_ms[other] = end_ms
                image.starts_ms[step] = start_ms
                image.frees_ms[step] = image.ends_ms[step] = end_ms
            elif not self._begin_special(image, step, ready_ms):
                return
            ready_ms = image.ends_ms[step]
            following = self._next_steps[step]
        image.under_way += 1
        self._at(ready_ms, Hop(self._on_end, image, step))

    def _begin_special(self, image: Image, step: int, ready_ms: float) -> bool:
        """Queue a step that is not plain; return whether its end is known already."""
        special = self._special[step]
        drawn_ms = next(special.draws)
        if special.cpu is not None:
            image.under_way += 1
            special.cpu.take(special.lane, Task(image, step, drawn_ms[0]), ready_ms)
            return False
        return self._queue(image, step, ready_ms, drawn_ms)

    def _queue(
        self,
        image: Image,
        step: int,
        ready_ms: float,
        drawn_ms: tuple[float, float],
        tries: int = 0,
    ) -> bool:
        """Queue a step that broke off `tries` times; return whether its end is known already."""
        special = self._special[step]
        hold_ms, delay_ms = drawn_ms
        start_ms = max((self._free_ms[each] for each in special.resources), default=ready_ms)
        start_ms, free_ms, repair_ms = special.hold(
            image.inference, max(start_ms, ready_ms), hold_ms
        )
        for resource in special.resources:
            self._free_ms[resource] = free_ms
        if repair_ms is None:
            image.starts_ms[step], image.frees_ms[step] = start_ms, free_ms
            image.ends_ms[step] = free_ms + delay_ms
            return True
        image.under_way += 1
        if self._loses or repair_ms == math.inf:
            image.repairs_ms[step] = repair_ms
            self._at(free_ms, Hop(self._on_loss, image, step))
        else:
            if tries + 1 == MOST_TRIES:
                raise endless(step, hold_ms)
            self._at(repair_ms, Retry(self._on_repair, image, step, drawn_ms, tries + 1))
        return False

    def _again(self, retry: Retry) -> None:
        """Queue a step again whose boards are up again."""
        image, step = retry.image, retry.step
        image.under_way -= 1
        if self._queue(image, step, self._clock.now, retry.drawn_ms, retry.tries):
            self._go_on(image, step)

    def _go_on(self, image: Image, step: int) -> None:
        """Begin what `step`, whose end is known, alone sets off, or wait for the end."""
        following = self._next_steps[step]
        if following is not None:
            self._begin(image, following, image.ends_ms[step])
        else:
            image.under_way += 1
            self._at(image.ends_ms[step], Hop(self._on_end, image, step))

    def _ended(self, hop: Hop) -> None:
        """Pass on the end of a step: begin what waits for nothing else."""
        image, step = hop.image, hop.step
        now_ms = image.ends_ms[step]
        missing = image.missing
        for follower in self._followers[step]:
            missing[follower] -= 1
            if not missing[follower]:
                self._begin(image, follower, now_ms)
        if step == self._answer:
            image.end_ms = now_ms
            self._settle(image, now_ms)
        image.under_way -= 1
        if not image.under_way:
            self._retire(image, now_ms)

    def _due(self, hop: Hop) -> None:
        """Meet a deadline: the step begins with what came; if nothing came, it never does."""
        image, step = hop.image, hop.step
        now_ms = self._clock.now
        waited_for = image.missing[step]
        if waited_for > 0:
            image.missing[step] = 0
            if waited_for < self._missing[step]:
                self._begin(image, step, now_ms)
            else:
                self._settle(image, now_ms)
        self._gone(hop)

    def _gone(self, hop: Hop) -> None:
        image = hop.image
        image.under_way -= 1
        if not image.under_way:
            self._retire(image, self._clock.now)

    # What shared processors tell.

    def _computed(self, task: Task, now_ms: float) -> None:
        image, step = task.image, task.step
        image.starts_ms[step] = task.start_ms
        image.frees_ms[step] = image.ends_ms[step] = now_ms
        self._ended(task)

    def _broke_off(self, task: Task, now_ms: float) -> None:
        done_ms = task.work_ms - task.left_ms
        self._recorder.broke(task.image.inference, task.step, task.start_ms, now_ms, done_ms)

    def _lost(self, task: Task, repair_ms: float) -> None:
        task.image.repairs_ms[task.step] = repair_ms
        self._gone(task)


def arrivals_of(scenario: Scenario) -> Iterator[float] | None:
    """Return when images come; None in a closed loop."""
    if isinstance(scenario.arrivals, ClosedLoop):
        return None
    return scenario.arrivals.times(stream(scenario.seed, "arrivals"))
