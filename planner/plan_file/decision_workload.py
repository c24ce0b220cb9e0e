"""A decision's exact cost, and its workload: models on boards, with their times."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import isclose

from nonn_core.networks.blueprint import Filters, ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import (
    Precision,
    StudentOutline,
    group0_cost,
    group0_table,
    joint_cost,
    student_cost_line,
)
from nonn_core.partition import reshuffle_filters
from planner.accuracy import AccuracyEstimate
from planner.data.balance import PartitionBalance
from planner.data.mode_costs import copied_group
from planner.data.modes import AssignedStudent, Stem, round_down
from planner.data.problem_data import host_device
from planner.plan_file.plan_document import (
    BoardTime,
    BudgetRow,
    Decision,
    JointModel,
    PlannedGroup0,
    PlannedStudent,
)
from planner.problem.budgets import BudgetName
from planner.problem.duty import Duty
from planner.problem.least_spread import (
    PCT_UNITS,
    least_spread,
    most_inversion,
    most_spread,
    uneven_units,
)
from planner.problem.problem import Problem
from planner.reliability.failures import answered_estimate
from profiles.device import DeviceProfile, PredictedTime, TimingMethod, known_time, slowdown
from profiles.fleet import Board
from profiles.layer import BYTES_PER_VALUE
from profiles.operating_point import computing_w
from simulator.workloads.fan_out import (
    CopiedGroup,
    FanOut,
    SharedGroup,
    StudentWork,
    busy_mj,
    busy_ms,
    model_works,
)
from simulator.workloads.layer_parts import Work, time_line


def evaluate_decision(
    problem: Problem,
    students: Mapping[str, AssignedStudent],
    dropped: Sequence[int],
    stem: tuple[str, Precision] | None = None,
) -> Decision:
    """The decision with its exact cost; `dropped` are communities, P0.

    `students` are by name; `stem` is the board and the precision of G0 where it is alone.
    """
    boards = [board.name for board in problem.fleet.boards]
    planned = []
    for name, one in students.items():
        filters = student_filters(problem, one.communities, one.round, dropped)
        spec = parse_network(one.network)
        line = student_cost_line(spec, problem.image_shape, own_group0=stem is None)
        cost = line.at(len(filters))
        planned.append(
            PlannedStudent(
                name=name,
                network=one.network,
                precision=one.precision,
                board=boards[one.board],
                replicas=tuple(boards[place] for place in one.copies),
                communities=tuple(sorted(one.communities)),
                round=one.round,
                filters=filters,
                params=cost.params,
                macs=cost.macs,
                peak_elements=cost.peak_elements,
                memory_bytes=cost.memory_bytes(one.precision),
            )
        )
    group0 = _planned_group0(problem, planned[0].network, *stem) if stem else None
    copied = None if stem else problem.copied_group0(planned[0].network)
    joint = tuple(_joint_models(problem, planned)) if copied else ()
    return Decision(tuple(planned), tuple(dropped), group0, copied, joint)


def _joint_models(problem: Problem, students: Sequence[PlannedStudent]) -> Iterator[JointModel]:
    """Models of several students, in the order of boards and of their first students."""
    for board in problem.fleet.boards:
        models: dict[Precision, list[PlannedStudent]] = defaultdict(list)
        for one in students:
            if board.name in one.boards:
                models[one.precision].append(one)
        for precision, joined in models.items():
            if len(joined) > 1:
                cost = joint_cost(
                    [
                        (
                            student_cost_line(parse_network(one.network), problem.image_shape),
                            len(one.filters),
                        )
                        for one in joined
                    ]
                )
                yield JointModel(
                    board=board.name,
                    precision=precision,
                    students=tuple(one.name for one in joined),
                    params=cost.params,
                    macs=cost.macs,
                    peak_elements=cost.peak_elements,
                    memory_bytes=cost.memory_bytes(precision),
                )


def _planned_group0(
    problem: Problem, network: str, board: str, precision: Precision
) -> PlannedGroup0:
    spec, image = parse_network(network), problem.image_shape
    cost = group0_cost(spec, image)
    return PlannedGroup0(
        board=board,
        precision=precision,
        params=cost.params,
        macs=cost.macs,
        peak_elements=cost.peak_elements,
        memory_bytes=cost.memory_bytes(precision),
        maps_bytes=Stem.of(spec, image).maps_bytes,
    )


def student_filters(
    problem: Problem, communities: Sequence[int], number: int, dropped: Sequence[int]
) -> Filters:
    """Filters of a student: its communities', or reshuffled in extra rounds.

    Each round from the second on shuffles the filters of all kept communities with the problem's
    seed and cuts them into the communities' sizes.
    """
    known = problem.partition.communities
    if number == 1:
        return tuple(sorted(chain.from_iterable(known[c].filters for c in communities)))
    kept = [one for one in known if one.id not in dropped]
    place = [one.id for one in kept].index(communities[0])
    parts = tuple(one.filters for one in kept)
    return reshuffle_filters(parts, number * len(kept), problem.seed)[
        (number - 1) * len(kept) + place
    ]


def predicted_accuracy(
    problem: Problem, decision: Decision, *, answering: bool = True
) -> AccuracyEstimate | None:
    """Predicted accuracy of a decision; None where the problem says nothing of it.

    Of trained students it is that of all of them, wherever they are, or, where only those of the
    decision are `answering`, what these keep of it.
    """
    if problem.accuracy is None:
        return None
    model, trained = problem.accuracy_model, problem.trained
    if trained is None:
        return model.estimate(decision.params, decision.macs)
    whole = model.estimate(trained.params, trained.macs)
    numbers = len(decision.students), len(trained.students)
    if not answering or numbers[0] == numbers[1]:
        return whole
    return model.limited(answered_estimate(whole, problem.failures, *numbers))


def partition_balance(problem: Problem, decision: Decision) -> PartitionBalance | None:
    """Balance of a decision; None where the problem asks nothing of it."""
    if problem.balance_pct is None and problem.inversion is None:
        return None
    students, communities = decision.students, problem.partition.communities
    kept = tuple(len(one.filters) for one in communities if one.id not in decision.dropped)
    first = [len(one.filters) for one in students if one.round == 1]
    spread, least = max(first) - min(first), least_spread(kept, len(first))
    most = round_down(problem.balance_pct, PCT_UNITS)
    image = problem.image_shape
    widths = [student_cost_line(parse_network(one.network), image).params for one in students]
    filters = [len(one.filters) for one in students]
    return PartitionBalance(
        smallest=min(first),
        largest=max(first),
        least_spread=least.filters,
        least_proven=least.proven,
        most_spread=None if most is None else most_spread(most, kept, len(first)),
        unevenness_pct=uneven_units(spread, kept, len(first)) / PCT_UNITS,
        inversion=most_inversion(zip(widths, filters, strict=True)),
    )


def broken_balance(problem: Problem, found: PartitionBalance | None) -> Iterator[str]:
    """Partitions that are less alike than asked, and wider students that know too little."""
    if found is None:
        return
    spread, most = found.largest - found.smallest, found.most_spread
    if most is not None and spread > most:
        yield (
            f"partitions of {found.smallest} to {found.largest} filters are {spread} apart; "
            f"balance allows {most}"
        )
    if problem.inversion is not None and found.inversion > problem.inversion:
        yield (
            f"a wider student has {found.inversion} filters fewer than a narrower one; "
            f"allowed: {problem.inversion}"
        )


def decision_workload(
    problem: Problem,
    decision: Decision,
    send_order: Sequence[str],
    boards: tuple[Board, ...] | None = None,
) -> FanOut:
    """Fan-out of a decision, on the problem's boards or on these."""
    boards = boards or problem.boards
    return FanOut(
        host=host_device(problem),
        boards=boards,
        students=student_works(problem, decision, boards),
        send_order=tuple(send_order),
        image_bytes=problem.image_shape.size_bytes,
        g0=_shared_group(problem, decision, boards),
    )


def student_works(
    problem: Problem, decision: Decision, boards: Sequence[Board]
) -> tuple[StudentWork, ...]:
    """Work of each student, and of each copy, with its time on its board."""
    devices = {board.name: board.device for board in boards}
    image, own = problem.image_shape, decision.group0 is None

    def copied(student: PlannedStudent, board: str) -> CopiedGroup | None:
        if decision.copied is None:
            return None
        outline = StudentOutline(parse_network(student.network), image)
        return copied_group(devices[board], outline, student.precision)

    return tuple(
        StudentWork(
            student.name,
            board,
            student.macs,
            len(student.filters),
            student_time(devices[board], student.network, image, len(student.filters), own),
            copied(student, board),
        )
        for student in decision.students
        for board in student.boards
    )


def _shared_group(
    problem: Problem, decision: Decision, boards: Sequence[Board]
) -> SharedGroup | None:
    alone = decision.group0
    if alone is None:
        return None
    table = group0_table(parse_network(decision.students[0].network), problem.image_shape)
    found = (known_time(one.device, table) for one in boards if one.name == alone.board)
    return SharedGroup(alone.board, alone.macs, alone.maps_bytes, next(found, None))


def student_time(
    device: DeviceProfile, network: str, image: ImageShape, filters: int, own_group0: bool = True
) -> PredictedTime | None:
    """Time of a student alone on `device`; None where its layers are not known there."""
    if not device.knows_layers:
        return None
    times = time_line(device, StudentOutline(parse_network(network), image, own_group0))
    return None if times is None else times.at(filters)


def works_by_board(problem: Problem, decision: Decision) -> dict[str, list[Work]]:
    """MACs or time of each model, by the board that runs it."""
    students = defaultdict(list)
    for one in student_works(problem, decision, problem.boards):
        students[one.board].append(one)
    works = {board: [*model_works(here)] for board, here in students.items()}
    group0 = _shared_group(problem, decision, problem.boards)
    if group0 is not None:
        works.setdefault(group0.board, []).append(group0.work)
    return works


def board_time(board: Board, works: Sequence[Work]) -> BoardTime:
    """Computing time of a board for models at once, and its interval."""
    device, known = board.device, [one for one in works if not isinstance(one, int)]
    methods: set[TimingMethod] = {"per-layer"} if known else set()
    if len(known) < len(works):
        methods.add("flop-affine")
    ends = [(one.low_ms, one.high_ms) for one in known]
    told = len(ends) == len(works) and all(None not in pair for pair in ends)
    factor = slowdown(device, len(works))
    return BoardTime(
        board=board.name,
        how=tuple(sorted(methods)),
        busy_ms=busy_ms(device, works),
        low_ms=factor * sum(low or 0.0 for low, _ in ends) if told else None,
        high_ms=factor * sum(high or 0.0 for _, high in ends) if told else None,
    )


def board_powers(problem: Problem, decision: Decision) -> dict[str, float | None]:
    """Power of each working board while it computes, in W; None: not known."""
    return {
        board.name: computing_w(board.device, sum(model.macs for model in here))
        if board.device.power_known
        else None
        for board in problem.boards
        if (here := decision.on(board.name))
    }


def budget_rows(
    problem: Problem, decision: Decision, works: Mapping[str, Sequence[Work]], duty: Duty | None
) -> Iterator[BudgetRow]:
    """Yield use and slack of each board's budgets; time, energy and power where limited."""
    powers = board_powers(problem, decision)
    averages = {one.board: one.average_w for one in duty.boards} if duty else {}
    for board, budget in zip(problem.boards, problem.budgets, strict=True):
        here, own = decision.on(budget.board), works.get(board.name, ())
        sizes = [BYTES_PER_VALUE[model.precision] for model in here]
        uses: dict[BudgetName, float] = {
            "memory_bytes": sum(model.memory_bytes for model in here),
            "macs": sum(model.macs for model in here),
        }
        if budget.flash_bytes is not None:
            uses["flash_bytes"] = sum(n * one.params for n, one in zip(sizes, here, strict=True))
        if budget.ram_bytes is not None:
            peaks = (n * one.peak_elements for n, one in zip(sizes, here, strict=True))
            uses["ram_bytes"] = max(peaks, default=0)
        if budget.busy_ms is not None:
            uses["busy_ms"] = busy_ms(board.device, own)
        if budget.energy_mj is not None:
            uses["energy_mj"] = busy_mj(board.device, own)
        if budget.power_w is not None:
            uses["power_w"] = _near(powers.get(board.name) or 0.0, budget.power_w)
        if budget.average_w is not None:
            uses["average_w"] = _near(averages.get(board.name) or 0.0, budget.average_w)
        for name, amount in uses.items():
            used, limit = amount + (budget.allowance(name) if here else 0), budget.limit(name)
            slack = None if limit is None else limit - used
            yield BudgetRow(board=board.name, budget=name, used=used, limit=limit, slack=slack)


def _near(power_w: float, limit_w: float) -> float:
    """Power of a board; the limit itself where binary fractions alone differ."""
    return limit_w if isclose(power_w, limit_w, rel_tol=1e-12) else power_w
