"""A task graph: what one image sets off, as steps that wait.

A step waits for earlier steps and for resources; the end of the sink ends the image.  A resource
is a first-come-first-served server that does one thing at a time.  Their names::

    host.nic              the host's serial sender
    host.cpu              the host's processor, which joins
    BOARD.cpu             a board's processor
    BOARD.cpu/QUEUE       one of several queues whose heads share that processor
    BOARD.down, BOARD.up  a full-duplex link, seen from the host
    BOARD.wire            a half-duplex link
    medium:LINK           one medium that all boards on that link share
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Literal

from nonn_common.errors import SimulationError
from profiles.device import DeviceProfile, spread_cv

HOST = "host"
"""Name of the host among the actors of a graph; no board may be called so."""

Activity = Literal["send", "compute", "exchange", "reply", "join"]
Service = Literal["constant", "exponential"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message from one actor to another.

    Boards of `via` pass it on, in this order.
    """

    sender: str
    receiver: str
    size_bytes: int
    via: tuple[str, ...] = ()

    @property
    def places(self) -> frozenset[str]:
        """Everybody who must be up for it: its ends and the boards in between."""
        return frozenset((self.sender, self.receiver, *self.via))


@dataclass(frozen=True, slots=True)
class Transit:
    """Delay and loss of a message, beside the time on its resources.

    Lost with probability `loss_pct`, it holds its resources `retry_ms` longer for each further
    try; then it is under way for `latency_ms` plus an exponential delay of mean `jitter_ms`, with
    its resources free again.  `wire_ms` is how long one try is on the wire or on the air (the
    step's whole duration if None), and `radio_parts` which part of that time is of a board's own
    hops, all of it for a board that is not named; only the energy of the radio asks for them.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_pct: float = 0.0
    retry_ms: float = 0.0
    wire_ms: float | None = None
    radio_parts: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        times_ms = (self.latency_ms, self.jitter_ms, self.retry_ms)
        if not all(0 <= each < math.inf for each in times_ms) or not 0 <= self.loss_pct < 100:
            raise SimulationError(
                "a message needs delays of at least 0 ms and a loss from 0 to below 100 %; "
                f"found {self}"
            )


DIRECT = Transit()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an image: `duration_ms` on its resources, after earlier steps.

    `after` holds the indices of earlier steps; one that stands there twice counts twice.  `needs`
    says how many of them suffice (all, if None).  With a `deadline_ms` since the image's start the
    step then begins with what came by that time, and the image is lost if nothing came.  `service`
    exponential makes duration_ms a mean.  `energy_mj` is what computing costs.  With a `cv` above
    0 the duration of each image is drawn about its mean (`profiles.time_spread`), in the same
    proportion for all steps of the actor.
    """

    actor: str
    activity: Activity
    resources: tuple[str, ...]
    duration_ms: float
    after: tuple[int, ...] = ()
    needs: int | None = None
    message: Message | None = None
    energy_mj: float = 0.0
    deadline_ms: float | None = None
    transit: Transit = DIRECT
    service: Service = "constant"
    cv: float = 0.0

    @property
    def needed(self) -> int:
        """How many of `after` must have ended."""
        return len(self.after) if self.needs is None else self.needs

    @property
    def steady(self) -> bool:
        """Whether it ends with its resources' time, the same for each image."""
        in_transit = self.transit.loss_pct or self.transit.jitter_ms or self.transit.latency_ms
        return self.service == "constant" and not in_transit and not self.cv

    @property
    def places(self) -> frozenset[str]:
        """Host and boards that must be up for this step."""
        passed = self.message.places if self.message else ()
        owners = (owner_of(each) for each in self.resources)
        return frozenset(each for each in chain((self.actor,), passed, owners) if each)


@dataclass(frozen=True, slots=True)
class Node:
    """A board of a task graph: its device and its number of students."""

    name: str
    device: DeviceProfile
    students: int = 0


@dataclass(frozen=True)
class TaskGraph:
    """A task graph: steps, each after those it waits for.

    The end of `sink` ends the image.

    `students` says whose features a reply brings, by the index of its step.  `nodes` are the
    boards of the tables, in their order.  Raises SimulationError where the parts do not fit.
    """

    steps: tuple[Step, ...]
    sink: int
    students: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sink < len(self.steps):
            raise SimulationError(
                f"the sink must be one of {len(self.steps)} steps; found step {self.sink}"
            )
        if not set(self.students) <= set(range(len(self.steps))):
            raise SimulationError(f"students reply in unknown steps: {sorted(self.students)}")
        for index, step in enumerate(self.steps):
            _check(index, step)

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """Every resource, in the order of first use."""
        return tuple(dict.fromkeys(chain.from_iterable(step.resources for step in self.steps)))

    @cached_property
    def held(self) -> tuple[tuple[int, ...], ...]:
        """For each step, by index, the resources on which it may have to wait.

        A resource whose every user also holds one and the same other resource is left out: it is
        never free later than that other.
        """
        users = {each: set[int]() for each in self.resources}
        for index, step in enumerate(self.steps):
            for each in step.resources:
                users[each].add(index)
        idle = set[str]()
        for each in reversed(self.resources):
            with_it = self.steps[min(users[each])].resources
            if any(users[each] <= users[other] for other in with_it if other not in {each} | idle):
                idle.add(each)
        numbers = {each: number for number, each in enumerate(self.resources)}
        return tuple(
            tuple(numbers[each] for each in step.resources if each not in idle)
            for step in self.steps
        )

    @cached_property
    def exclusive(self) -> tuple[bool, ...]:
        """For each step, whether only steps of its kind use its resources.

        All that wait for them hold the same resources and need the same places.

        Its resources have then nothing else to do while one of its places is down.
        """
        users: dict[int, set[tuple[tuple[int, ...], frozenset[str]]]] = {}
        for step, held in zip(self.steps, self.held, strict=True):
            for each in held:
                users.setdefault(each, set()).add((held, step.places))
        return tuple(all(len(users[each]) == 1 for each in held) for held in self.held)

    @cached_property
    def processors(self) -> Mapping[str, str]:
        """The shared processor behind each queue.

        It is a queue itself where steps name it as a whole.
        """
        queues = {each: cpu for each in self.resources if (cpu := shared_cpu(each))}
        return queues | {cpu: cpu for cpu in queues.values() if cpu in self.resources}

    @cached_property
    def places(self) -> frozenset[str]:
        """The host and the boards that have a part in it."""
        return frozenset(chain.from_iterable(step.places for step in self.steps))

    @cached_property
    def computing(self) -> frozenset[str]:
        """The boards, and perhaps the host, that compute."""
        return frozenset(step.actor for step in self.steps if step.activity == "compute")

    @cached_property
    def followers(self) -> tuple[tuple[int, ...], ...]:
        """For each step the steps that wait for it."""
        followers: list[list[int]] = [[] for _ in self.steps]
        for index, step in enumerate(self.steps):
            for earlier in step.after:
                followers[earlier].append(index)
        return tuple(map(tuple, followers))

    @cached_property
    def next_steps(self) -> tuple[int | None, ...]:
        """For each step, the step that can queue before its end, if any.

        That one waits for this step alone, is all that waits for it, and shares its resources
        with no other step.  So it comes to them in the order in which this one ends from image to
        image; that is the order in which this one begins, if it has a resource and no jitter.
        """
        users = Counter(chain.from_iterable(self.held))
        return tuple(self._next_step(index, users) for index in range(len(self.steps)))

    def _next_step(self, index: int, users: Mapping[int, int]) -> int | None:
        step, followers = self.steps[index], self.followers[index]
        if len(followers) != 1 or index == self.sink:
            return None
        follower = self.steps[followers[0]]
        in_order = self.held[index] and not step.transit.jitter_ms
        at_once = follower.after == (index,) and follower.deadline_ms is None
        undisputed = all(users[resource] == 1 for resource in self.held[followers[0]])
        in_queue = any(each in self.processors for each in (*step.resources, *follower.resources))
        return followers[0] if in_order and at_once and undisputed and not in_queue else None

    @cached_property
    def delays(self) -> bool:
        """Whether a message is under way after its resources are free."""
        return any(step.transit.latency_ms or step.transit.jitter_ms for step in self.steps)

    @cached_property
    def waits_for_all(self) -> bool:
        """Whether no step can still be under way when the answer is there."""
        if any(
            step.deadline_ms is not None or step.needed < len(step.after) for step in self.steps
        ):
            return False
        waited = {self.sink}
        for index in range(self.sink, -1, -1):
            if index in waited:
                waited.update(self.steps[index].after)
        return len(waited) == len(self.steps)


def spread_graph(graph: TaskGraph) -> TaskGraph:
    """Task graph whose computing spreads as its boards' devices do, where that is known."""
    cvs = {node.name: spread_cv(node.device) for node in graph.nodes}
    return replace(
        graph,
        steps=tuple(
            replace(step, cv=cvs.get(step.actor, 0.0)) if step.activity == "compute" else step
            for step in graph.steps
        ),
    )


def shared_cpu(resource: str) -> str | None:
    """Processor of which `resource` is a queue, or None."""
    processor, slash, _ = resource.partition(".cpu/")
    return f"{processor}.cpu" if slash else None


def owner_of(resource: str) -> str | None:
    """Board (or host) that `resource` belongs to, or None for a medium."""
    if resource.startswith("medium:"):
        return None
    return (shared_cpu(resource) or resource).rpartition(".")[0]


def _check(index: int, step: Step) -> None:
    for problem in _problems(index, step):
        raise SimulationError(f"step {index} ({step.activity} of {step.actor}): {problem}")


def _problems(index: int, step: Step) -> Iterable[str]:
    if not 0 <= step.duration_ms < math.inf or not 0 <= step.energy_mj < math.inf:
        yield (
            "duration and energy must be finite and at least 0; "
            f"found {step.duration_ms} ms and {step.energy_mj} mJ"
        )
    if not all(0 <= earlier < index for earlier in step.after):
        yield f"may wait only for steps before it; found {step.after}"
    if step.needs is not None and not 1 <= step.needs <= len(step.after):
        yield f"needs must be from 1 to {len(step.after)}; found {step.needs}"
    if step.deadline_ms is not None and not (step.after and 0 <= step.deadline_ms < math.inf):
        yield f"a deadline is for a step that waits, at least 0 ms; found {step.deadline_ms}"
    if len(set(step.resources)) < len(step.resources):
        yield f"resources must differ; found {step.resources}"
    if len(step.resources) > 1 and any(map(shared_cpu, step.resources)):
        yield f"a queue of a processor is all that a step may hold; found {step.resources}"
    if any(owner_of(each) != step.actor for each in step.resources if shared_cpu(each)):
        yield f"a queue of a processor is for its own board; found {step.resources}"
    if any(map(shared_cpu, step.resources)) and (step.transit.latency_ms or step.transit.jitter_ms):
        yield "a step in a queue of a processor carries nothing, so it has no latency and no jitter"
    if step.message is not None and step.message.size_bytes < 0:
        yield f"a message has at least 0 bytes; found {step.message.size_bytes}"


def held_ms(graph: TaskGraph) -> dict[str, float]:
    """Time that one image holds each resource, in ms.

    Queues of one processor are taken together.
    """
    held: defaultdict[str, float] = defaultdict(float)
    for step in graph.steps:
        for resource in step.resources:
            held[graph.processors.get(resource, resource)] += step.duration_ms
    return held


def period_ms(graph: TaskGraph) -> float:
    """Longest time that one image holds any resource, in ms.

    It is the time from image to image once many are under way.
    """
    return max(held_ms(graph).values())
