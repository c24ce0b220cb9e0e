"""The best way to run one network whole, or one of several, stage by stage.

Lexicographic, as a question's objective is: each stage is solved to optimality within what earlier
stages leave, and only the networks that can be as good go on to the next.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import get_args

from nonn_core.family import NetworkSpec
from planner.failures import Failures, chance_up
from planner.instance import host_of
from planner.question import Question
from planner.segments.costs import Aim, CutModel, Parts, SegmentCosts, cut_model
from planner.segments.search import Search
from planner.segments.segmentation import Segmentation, described
from planner.site import Site, sites_of
from planner.stage import Stage
from profiles.device import DeviceProfile
from profiles.units import format_bytes, format_flops

Accuracy = Callable[[int, int, int], float | None]
"""Estimate of accuracy in percent from parameters and MACs, both summed over the students, and the
number of students; None where there is no estimate."""

SLACK = 1e-9
"""Relative difference between two figures that counts as none."""

_AIMS: dict[str, Aim] = {aim: aim for aim in get_args(Aim)}


def segment(
    question: Question,
    networks: Iterable[NetworkSpec],
    *,
    parts: Parts = "any",
    stages: Sequence[Stage] | None = None,
    limits: Mapping[Aim, float] | None = None,
    accuracy: Accuracy | None = None,
) -> Segmentation | None:
    """Return the best way to run one of `networks`, whole, on boards in a row; None if none fits.

    Best by `stages` (the question's objective where None), exactly; a stage that says nothing about
    a single network, or an accuracy that nothing estimates, is passed over, and ties go to the
    least latency.  `limits` bound aims from above, throughput by ms from image to image.  Raises
    UnprovenError where the search is too large, ProfileError for unknown devices.
    """
    candidates = [_Candidate(question, network, parts) for network in networks]
    contest = _Contest(candidates, dict(limits or {}))
    for stage in question.objective if stages is None else stages:
        objective: str = stage.objective
        if objective in _AIMS:
            contest.least(_AIMS[objective], stage.tolerance_pct)
        else:
            contest.most(_worths(contest.left, objective, accuracy), stage.tolerance_pct)
    contest.least("latency", 0.0)
    return contest.best


def _worths(
    candidates: Sequence["_Candidate"], objective: str, accuracy: Accuracy | None
) -> list[float]:
    """Return what an objective finds in each network, however it is cut; nothing: all alike."""
    models = [candidate.costs.model for candidate in candidates]
    if objective == "capacity":
        return [float(model.params) for model in models]
    if objective == "accuracy" and accuracy is not None:
        worths = [accuracy(model.params, model.macs, 1) for model in models]
        known = [worth for worth in worths if worth is not None]
        return known if len(known) == len(worths) else []
    return []


class _Candidate:
    """One network that may be run whole."""

    def __init__(self, question: Question, network: NetworkSpec, parts: Parts) -> None:
        self._question = question
        self._host, self._sites = _places(question)
        model = cut_model(
            network, question.image_shape, question.classes, question.smallest_precision
        )
        self.costs = SegmentCosts(model, self._sites, self._host, parts)
        self._search = Search(self.costs)

    def bound(self, aim: Aim) -> float:
        """Return what no segmentation's `aim` is below."""
        return self._search.bound(aim)

    def best(self, aim: Aim, limits: Mapping[Aim, float]) -> Segmentation | None:
        """Return the best segmentation of this network within limits; None if there is none."""
        route = self._search.optimum(aim, limits)
        if route is None:
            return None
        left = [iter(self._surest(places)) for places in self.costs.kinds]
        boards = [self._sites[next(left[stop.kind])].board for stop in route]
        return described(
            self._question, self.costs.model, boards, [stop.end for stop in route[:-1]]
        )

    def _surest(self, places: Sequence[int]) -> list[int]:
        """Return boards that can do the same, those that are up most often first."""
        failures = self._question.failures or Failures()
        return sorted(places, key=lambda b: -chance_up(failures, self._sites[b].board.name))


class _Contest:
    """Networks that can still win, within limits, and the best segmentation so far."""

    def __init__(self, candidates: Sequence[_Candidate], limits: dict[Aim, float]) -> None:
        self.left = tuple(candidates)
        self.best: Segmentation | None = None
        self._limits = limits

    def least(self, aim: Aim, tolerance_pct: float) -> None:
        """Keep the networks that can be within a tolerance of the least of `aim`."""
        loosely = _loosely(aim, tolerance_pct)
        least = self.best.value(aim) if self.best else inf
        found: list[tuple[float, _Candidate, Segmentation]] = []
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
        """Keep the networks within a tolerance of the most that one is worth which fits at all."""
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


def _loosely(aim: Aim, tolerance_pct: float) -> float:
    """Return what the least of an aim is multiplied with; for throughput, the time per image."""
    if aim == "throughput":
        return (1 + SLACK) / (1 - tolerance_pct / 100) if tolerance_pct < 100 else inf
    return (1 + SLACK) * (1 + tolerance_pct / 100)


def _places(question: Question) -> tuple[DeviceProfile, tuple[Site, ...]]:
    """Return the host, and the boards with their budgets."""
    return host_of(question), sites_of(question)


def why_not(question: Question, network: NetworkSpec, parts: Parts = "any") -> str:
    """Say what keeps a network that `segment` found no place for from fitting."""
    model = cut_model(network, question.image_shape, question.classes, question.smallest_precision)
    _, sites = _places(question)
    if parts == "one":
        whole = [("it", model.memory_bytes(0, len(model.table)), model.macs)]
        reason = _too_much(sites, whole)
    elif parts == "several" and len(sites) == 1:
        reason = "there is one board only"
    else:
        layers = [
            (f"its layer {layer.name}", model.memory_bytes(place, place + 1), layer.macs)
            for place, layer in enumerate(model.table)
        ]
        reason = _too_much(sites, layers) or _too_much_in_all(sites, model)
    return f"{model.name}: {reason or 'no cut of it fits these boards, in whatever order'}"


def _too_much(sites: Sequence[Site], wholes: Sequence[tuple[str, int, int]]) -> str | None:
    """Name the largest of what cannot be cut, (name, bytes, MACs), if no board can hold it."""
    name, size, _ = max(wholes, key=lambda each: each[1])
    memory = max(_memory(sites))
    if size > memory:
        return f"{name} needs {format_bytes(size)}, the largest board has {format_bytes(memory)}"
    name, _, macs = max(wholes, key=lambda each: each[2])
    most = max(_macs(sites))
    if macs > most:
        return f"{name} needs {format_flops(macs)}, the largest budget is {format_flops(most)}"
    return None


def _too_much_in_all(sites: Sequence[Site], model: CutModel) -> str | None:
    """Say so if all boards together have too little for the model."""
    memory, macs = sum(_memory(sites)), sum(_macs(sites))
    weights = model.value_bytes * model.params
    if weights > memory:
        return (
            f"its weights need {format_bytes(weights)}, "
            f"all boards together have {format_bytes(memory)}"
        )
    if model.macs > macs:
        return f"it needs {format_flops(model.macs)}, all budgets are {format_flops(macs)}"
    return None


def _memory(sites: Iterable[Site]) -> list[float]:
    """Return the bytes that each board may hold."""
    return [inf if site.memory_bytes is None else site.memory_bytes for site in sites]


def _macs(sites: Iterable[Site]) -> list[float]:
    """Return the MACs that each board may do."""
    return [inf if site.macs is None else site.macs for site in sites]
