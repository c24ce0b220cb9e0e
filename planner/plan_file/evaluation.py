"""Evaluation of a plan from its problem alone, without a solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import isnan
from typing import Literal, Self

from nonn_core.partition import DropStep
from planner.accuracy import AccuracyEstimate
from planner.data.balance import PartitionBalance
from planner.data.modes import Assignment
from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.point_choice import settle
from planner.data.problem_data import host_device
from planner.plan_file.decision_workload import (
    board_powers,
    board_time,
    budget_rows,
    decision_workload,
    evaluate_decision,
    partition_balance,
    predicted_accuracy,
    student_works,
    works_by_board,
)
from planner.plan_file.plan_document import (
    BoardTime,
    BudgetRow,
    Decision,
    LevelResult,
    PlanDocument,
    Prediction,
    SolverRun,
    require_students,
)
from planner.problem.duty import Duty
from planner.problem.goals import Objective
from planner.problem.problem import Problem
from planner.reliability.failures import Failures
from planner.reliability.robustness import RobustnessEstimate, RobustnessEvaluator, survives
from profiles.device import End, spread_cv
from profiles.time_spread import quantile_factor
from simulator.task_graph import period_ms
from simulator.workloads.closed_form import P95, fan_out_breakdown, known_join_spread
from simulator.workloads.fan_out import FanOut, awaited_first
from simulator.workloads.layer_parts import Work

_ENDS: tuple[End, ...] = ("low", "middle", "high")


@dataclass(frozen=True)
class PlanEvaluation:
    """A decision with its send order, and all that follows; each figure is computed once."""

    problem: Problem
    decision: Decision
    send_order: tuple[str, ...]

    @classmethod
    def of(cls, problem: Problem, assignment: Assignment) -> Self:
        """Evaluate an assignment of places; students are numbered by round, then by board.

        Boards run at the operating points of their places in the evaluation's problem.
        """
        problem, assignment = settle(problem, assignment)
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

    def at(self, problem: Problem) -> Self:
        """The same placement where boards take other times, sent to in the best order there."""
        places = {name: place for place, name in enumerate(_board_names(problem))}
        order = _best_send_order(problem, self.decision, [places[b] for b in self.send_order])
        return type(self)(problem, self.decision, order)

    @cached_property
    def workload(self) -> FanOut:
        """Workload of one image; raises SimulationError for a wrong order."""
        return decision_workload(self.problem, self.decision, self.send_order)

    @cached_property
    def predicted(self) -> Prediction:
        """Latency and energy of one image by the simulator's closed form."""
        breakdown = fan_out_breakdown(self.workload)
        spread = known_join_spread(self.workload)
        told = not isnan(breakdown.energy_total_mj)
        low_ms, middle_ms, high_ms = self._ends_ms
        return Prediction(
            total_ms=breakdown.total_ms,
            low_ms=low_ms,
            middle_ms=middle_ms,
            high_ms=high_ms,
            expected_ms=None if spread is None else spread.expected_ms,
            p95_ms=None if spread is None else spread.p95_ms,
            compute_ms=breakdown.compute_ms,
            communication_ms=breakdown.communication_ms,
            energy_per_node_mj=breakdown.energy_per_node_mj if told else None,
            energy_highest_mj=max(row.energy_mj for row in breakdown.boards) if told else None,
            energy_fleet_mj=breakdown.energy_total_mj if told else None,
            throughput_per_s=1000 / period_ms(self.workload.graph()),
        )

    @cached_property
    def duty(self) -> Duty | None:
        """Power and battery life at the question's rate; None where it has none."""
        if self.problem.rate_per_s is None:
            return None
        rows = fan_out_breakdown(self.workload).boards
        spent = {row.board: (row.busy_ms, row.energy_mj) for row in rows}
        return Duty.of(self.problem.rate_per_s, self.problem.boards, self.problem.budgets, spent)

    @cached_property
    def fleet_power_w(self) -> float | None:
        """Power of all working boards while they compute; None: one's is unknown."""
        told = [power for power in self.power_w.values() if power is not None]
        return sum(told) if len(told) == len(self.power_w) else None

    @cached_property
    def power_w(self) -> dict[str, float | None]:
        """Power of each working board while it computes; None: it is unknown."""
        return board_powers(self.problem, self.decision)

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
    def _ends_ms(self) -> tuple[float | None, float | None, float | None]:
        """Latency with all boards at the low end, in the middle, at the high end.

        All are None where no board's interval is known.
        """
        if not any(row.high_ms is not None for row in self.board_times):
            return None, None, None
        order = self.send_order
        low, middle, high = (
            decision_workload(self.problem, self.decision, order, self.problem.boards_at(end))
            for end in _ENDS
        )
        low_ms, middle_ms, high_ms = (
            fan_out_breakdown(one).total_ms for one in (low, middle, high)
        )
        return low_ms, middle_ms, high_ms

    @cached_property
    def board_times(self) -> tuple[BoardTime, ...]:
        """Computing time of each board that works, in the fleet's order, and what predicts it.

        Empty where the problem asks for times by FLOPs alone.
        """
        if self.problem.timing == "flop-affine":
            return ()
        works, boards = self._works, self.problem.boards
        return tuple(board_time(one, works[one.name]) for one in boards if one.name in works)

    @cached_property
    def _works(self) -> dict[str, list[Work]]:
        return works_by_board(self.problem, self.decision)

    @cached_property
    def accuracy(self) -> AccuracyEstimate | None:
        """Predicted accuracy; None where the problem says nothing of it."""
        return predicted_accuracy(self.problem, self.decision)

    @cached_property
    def robustness(self) -> RobustnessEstimate | None:
        """Robustness under board failures; None without failures or a known accuracy."""
        failures = self.problem.failures
        accuracy = predicted_accuracy(self.problem, self.decision, answering=False)
        if failures is None or accuracy is None or accuracy.value_pct is None:
            return None
        evaluator = RobustnessEvaluator(failures, _board_names(self.problem))
        trained, here = self.problem.trained, self._replica_sets
        homeless = len(trained.students) - len(here) if trained else 0
        return evaluator.evaluate(accuracy.value_pct, [*here, *[frozenset[int]()] * homeless])

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

    @cached_property
    def balance(self) -> PartitionBalance | None:
        """How alike partitions are, and who knows more; None where the problem asks nothing."""
        return partition_balance(self.problem, self.decision)

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
        return tuple(budget_rows(self.problem, self.decision, self._works, self.duty))


def _best_send_order(problem: Problem, decision: Decision, found: Sequence[int]) -> tuple[str, ...]:
    """Used boards, those first that need longest after their image has come.

    Where boards share a medium, another order may be quicker: `found`, places in the fleet, is
    taken if it is.  So may one for slow boards, where their latency is asked for.
    """
    awaited = {student.board for student in decision.students}
    works = student_works(problem, decision, problem.boards)
    longest_first = awaited_first(problem.boards, works, awaited)
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
        joint_models=decision.joint,
        dropped=decision.dropped,
        dropped_filters=evaluation.dropped_filters,
        delta_val_pct=evaluation.delta_val_pct,
        host=host_device(evaluation.problem).name,
        send_order=evaluation.send_order,
        budgets=evaluation.budgets,
        board_times=evaluation.board_times,
        predicted=evaluation.predicted,
        duty=evaluation.duty,
        accuracy=evaluation.accuracy,
        balance=evaluation.balance,
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
