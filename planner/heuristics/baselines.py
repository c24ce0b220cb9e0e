"""Baselines that the planner is compared with: plans without a solver."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from nonn_common.errors import InputError, UnprovenError
from planner.data.modes import Assignment, Mode
from planner.data.point_choice import at_quickest_points
from planner.data.problem_data import ProblemData, kept_communities, resolve_problem
from planner.heuristics.partial_placement import CommunityMerge, PartialPlacement, best_by_rule
from planner.plan_file.evaluation import unproven_plan
from planner.plan_file.plan_document import PlanDocument
from planner.plan_file.validation import best_assignment, require_valid
from planner.problem.problem import Problem


def greedy(problem: Problem) -> Assignment | None:
    """Give each board one student, all in the best mode that fits everywhere.

    The NoNN paper (arXiv:1907.11804, section 4.2) has as many students as boards and drops the
    largest P0; where budgets or
    communities forbid that, one student less is tried.  A's boards are alike and assigned by hand;
    here the largest partition goes to the board that would be done with it first, and so on.
    """
    data = resolve_problem(problem)
    return best_by_rule(problem, data, _one_per_board, len(data.capacities))


def _one_per_board(
    data: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    placement, mode = PartialPlacement.empty(data), menu[0]
    for share in merge.shares:
        taken = {board for student in placement.placed for board in student.boards}
        boards = [b for b in placement.boards_for(mode, share) if b not in taken]
        if not boards:
            return None
        fastest = min(boards, key=lambda board: placement.alone_ms(board, mode, share))
        placement = placement.plus(fastest, mode, share)
    return placement


def longest_processing_time(problem: Problem) -> Assignment | None:
    """Place students, longest first, each on the board that is done first.

    The end counts the turns of the host's sends, students that share the board, and the reply.
    Each student has the best network for which a board has room.  The partitions are those of
    the greedy merge, as many as the problem allows.
    """
    data = resolve_problem(problem)
    return best_by_rule(problem, data, _earliest_end, data.slots)


def _earliest_end(
    data: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    placement = PartialPlacement.empty(data)
    for share in merge.shares:
        extended = _placed(placement, share, menu)
        if extended is None:
            return None
        placement = extended
    return placement


def _placed(
    placement: PartialPlacement, share: tuple[int, ...], menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    """Return the draft with this share too, in the first network that some board takes."""
    for mode in menu:
        boards = placement.boards_for(mode, share)
        if boards:
            extended = [(board, placement.plus(board, mode, share)) for board in boards]
            return min(extended, key=lambda one: one[1].done_ms(one[0]))[1]
    return None


def proportional_to_ram(problem: Problem) -> Assignment | None:
    """Give each board one student, with filters in proportion to the board's memory budget.

    With fewer students than boards, the boards of most memory have them.
    """
    memory_bytes = [budget.size_bytes for budget in problem.budgets]

    def rule(
        data: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
    ) -> PartialPlacement | None:
        return _by_memory(data, merge, menu, memory_bytes)

    data = resolve_problem(problem)
    return best_by_rule(problem, data, rule, len(data.capacities))


def _by_memory(
    data: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...], memory_bytes: list[int]
) -> PartialPlacement | None:
    order = sorted(range(len(memory_bytes)), key=lambda board: -memory_bytes[board])
    boards = order[: len(merge.shares)]
    shares = _shares_by_memory(data, merge, [memory_bytes[board] for board in boards])
    placement = PartialPlacement.empty(data)
    for board, share in zip(boards, shares, strict=True):
        mode = next((each for each in menu if board in placement.boards_for(each, share)), None)
        if mode is None:
            return None
        placement = placement.plus(board, mode, share)
    return placement


def _shares_by_memory(
    data: ProblemData, merge: CommunityMerge, weights: list[int]
) -> list[list[int]]:
    """Spread the communities that are kept, largest first, each to the board that lacks most.

    What a board lacks is its weight's part of all filters, less what it has.  The last
    communities go to boards that have none yet.
    """
    kept = [community for share in merge.shares for community in share]
    kept.sort(key=lambda community: (-data.sizes[community], community))
    filters = sum(data.sizes[community] for community in kept)
    lacking = [filters * weight / sum(weights) for weight in weights]
    shares: list[list[int]] = [[] for _ in weights]
    for place, community in enumerate(kept):
        empty = [board for board, share in enumerate(shares) if not share]
        boards = empty if len(empty) == len(kept) - place else range(len(shares))
        neediest = max(boards, key=lambda board: lacking[board])
        shares[neediest].append(community)
        lacking[neediest] -= data.sizes[community]
    return shares


SAMPLES = 1000
"""Plans drawn, unless asked otherwise."""


def random_search(problem: Problem, samples: int = SAMPLES) -> Assignment | None:
    """Draw `samples` plans with the problem's seed, and return the best by its objective.

    What is dropped, the number of students and the G0 are drawn first, then the communities of
    each student, then, student by student, a network and a board among those that still have
    room.  A draw that leaves a student without room is lost.
    """
    data = resolve_problem(problem)
    draw = np.random.default_rng(problem.seed)
    drawn = (_random_plan(data, draw) for _ in range(samples))
    found = list(dict.fromkeys(plan for plan in drawn if plan is not None))
    return best_assignment(problem, found)


def _random_plan(data: ProblemData, draw: np.random.Generator) -> Assignment | None:
    if data.slots < data.min_students:
        return None
    students = int(draw.integers(data.min_students, data.slots, endpoint=True))
    drops = [d for d in data.drop_choices if len(kept_communities(data, d)) >= students]
    drop = drops[draw.integers(len(drops))]
    shapes = sorted({mode.group0 for mode in data.modes})
    shape = shapes[draw.integers(len(shapes))]
    placement = PartialPlacement.empty(data)
    for share in _random_shares(kept_communities(data, drop), students, draw):
        room = [
            (board, mode)
            for mode in data.modes
            if mode.group0 == shape
            for board in placement.boards_for(mode, share)
        ]
        if not room:
            return None
        board, mode = room[draw.integers(len(room))]
        placement = placement.plus(board, mode, share)
    return placement.assignment(tuple(drop.communities))


def _random_shares(
    communities: Sequence[int], students: int, draw: np.random.Generator
) -> list[list[int]]:
    """Give each student one community, and each of the others to any student."""
    shuffled = draw.permutation(communities).tolist()
    shares = [[community] for community in shuffled[:students]]
    for community in shuffled[students:]:
        shares[draw.integers(students)].append(community)
    return shares


BoardGroup = tuple[int, ...]
"""Places of boards, the fastest first."""


def rocoin_style(problem: Problem) -> Assignment | None:
    """Group boards of like capability, one student per group, and match students to groups.

    Boards without room for the smallest network are left out.  A group runs the largest network
    that each of its boards has room for.  Of all matchings, that one is taken where the slowest
    boards' times sum to the least.  A student is on its group's fastest board and, where the
    question allows copies, on as many further ones.
    """
    data = resolve_problem(problem)
    return best_by_rule(problem, data, _matched_to_groups, len(data.capacities))


def _matched_to_groups(
    data: ProblemData, merge: CommunityMerge, menu: tuple[Mode, ...]
) -> PartialPlacement | None:
    from scipy.optimize import linear_sum_assignment  # takes longer to load than a plan to find

    empty = PartialPlacement.empty(data)
    # Merges have the largest share first, menus the smallest network last: who has room for that
    # pair has room for any share.
    boards = empty.boards_for(menu[-1], merge.shares[0])
    if len(boards) < len(merge.shares):
        return None
    groups = _groups(empty, boards, merge, menu[-1])
    choices = [[_network(empty, group, share, menu) for group in groups] for share in merge.shares]
    times_ms = [
        [empty.alone_ms(group[-1], mode, share) for group, mode in zip(groups, row, strict=True)]
        for share, row in zip(merge.shares, choices, strict=True)
    ]
    placement = empty
    for s, g in zip(*linear_sum_assignment(np.array(times_ms)), strict=True):
        first, *others = groups[g][: data.max_copies]
        placement = placement.plus(first, choices[s][g], merge.shares[s], others)
    return placement


def _groups(
    empty: PartialPlacement, boards: tuple[int, ...], merge: CommunityMerge, mode: Mode
) -> tuple[BoardGroup, ...]:
    """Cut the boards, sorted by time, into as many groups as students.

    The cuts are where the times differ most, as ratios: 2 ms and 4 ms are as unlike as 20 ms and
    40 ms.
    """
    times_ms = {board: empty.alone_ms(board, mode, merge.shares[0]) for board in boards}
    order = sorted(boards, key=lambda board: times_ms[board])
    ratios = [times_ms[later] / times_ms[one] for one, later in pairwise(order)]
    widest = sorted(range(len(ratios)), key=lambda place: -ratios[place])
    cuts = sorted(place + 1 for place in widest[: len(merge.shares) - 1])
    return tuple(tuple(order[start:end]) for start, end in pairwise([0, *cuts, len(order)]))


def _network(
    empty: PartialPlacement, group: BoardGroup, share: tuple[int, ...], menu: tuple[Mode, ...]
) -> Mode:
    """Largest mode that every board of the group has room for.

    The last one of the menu fits.
    """
    fitting = (each for each in menu if set(group) <= set(empty.boards_for(each, share)))
    return next(fitting, menu[-1])


def with_open_points(plan: PlanDocument, problem: Problem) -> PlanDocument:
    """The plan as the answer to a problem whose boards' operating points are open."""
    asked, run = problem.fleet.boards, plan.question.fleet.boards
    rows = tuple(
        row.model_copy(update={"points": one.points}) for row, one in zip(run, asked, strict=True)
    )
    fleet = plan.question.fleet.model_copy(update={"boards": rows})
    question = plan.question.model_copy(update={"fleet": fleet})
    return plan.model_copy(update={"question": question})


Baseline = Callable[[Problem], Assignment | None]
"""Answers a question; None where it finds nothing within the budgets, which proves nothing."""

BASELINES: dict[str, Baseline] = {
    "greedy": greedy,
    "lpt": longest_processing_time,
    "rocoin-style": rocoin_style,
    "ram": proportional_to_ram,
    "random": random_search,
}


def find_baseline(name: str) -> Baseline:
    """Return the baseline of this name; raises InputError."""
    if name not in BASELINES:
        raise InputError("no such baseline", found=name, allowed=", ".join(BASELINES))
    return BASELINES[name]


def solve_by_baseline(problem: Problem, method: str) -> PlanDocument:
    """Answer a problem by a baseline.

    Boards run at the quickest operating points that their power limits allow.  Raises InputError
    for an unknown method and for a G0 that is to be alone, UnprovenError where it
    finds nothing within the budgets and requirements, which proves nothing.
    """
    rule = find_baseline(method)
    if problem.group0 == "own-board":
        raise InputError(
            "baselines put a copy of G0 on each board with a student",
            where=f"--method {method}",
            found="--group0 own-board",
            allowed="--group0 replicated or either",
        )
    fixed = at_quickest_points(problem)
    found = rule(fixed)
    if found is None:
        raise UnprovenError(
            f"{method} found no plan within the budgets; that does not prove that there is none: "
            "plan without --method"
        )
    plan = with_open_points(unproven_plan(fixed, found, method), problem)
    require_valid(plan, where=f"--method {method}")
    return plan
