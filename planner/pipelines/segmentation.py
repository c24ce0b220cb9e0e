"""Segmentations: one whole network cut by layers over boards, and the best of them.

The other way to run a model that no board can hold, beside a NoNN of students; with a smaller
network it is both, as in JointCS (Li et al. 2021, ICPADS).  What it costs is what the simulator's
pipeline (`simulator.pipeline.job`) says, so that a simulation gives the same milliseconds.

The choice is lexicographic, as a problem's objective is: each level is solved to optimality within
what earlier levels leave, and only the networks that can be as good go on to the next.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from math import inf
from typing import get_args

from pydantic import Field

from nonn_common.document import Record
from nonn_common.units import format_bytes, format_flops
from nonn_core.networks.blueprint import NetworkSpec
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Cost, Precision, teacher_cost
from planner.data.board_capacity import BoardCapacity
from planner.data.problem_data import board_capacities, host_device
from planner.pipelines.label_search import CutSearch
from planner.pipelines.segment_costs import (
    CutModel,
    CutObjective,
    PartCount,
    SegmentCosts,
    cut_model,
)
from planner.problem.budgets import Resource
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from planner.reliability.failures import Failures
from planner.reliability.robustness import up_probability
from profiles.device import DeviceProfile
from profiles.fleet import Board
from simulator.task_graph import period_ms
from simulator.workloads import pipeline
from simulator.workloads.layer_parts import alive_bytes


class SegmentPart(Record):
    """Layers in a row on one board."""

    board: str = Field(min_length=1, description="Name of the board.")
    first_layer: str = Field(description="Name of its first layer.")
    last_layer: str = Field(description="Name of its last layer.")
    layers: int = Field(gt=0, description="How many layers it has.")
    params: int = Field(ge=0, description="Parameters.")
    macs: int = Field(ge=0, description="Multiply-accumulates per image.")
    memory_bytes: int = Field(ge=0, description="Bytes of parameters and peak activations.")
    sent_bytes: int = Field(
        ge=0, description="Bytes it sends on: all that is alive behind it, or the output; fp32."
    )
    compute_ms: float = Field(ge=0, description="Time that the board computes, per image.")
    energy_mj: float | None = Field(
        ge=0, description="Energy of that computing, per image; null where no power is known."
    )


class Segmentation(Record):
    """A network cut by layers, and what one image costs by the simulator, without noise."""

    network: str = Field(description="Name of the whole network.")
    precision: Precision = Field(description="Storage of weights and activations on the boards.")
    parts: tuple[SegmentPart, ...] = Field(
        min_length=1, description="Parts in the order of the layers, each on a board of its own."
    )
    total_ms: float = Field(ge=0, description="Latency of one image.")
    compute_ms: float = Field(ge=0, description="Busy time of the board that computes longest.")
    communication_ms: float = Field(description="Total minus compute, other boards' work included.")
    energy_fleet_mj: float | None = Field(
        ge=0,
        description="Computing energy of all boards together; null where a board's power is not "
        "known.",
    )
    energy_highest_mj: float | None = Field(
        ge=0, description="Energy of the board that spends most; null likewise."
    )
    throughput_per_s: float = Field(gt=0, description="Images per second, many being under way.")

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards in the order in which the image passes them."""
        return tuple(part.board for part in self.parts)

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return sum(part.params for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return sum(part.macs for part in self.parts)

    @property
    def memory_highest_bytes(self) -> int:
        """Bytes on the board that needs most."""
        return max(part.memory_bytes for part in self.parts)

    def value(self, aim: CutObjective) -> float:
        """Value that an aim minimises; for throughput, ms from image to image."""
        values: dict[CutObjective, float] = {
            "latency": self.total_ms,
            "energy": self.energy_fleet_mj or 0.0,
            "energy-node": self.energy_highest_mj or 0.0,
            "throughput": 1000.0 / self.throughput_per_s,
            "boards": float(len(self.parts)),
        }
        return values[aim]


def describe_segmentation(
    problem: Problem, model: CutModel, boards: Sequence[Board], cuts: Sequence[int]
) -> Segmentation:
    """Describe a model cut behind `cuts` layers over `boards`, one more than cuts."""
    graph = pipeline.pipeline_graph(model.table, boards, host_device(problem), cuts)
    computing = [step for step in graph.steps if step.activity == "compute"]
    total_ms = pipeline.pipeline_latency_ms(graph)
    compute_ms = max(step.duration_ms for step in computing)
    bounds = pairwise((0, *cuts, len(model.table)))
    known = all(board.device.power_known for board in boards)
    return Segmentation(
        network=model.name,
        precision=problem.smallest_precision,
        parts=tuple(
            SegmentPart(
                board=board.name,
                first_layer=model.table[start].name,
                last_layer=model.table[end - 1].name,
                layers=end - start,
                params=sum(layer.weights for layer in model.table[start:end]),
                macs=sum(layer.macs for layer in model.table[start:end]),
                memory_bytes=model.memory_bytes(start, end),
                sent_bytes=alive_bytes(model.table, end),
                compute_ms=step.duration_ms,
                energy_mj=step.energy_mj if board.device.power_known else None,
            )
            for board, (start, end), step in zip(boards, bounds, computing, strict=True)
        ),
        total_ms=total_ms,
        compute_ms=compute_ms,
        communication_ms=total_ms - compute_ms,
        energy_fleet_mj=sum(step.energy_mj for step in computing) if known else None,
        energy_highest_mj=max(step.energy_mj for step in computing) if known else None,
        throughput_per_s=1000.0 / period_ms(graph),
    )


def recompute_segmentation(problem: Problem, segmentation: Segmentation) -> Segmentation:
    """Describe the same cut on the same boards anew, from the problem alone."""
    boards = {board.name: board for board in problem.pipeline_boards}
    network = parse_network(segmentation.network)
    model = cut_model(network, problem.image_shape, problem.classes, segmentation.precision)
    cuts = tuple(accumulate(part.layers for part in segmentation.parts))[:-1]
    return describe_segmentation(problem, model, [boards[b] for b in segmentation.boards], cuts)


AccuracyEstimator = Callable[[int, int, int], float | None]
"""Estimate of accuracy in percent from parameters and MACs, both summed over the students, and the
number of students; None where there is no estimate."""

SLACK = 1e-9
"""Relative difference between two figures that counts as none."""

_CUT_OBJECTIVES: dict[str, CutObjective] = {aim: aim for aim in get_args(CutObjective)}


def best_segmentation(
    problem: Problem,
    networks: Iterable[NetworkSpec],
    *,
    parts: PartCount = "any",
    stages: Sequence[ObjectiveLevel] | None = None,
    limits: Mapping[CutObjective, float] | None = None,
    accuracy: AccuracyEstimator | None = None,
) -> Segmentation | None:
    """Best way to run one of `networks` whole, on boards in a row, if any.

    Best by `levels` (the problem's objective where None), exactly; a level that says nothing about
    a single network, or an accuracy that nothing estimates, is passed over, and ties go to the
    least latency.  `limits` bound aims from above, throughput by ms from image to image.  Raises
    UnprovenError where the search is too large, ProfileError for unknown devices.
    """
    site = _host_and_boards(problem)
    candidates = [_NetworkCandidate(problem, network, parts, *site) for network in networks]
    contest = _NetworkContest(candidates, dict(limits or {}))
    for level in problem.objective if stages is None else stages:
        objective: str = level.objective
        if objective in _CUT_OBJECTIVES:
            contest.least(_CUT_OBJECTIVES[objective], level.tolerance_pct)
        else:
            contest.most(_network_values(contest.left, objective, accuracy), level.tolerance_pct)
    contest.least("latency", 0.0)
    return contest.best


def _network_values(
    candidates: Sequence["_NetworkCandidate"], objective: str, accuracy: AccuracyEstimator | None
) -> list[float]:
    """Value of an objective for each network, however cut; nothing: all alike."""
    costs = [candidate.cost for candidate in candidates]
    if objective == "capacity":
        return [float(cost.params) for cost in costs]
    if objective == "accuracy" and accuracy is not None:
        worths = [accuracy(cost.params, cost.macs, 1) for cost in costs]
        known = [worth for worth in worths if worth is not None]
        return known if len(known) == len(worths) else []
    return []


class _NetworkCandidate:
    """One network that may be run whole, its layers laid out when it is searched."""

    def __init__(
        self,
        problem: Problem,
        network: NetworkSpec,
        parts: PartCount,
        host: DeviceProfile,
        sites: Sequence[BoardCapacity],
    ) -> None:
        self._question, self._network, self._parts = problem, network, parts
        self._host, self._sites = host, sites
        self._found: dict[object, tuple[float, Segmentation | None]] = {}

    @property
    def cost(self) -> Cost:
        """Cost of the whole network."""
        return teacher_cost(self._network, self._question.image_shape, self._question.classes)

    @cached_property
    def costs(self) -> SegmentCosts:
        """Costs of its parts on the boards."""
        asked = self._question
        precision = asked.smallest_precision
        model = cut_model(self._network, asked.image_shape, asked.classes, precision)
        return SegmentCosts(model, self._sites, self._host, self._parts)

    @cached_property
    def _search(self) -> CutSearch:
        return CutSearch(self.costs)

    def bound(self, aim: CutObjective) -> float:
        """Lower bound of `aim` over all segmentations."""
        return self._search.bound(aim)

    def best(self, aim: CutObjective, limits: Mapping[CutObjective, float]) -> Segmentation | None:
        """Best segmentation within limits, or None; a looser limit's answer is used again."""
        others = {name: limit for name, limit in limits.items() if name != aim}
        key, limit = (aim, *sorted(others.items())), limits.get(aim, inf)
        looser, known = self._found.get(key, (-inf, None))
        if limit <= looser and (known is None or known.value(aim) <= limit):
            return known
        found = self._sought(aim, limits)
        self._found[key] = limit, found
        return found

    def _sought(
        self, aim: CutObjective, limits: Mapping[CutObjective, float]
    ) -> Segmentation | None:
        route = self._search.optimum(aim, limits)
        if route is None:
            return None
        left = [iter(self._surest(places)) for places in self.costs.board_classes]
        boards = [self._sites[next(left[stop.kind])].board for stop in route]
        return describe_segmentation(
            self._question, self.costs.model, boards, [stop.end for stop in route[:-1]]
        )

    def _surest(self, places: Sequence[int]) -> list[int]:
        """Return boards that can do the same, those that are up most often first."""
        failures = self._question.failures or Failures()
        return sorted(places, key=lambda b: -up_probability(failures, self._sites[b].board.name))


class _NetworkContest:
    """Networks that can still win, within limits, and the best segmentation so far."""

    def __init__(
        self, candidates: Sequence[_NetworkCandidate], limits: dict[CutObjective, float]
    ) -> None:
        self.left = tuple(candidates)
        self.best: Segmentation | None = None
        self._limits = limits

    def least(self, aim: CutObjective, tolerance_pct: float) -> None:
        """Keep the networks that can be within a tolerance of the least of `aim`."""
        loosely = _loose_factor(aim, tolerance_pct)
        least = self.best.value(aim) if self.best else inf
        found: list[tuple[float, _NetworkCandidate, Segmentation]] = []
        bounds = {candidate: candidate.bound(aim) for candidate in self.left}
        for candidate in sorted(self.left, key=lambda each: bounds[each]):
            limit = min(self._limits.get(aim, inf), least * loosely)
            if bounds[candidate] > limit:
                break
            segmentation = candidate.best(aim, self._limits | {aim: limit})
            if segmentation is not None:
                found.append((segmentation.value(aim), candidate, segmentation))
                least = min(least, segmentation.value(aim))
        self._limits[aim] = min(self._limits.get(aim, inf), least * loosely)
        within = [each for each in found if each[0] <= self._limits[aim]]
        self.left = tuple(candidate for _, candidate, _ in within)
        self.best = min(within, key=lambda each: each[0])[2] if within else None

    def most(self, worths: Sequence[float], tolerance_pct: float) -> None:
        """Keep networks within a tolerance of the best value of those that fit."""
        if not worths:
            return
        ranked = sorted(zip(worths, self.left, strict=True), key=lambda each: -each[0])
        for rank, (most, candidate) in enumerate(ranked):
            self.best = candidate.best("latency", self._limits)
            if self.best is not None:
                least = most - abs(most) * tolerance_pct / 100
                self.left = tuple(each for worth, each in ranked[rank:] if worth >= least)
                return
        self.left = ()


def _loose_factor(aim: CutObjective, tolerance_pct: float) -> float:
    """Factor of an aim's least value; for throughput, of the time per image."""
    if aim == "throughput":
        return (1 + SLACK) / (1 - tolerance_pct / 100) if tolerance_pct < 100 else inf
    return (1 + SLACK) * (1 + tolerance_pct / 100)


def _host_and_boards(problem: Problem) -> tuple[DeviceProfile, tuple[BoardCapacity, ...]]:
    """Return the host, and the boards with their budgets."""
    return host_device(problem), board_capacities(problem, problem.pipeline_boards)


def infeasibility_reason(problem: Problem, network: NetworkSpec, parts: PartCount = "any") -> str:
    """Say what keeps a network that `segment` found no place for from fitting."""
    model = cut_model(network, problem.image_shape, problem.classes, problem.smallest_precision)
    _, capacities = _host_and_boards(problem)
    if parts == "one":
        reason = _too_much(capacities, [("it", model.uses(0, len(model.table)))])
    elif parts == "several" and len(capacities) == 1:
        reason = "there is one board only"
    else:
        layers = [
            (f"its layer {layer.name}", model.uses(place, place + 1))
            for place, layer in enumerate(model.table)
        ]
        reason = _too_much(capacities, layers) or _too_much_in_all(capacities, model)
    return f"{model.name}: {reason or 'no cut of it fits these boards, in whatever order'}"


_NOUNS: dict[Resource, tuple[str, str]] = {
    "memory_bytes": ("", "the largest board has"),
    "flash_bytes": (" of flash", "the largest board has"),
    "ram_bytes": (" of RAM", "the largest board has"),
    "macs": ("", "the largest budget is"),
}
"""Resources that a part may need too much of, and how it is said."""


def _too_much(
    capacities: Sequence[BoardCapacity], parts: Sequence[tuple[str, dict[Resource, int]]]
) -> str | None:
    """Name the largest part that no board can hold, and its need."""
    for resource, (noun, has) in _NOUNS.items():
        name, uses = max(parts, key=lambda each: each[1][resource])
        need, most = uses[resource], max(_limits(capacities, resource))
        if need > most:
            text = format_flops if resource == "macs" else format_bytes
            return f"{name} needs {text(need)}{noun}, {has} {text(int(most))}"
    return None


def _too_much_in_all(capacities: Sequence[BoardCapacity], model: CutModel) -> str | None:
    """Say so if all boards together have too little for the model."""
    weights = model.value_bytes * model.params
    limits = (_limits(capacities, name) for name in ("memory_bytes", "flash_bytes"))
    size = sum(map(min, *limits))
    if weights > size:
        return (
            f"its weights need {format_bytes(weights)}, "
            f"all boards together have {format_bytes(int(size))}"
        )
    macs = sum(_limits(capacities, "macs"))
    if model.macs > macs:
        return f"it needs {format_flops(model.macs)}, all budgets are {format_flops(int(macs))}"
    return None


def _limits(capacities: Iterable[BoardCapacity], resource: Resource) -> list[float]:
    """Limit of each board; infinite where there is none."""
    limits = (getattr(capacity, resource) for capacity in capacities)
    return [inf if limit is None else limit for limit in limits]
