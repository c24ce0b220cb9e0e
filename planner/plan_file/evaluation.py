"""Evaluation of a plan from its problem alone, without a solver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from typing import Literal, Self

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Precision, group0_cost, student_cost_line
from nonn_core.partition import DropStep, Filters, reshuffle_filters
from planner.accuracy import AccuracyEstimate
from planner.data.modes import AssignedStudent, Assignment, Stem
from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.problem_data import host_device
from planner.plan_file.plan_document import (
    BudgetRow,
    Decision,
    LevelResult,
    PlanDocument,
    PlannedGroup0,
    PlannedStudent,
    Prediction,
    SolverRun,
    require_students,
)
from planner.problem.goals import BudgetName, Objective
from planner.problem.problem import Problem
from planner.reliability.failures import Failures
from planner.reliability.robustness import RobustnessEstimate, RobustnessEvaluator, survives
from profiles.device import spread_cv
from profiles.time_spread import quantile_factor
from simulator.task_graph import period_ms
from simulator.workloads.closed_form import P95, fan_out_breakdown, known_join_spread
from simulator.workloads.fan_out import (
    FanOut,
    SharedGroup,
    StudentWork,
    awaited_first,
    busy_mj,
    busy_ms,
)


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
    return Decision(tuple(planned), tuple(dropped), group0)


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


@dataclass(frozen=True)
class PlanEvaluation:
    """A decision with its send order, and all that follows; each figure is computed once."""

    problem: Problem
    decision: Decision
    send_order: tuple[str, ...]

    @classmethod
    def of(cls, problem: Problem, assignment: Assignment) -> Self:
        """Evaluate an assignment; students are numbered by round, then by board."""
        placed = sorted(
            assignment.students, key=lambda one: (one.round, one.board, one.communities)
        )
        boards, stem = problem.fleet.boards, assignment.stem
        decision = evaluate_decision(
            problem,
            {f"student-{number}": one for number, one in enumerate(placed, start=1)},
            assignment.dropped,
            (boards[stem.board].name, stem.precision) if stem else None,
        )
        return cls(problem, decision, _best_send_order(problem, decision, assignment.send_order))

    @classmethod
    def of_plan(cls, plan: PlanDocument) -> Self:
        """Evaluate the decision of a plan file, as it is written there."""
        return cls(plan.question, plan.decision, plan.send_order)

    @cached_property
    def workload(self) -> FanOut:
        """Workload of one image; raises SimulationError for a wrong order."""
        return _workload(self.problem, self.decision, self.send_order)

    @cached_property
    def predicted(self) -> Prediction:
        """Latency and energy of one image by the simulator's closed form."""
        breakdown = fan_out_breakdown(self.workload)
        spread = known_join_spread(self.workload)
        return Prediction(
            total_ms=breakdown.total_ms,
            expected_ms=None if spread is None else spread.expected_ms,
            p95_ms=None if spread is None else spread.p95_ms,
            compute_ms=breakdown.compute_ms,
            communication_ms=breakdown.communication_ms,
            energy_per_node_mj=breakdown.energy_per_node_mj,
            energy_highest_mj=max(row.energy_mj for row in breakdown.boards),
            energy_fleet_mj=breakdown.energy_total_mj,
            throughput_per_s=1000 / period_ms(self.workload.graph()),
        )

    @cached_property
    def late_ms(self) -> float:
        """Latency that at least 95 of 100 images keep; of the means without spread.

        Each of K boards at work takes the time that it keeps in 0.95^(1/K) of its images.
        """
        return fan_out_breakdown(self.workload, slow=self._slow).total_ms

    @property
    def late_order(self) -> tuple[str, ...]:
        """Send order, longest delivery first, where boards are as slow as that."""
        rows = {row.board: row for row in fan_out_breakdown(self.workload, slow=self._slow).boards}
        awaited = {student.board for student in self.decision.students}
        links = {board.name: board.link for board in self.problem.boards}

        def turn(name: str) -> tuple[bool, float]:
            delivery_ms = rows[name].done_ms - rows[name].send_done_ms
            return name not in awaited, -delivery_ms - links[name].latency_ms.value

        return tuple(sorted(self.send_order, key=turn))

    @property
    def _slow(self) -> dict[str, float]:
        """How much longer than in the mean each board computes then."""
        each = P95 ** (1 / len(self.decision.used))
        return {
            board.name: quantile_factor(spread_cv(board.device), each)
            for board in self.problem.boards
        }

    @cached_property
    def accuracy(self) -> AccuracyEstimate | None:
        """Predicted accuracy; None where the problem says nothing of it."""
        if self.problem.accuracy is None:
            return None
        return self.problem.accuracy_model.estimate(self.decision.params, self.decision.macs)

    @cached_property
    def robustness(self) -> RobustnessEstimate | None:
        """Robustness under board failures; None without failures or a known accuracy."""
        failures, accuracy = self.problem.failures, self.accuracy
        if failures is None or accuracy is None or accuracy.value_pct is None:
            return None
        evaluator = RobustnessEvaluator(failures, _board_names(self.problem))
        return evaluator.evaluate(accuracy.value_pct, self._replica_sets)

    @cached_property
    def survivable_failures(self) -> int:
        """Failures, whichever they are, that leave each student (and G0) a board."""
        if self.decision.group0 is not None:
            return 0
        failures, boards = self.problem.failures or Failures(), _board_names(self.problem)
        count = 0
        while survives(self._replica_sets, failures, boards, count + 1):
            count += 1
        return count

    @property
    def _replica_sets(self) -> list[frozenset[int]]:
        places = {name: place for place, name in enumerate(_board_names(self.problem))}
        return [frozenset(places[b] for b in one.boards) for one in self.decision.students]

    @property
    def delta_val_pct(self) -> float | None:
        """Measured delta_val of dropping P0; null if unmeasured."""
        return self.drop_step.delta_val_pct

    @cached_property
    def drop_step(self) -> DropStep:
        """Drop step that P0 is.

        Raises ValueError where no drop step removes exactly these communities.
        """
        dropped = set(self.decision.dropped)
        for step in self.problem.partition.drop_steps:
            if set(step.communities) == dropped:
                return step
        raise ValueError(f"no drop step removes exactly the communities {sorted(dropped)}")

    @property
    def dropped_filters(self) -> int:
        """Filters that nobody mimics, |P0|."""
        communities = self.problem.partition.communities
        return sum(len(communities[c].filters) for c in self.decision.dropped)

    def value(self, objective: Objective) -> float:
        """Value of one objective, in the unit that people read."""
        return float(OBJECTIVE_FUNCTIONS[objective].value(self) or 0.0)

    @cached_property
    def budgets(self) -> tuple[BudgetRow, ...]:
        """Use and slack of each board's budgets; time and energy if limited."""
        rows = []
        for board, budget in zip(self.problem.boards, self.problem.budgets, strict=True):
            here = [one for one in self.decision.models if budget.board in one.boards]
            macs = [model.macs for model in here]
            memory_bytes = sum(model.memory_bytes for model in here)
            memory_bytes += budget.runtime_bytes if here else 0
            uses: list[tuple[BudgetName, float, float | None]] = [
                ("memory_bytes", memory_bytes, budget.memory_bytes),
                ("macs", sum(macs), budget.macs),
            ]
            if budget.busy_ms is not None:
                uses.append(("busy_ms", busy_ms(board.device, macs), budget.busy_ms))
            if budget.energy_mj is not None:
                uses.append(("energy_mj", busy_mj(board.device, macs), budget.energy_mj))
            rows += [
                BudgetRow(
                    board=budget.board,
                    budget=name,
                    used=used,
                    limit=limit,
                    slack=None if limit is None else limit - used,
                )
                for name, used, limit in uses
            ]
        return tuple(rows)


def _best_send_order(problem: Problem, decision: Decision, found: Sequence[int]) -> tuple[str, ...]:
    """Used boards, those first that need longest after their image has come.

    Where boards share a medium, another order may be quicker: `found`, places in the fleet, is
    taken if it is.  So may one for slow boards, where their latency is asked for.
    """
    awaited = {student.board for student in decision.students}
    longest_first = awaited_first(problem.boards, _student_work(decision.students), awaited)
    late = "latency-p95" in problem.goals
    if not found and not late:
        return longest_first
    orders = [longest_first, tuple(problem.boards[place].name for place in found)]
    orders = [order for order in orders if order]
    if late:
        orders.append(PlanEvaluation(problem, decision, longest_first).late_order)

    def lasts_ms(order: tuple[str, ...]) -> float:
        evaluation = PlanEvaluation(problem, decision, order)
        return evaluation.late_ms if late else evaluation.predicted.total_ms

    return min(orders, key=lasts_ms)


def _workload(problem: Problem, decision: Decision, send_order: Sequence[str]) -> FanOut:
    alone = decision.group0
    return FanOut(
        host=host_device(problem),
        boards=problem.boards,
        students=_student_work(decision.students),
        send_order=tuple(send_order),
        image_bytes=problem.image_shape.size_bytes,
        g0=SharedGroup(alone.board, alone.macs, alone.maps_bytes) if alone else None,
    )


def _student_work(students: Sequence[PlannedStudent]) -> tuple[StudentWork, ...]:
    return tuple(
        StudentWork(student.name, board, student.macs, len(student.filters))
        for student in students
        for board in student.boards
    )


def all_up_probability(problem: Problem, boards: Sequence[str]) -> float:
    """Return the chance that all of these boards are up, from 0 to 1."""
    names = _board_names(problem)
    survival = RobustnessEvaluator(problem.failures or Failures(), names)
    return float(
        survival.answer_distribution([frozenset({names.index(board)}) for board in boards])[-1]
    )


def _board_names(problem: Problem) -> tuple[str, ...]:
    return tuple(board.name for board in problem.fleet.boards)


def build_plan(
    evaluation: PlanEvaluation,
    *,
    status: Literal["optimal", "feasible"],
    stages: tuple[LevelResult, ...],
    solver: SolverRun,
) -> PlanDocument:
    """Plan file of an evaluated assignment."""
    decision = evaluation.decision
    return PlanDocument(
        question=evaluation.problem,
        status=status,
        students=decision.students,
        group0=decision.group0,
        dropped=decision.dropped,
        dropped_filters=evaluation.dropped_filters,
        delta_val_pct=evaluation.delta_val_pct,
        host=host_device(evaluation.problem).name,
        send_order=evaluation.send_order,
        budgets=evaluation.budgets,
        predicted=evaluation.predicted,
        accuracy=evaluation.accuracy,
        stages=stages,
        solver=solver,
        conflict=(),
    )


def plan_workload(plan: PlanDocument) -> FanOut:
    """The plan's NoNN as a fan-out from its host; raises InputError without students."""
    require_students(plan)
    return PlanEvaluation.of_plan(plan).workload


def unproven_plan(problem: Problem, found: Assignment, method: str) -> PlanDocument:
    """Plan file of an assignment without any proof."""
    evaluation = PlanEvaluation.of(problem, found)
    values = [evaluation.value(level.objective) for level in problem.objective]
    return build_plan(
        evaluation,
        status="feasible",
        stages=tuple(
            LevelResult(
                objective=level.objective,
                tolerance_pct=level.tolerance_pct,
                value=value,
                best=value,
                bound=None,
                gap_pct=None,
                proven=False,
            )
            for level, value in zip(problem.objective, values, strict=True)
        ),
        solver=SolverRun(
            name=method, version=version("nonn-plan"), seed=problem.seed, deterministic_time=0
        ),
    )
