"""Choice of operating points: a place for each point that a board may run at.

Solvers see a board at each of its points as a board of its own, a *place*; its *site* is the board
in the fleet, and of the places of a site one at most works.  Alike sites are counted: at most so
many of all their places work, whichever these are, and `settle` names the boards afterwards.

A point that another one of its site replaces without a loss is left out: no slower in anything, no
closer to a power limit, and, where a question counts energy, with no more energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from planner.data.modes import AssignedStudent, Assignment
from planner.problem.problem import Problem
from profiles.device import DeviceProfile
from profiles.fleet import Board
from profiles.operating_point import most_macs_within, replaces


@dataclass(frozen=True, slots=True)
class BoardPlace:
    """A board at one operating point; `site` is its place in the fleet."""

    site: int
    board: Board


@lru_cache(maxsize=64)
def places(problem: Problem) -> tuple[BoardPlace, ...]:
    """Places of a problem: each board at each point that a plan may need."""
    found: list[BoardPlace] = []
    for site, points in enumerate(problem.points):
        kept = _worthwhile(problem, site, points)
        for one in kept:
            name = one.name if len(kept) == 1 else f"{one.name} as {one.device.name}"
            found.append(BoardPlace(site, replace(one, name=name)))
    return tuple(found)


def _worthwhile(problem: Problem, site: int, points: Sequence[Board]) -> tuple[Board, ...]:
    """Points that no other one replaces, those before it first; one at least."""
    if len(points) == 1:
        return tuple(points)
    budget = problem.budgets[site]
    counts_energy = problem.counts_energy(site)
    counts_power = "fleet-power" in problem.goals
    needs_power = counts_energy or budget.power_w is not None
    known = [one for one in points if one.device.power_known or not needs_power]

    def gone(one: Board, other: Board) -> bool:
        mine, theirs = one.device, other.device
        power_w = budget.power_w
        roomy = power_w is None or _room(theirs, power_w) >= _room(mine, power_w)
        return roomy and replaces(
            theirs, mine, counts_energy=counts_energy, counts_power=counts_power
        )

    kept: list[Board] = []
    for one in known:
        if not any(gone(one, other) for other in kept):
            kept = [other for other in kept if not gone(other, one)] + [one]
    return tuple(one for one in points if one in kept)


def _room(device: DeviceProfile, power_w: float) -> float:
    most = most_macs_within(device, power_w)
    return float("inf") if most is None else most


def settle(problem: Problem, found: Assignment) -> tuple[Problem, Assignment]:
    """The problem at an assignment's operating points, and this one by its boards.

    Places of alike sites are dealt out to these: a place that works goes to its own site if that is
    free.  A board that does not work keeps the point that its fleet names.
    """
    known = places(problem)
    if all(row.points == "named" for row in problem.fleet.boards):
        return problem, found
    used = sorted(
        {b for student in found.students for b in student.boards}
        | ({found.stem.board} if found.stem else set())
    )
    site_of = _dealt_out(problem, used)
    rows = list(problem.fleet.boards)
    for place, site in site_of.items():
        rows[site] = rows[site].model_copy(update={"device": known[place].board.device.name})
    fleet = problem.fleet.model_copy(update={"boards": tuple(rows)})
    return problem.model_copy(update={"fleet": fleet}), Assignment(
        students=tuple(_moved(one, site_of) for one in found.students),
        dropped=found.dropped,
        send_order=tuple(site_of[b] for b in found.send_order),
        stem=None if found.stem is None else replace(found.stem, board=site_of[found.stem.board]),
    )


def _moved(student: AssignedStudent, site_of: dict[int, int]) -> AssignedStudent:
    return replace(
        student, board=site_of[student.board], copies=tuple(site_of[b] for b in student.copies)
    )


def _dealt_out(problem: Problem, used: Sequence[int]) -> dict[int, int]:
    """Site of each place that works."""
    known = places(problem)
    site_of: dict[int, int] = {}
    for place in used:
        if known[place].site not in site_of.values():
            site_of[place] = known[place].site
    for place in used:
        if place not in site_of:
            own = _site_key(problem, known[place].site)
            site_of[place] = next(
                site
                for site in range(len(problem.fleet.boards))
                if site not in site_of.values() and _site_key(problem, site) == own
            )
    return site_of


def _site_key(problem: Problem, site: int) -> tuple[object, ...]:
    """Key of alike sites: points, link, budgets, and what takes them down."""
    name, failures = problem.fleet.boards[site].name, problem.failures
    points = tuple(
        (one.board.device, one.board.link) for one in places(problem) if one.site == site
    )
    budget = problem.budgets[site].model_copy(update={"board": "one"})
    if failures is None:
        return points, budget
    alone = next((one.probability for one in failures.boards if one.board == name), 0.0)
    taking = tuple(name in one.boards for one in failures.outages)
    return points, budget, alone, taking


def at_quickest_points(problem: Problem) -> Problem:
    """The problem with one point for each board: the quickest that may compute most MACs."""
    if all(row.points == "named" for row in problem.fleet.boards):
        return problem
    rows = []
    for site, row in enumerate(problem.fleet.boards):
        power_w = problem.budgets[site].power_w
        here = [one.board.device for one in places(problem) if one.site == site]
        best = here[0] if power_w is None else max(here, key=lambda one: _room(one, power_w))
        rows.append(row.model_copy(update={"device": best.name, "points": "named"}))
    fleet = problem.fleet.model_copy(update={"boards": tuple(rows)})
    return problem.model_copy(update={"fleet": fleet})


def highest_power_w(problem: Problem, boards: Sequence[int]) -> float:
    """Power, in W, with which these boards may run anything."""
    devices = [one.device for board in boards for one in problem.points[board]]
    told = [(one.power_busy_w, one.power_fixed_w) for one in devices if one.power_known]
    return max(power.value for pair in told for power in pair if power is not None)
