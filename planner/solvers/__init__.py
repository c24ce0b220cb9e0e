"""Exact solvers: CP-SAT models, their bounds, and proofs of optimality.

`CpModel` and `CpSolver` have of those of `ortools.sat.python.cp_model` what is used here.  That
module loads pandas, which takes longer than a plan to find, and its models hold themselves, so that
each stays in memory until Python looks for garbage.
"""

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ortools.sat.python import cp_model_helper as helper
from ortools.util.python.sorted_interval_list import Domain

from planner.data.problem_data import ProblemData

IntVar = helper.IntVar
LinearExpr = helper.LinearExpr
BoolVarT = helper.Literal
CpSolverStatus = helper.CpSolverStatus

OPTIMAL = CpSolverStatus.OPTIMAL
FEASIBLE = CpSolverStatus.FEASIBLE
INFEASIBLE = CpSolverStatus.INFEASIBLE

UNITS_PER_MODEL, UNITS_PER_ROW = 1e-3, 5e-6
"""Deterministic time of a model, and of each of its rows, that the solver does not count."""

_KINDS = helper.BoolArgumentConstraint
_BOOLEANS = Domain(0, 1)
_STRATEGY = helper.DecisionStrategyProto.DomainReductionStrategy


class CpModel(helper.CpBaseModel):
    """Model of variables, constraints, an objective and a hint."""

    if TYPE_CHECKING:  # the stubs of OR-Tools leave these out

        def _add_bounded_linear_expression(self, rule: Any) -> helper.Constraint: ...
        def _add_bool_argument_constraint(self, *parts: Any) -> helper.Constraint: ...
        def _add_linear_argument_constraint(self, *parts: Any) -> helper.Constraint: ...

    def __init__(self) -> None:
        super().__init__(None)

    @property
    def proto(self) -> helper.CpModelProto:
        """The model as the solver reads it."""
        return cast(helper.CpModelProto, self.model_proto)

    def new_int_var(self, least: int, most: int, name: str) -> IntVar:
        """Return a variable that is `least` to `most`."""
        return IntVar(self.model_proto).with_name(name).with_domain(Domain(least, most))

    def new_bool_var(self, name: str) -> IntVar:
        """Return a variable that is 0 or 1."""
        return IntVar(self.model_proto).with_name(name).with_domain(_BOOLEANS)

    def add(self, rule: Any) -> helper.Constraint:
        """Add a linear constraint, or one that always or never holds; gives it."""
        if isinstance(rule, helper.BoundedLinearExpression):
            return self._add_bounded_linear_expression(rule)
        return self.add_bool_or([True] if rule else [])

    def add_bool_or(self, *literals: Any) -> helper.Constraint:
        """Let at least one of these literals, or of a list of them, be true."""
        return self._add_bool_argument_constraint(_KINDS.bool_or, *literals)

    def add_at_most_one(self, *literals: Any) -> helper.Constraint:
        """Let at most one of these literals, or of a list of them, be true."""
        return self._add_bool_argument_constraint(_KINDS.at_most_one, *literals)

    def add_exactly_one(self, *literals: Any) -> helper.Constraint:
        """Let exactly one of these literals, or of a list of them, be true."""
        return self._add_bool_argument_constraint(_KINDS.exactly_one, *literals)

    def add_implication(self, one: BoolVarT, other: BoolVarT) -> helper.Constraint:
        """Let the second literal be true where the first is."""
        implied = self._add_bool_argument_constraint(_KINDS.bool_and, other)
        return implied.only_enforce_if(one)

    def add_max_equality(self, target: Any, parts: Iterable[Any]) -> helper.Constraint:
        """Let the target be the largest of some expressions."""
        kind = helper.LinearArgumentConstraint.max
        return self._add_linear_argument_constraint(kind, target, list(parts))

    def add_multiplication_equality(self, target: Any, parts: Iterable[Any]) -> helper.Constraint:
        """Let the target be the product of some expressions."""
        kind = helper.LinearArgumentConstraint.prod
        return self._add_linear_argument_constraint(kind, target, list(parts))

    def add_division_equality(self, target: Any, amount: Any, by: Any) -> helper.Constraint:
        """Let the target be one expression divided by another, rounded towards 0."""
        kind = helper.LinearArgumentConstraint.div
        return self._add_linear_argument_constraint(kind, target, [amount, by])

    @property
    def has_goal(self) -> bool:
        """Whether there is something to minimise or maximise."""
        return bool(self.model_proto.has_objective())

    def minimize(self, value: Any) -> None:
        """Let an expression be as small as possible."""
        self._set_objective(value, 1)

    def maximize(self, value: Any) -> None:
        """Let an expression be as large as possible."""
        self._set_objective(value, -1)

    def _set_objective(self, value: Any, sign: int) -> None:
        self.model_proto.clear_objective()
        objective = self.model_proto.objective
        objective.scaling_factor = float(sign)
        if not isinstance(value, LinearExpr):
            objective.offset = float(sign * value)
            return
        flat = helper.FlatIntExpr(value)
        objective.offset = float(sign * flat.offset)
        objective.vars.extend([variable.index for variable in flat.vars])
        objective.coeffs.extend([sign * weight for weight in flat.coeffs])

    def prefer_high(self, variable: IntVar) -> None:
        """Try the highest value of a variable first, where nothing else decides."""
        strategy = self.model_proto.search_strategy.add()
        expression = strategy.exprs.add()
        expression.vars.append(variable.index)
        expression.coeffs.append(1)
        strategy.domain_reduction_strategy = _STRATEGY.SELECT_MAX_VALUE

    def add_hint(self, variable: IntVar, value: int) -> None:
        """Tell the solver what a variable is in a good solution."""
        hints = self.model_proto.solution_hint
        hints.vars.append(variable.index)
        hints.values.append(int(value))


Watch = Callable[[float | None, float], None]
"""Called with the objective of each better solution (None: no new one) and the best bound."""


class _SolutionWatch(helper.SolutionCallback):
    """Callback of the solver that tells of each better solution."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def OnSolutionCallback(self) -> None:  # noqa: N802
        self._watch(self.ObjectiveValue(), self.BestObjectiveBound())


class CpSolver:
    """Solver of one model after the other; figures are those of the last one.

    `watch` hears of better solutions and bounds while a model is solved; it changes nothing.
    """

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.parameters = helper.SatParameters()
        self._response: Any = None
        self._model_time = 0.0
        self._running: Any = None
        self._lock = Lock()

    def solve(self, model: CpModel) -> CpSolverStatus:
        """Solve a model; the status says what is proven."""
        with self._lock:
            running: Any = helper.SolveWrapper()
            self._running = running
        rows = len(model.model_proto.variables) + len(model.model_proto.constraints)
        self._model_time = UNITS_PER_MODEL + UNITS_PER_ROW * rows
        running.set_parameters(self.parameters)
        if (watch := self.watch) is not None:
            heard = _SolutionWatch(watch)  # which has to live as long as the search
            running.add_solution_callback(heard)
            running.add_best_bound_callback(lambda bound: watch(None, bound))
        self._response = running.solve(model.model_proto)
        with self._lock:
            self._running = None
        return cast(CpSolverStatus, self._response.status)

    def solve_interruptibly(self, model: CpModel) -> CpSolverStatus:
        """Solve in a thread of its own, so that a signal ends it."""
        found: list[CpSolverStatus] = []
        failed: list[BaseException] = []

        def solve() -> None:
            try:
                found.append(self.solve(model))
            except BaseException as error:
                failed.append(error)

        solving = Thread(target=solve)
        solving.start()
        try:
            solving.join()
        except BaseException:
            # Again and again: a search that has not begun yet does not hear it.
            while solving.is_alive():
                self.stop_search()
                solving.join(0.05)
            raise
        if failed:
            raise failed[0]
        return found[0]

    def stop_search(self) -> None:
        """End a search that another thread runs."""
        with self._lock:
            if self._running is not None:
                self._running.stop_search()

    def value(self, expression: Any) -> int:
        """Return an expression's value in the solution."""
        return helper.ResponseHelper.value(self._response, expression)

    def boolean_value(self, literal: Any) -> bool:
        """Return a literal's value in the solution."""
        return helper.ResponseHelper.boolean_value(self._response, literal)

    @property
    def objective_value(self) -> float:
        """The objective of the solution."""
        return float(self._response.objective_value)

    @property
    def best_objective_bound(self) -> float:
        """Bound that no solution can beat."""
        return float(self._response.best_objective_bound)

    @property
    def deterministic_time(self) -> float:
        """Count of the solver's work, and of making and reading the model, about seconds."""
        return float(self._response.deterministic_time) + self._model_time


def new_solver(
    seed: int, deterministic_limit: float, linearization_level: int, cut_level: int = 0
) -> CpSolver:
    """Set up the solver; docs/decisions/0007 holds the measurements behind the last three lines."""
    solver = CpSolver()
    # The solver's own handler would end a level early and leave Ctrl-C without one afterwards.
    solver.parameters.catch_sigint_signal = False
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = max(0.0, deterministic_limit)
    solver.parameters.linearization_level = linearization_level
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.cut_level = cut_level
    return solver


@dataclass(frozen=True, slots=True)
class SolverTask:
    """A model: a `brief` one is not stopped, a `guided` one has no goal."""

    model: CpModel
    solver: CpSolver
    brief: bool = False
    guided: bool = False


_T = TypeVar("_T")

SolverRuns = Generator[SolverTask, CpSolverStatus, _T]
"""A search told as a story: it yields each model to be solved, and goes on with the status."""


TERMS_PER_CHOICE = 12
"""Terms that a student on a board as a network has in the rules that know it, about."""
TERMS_PER_PATTERN = 10
"""Terms of a pattern of boards in the rules, about."""
MOST_PATTERNS = 50_000
"""Of more patterns of boards there is no model."""
MOST_TERMS = 4_000_000
"""Of more terms there is no model: some 100 bytes each, several times over in the solver."""
UNITS_PER_TERM = 2e-6
"""Deterministic time of a term, most of it in presolve, which does not count it."""
SOON, MAKING_SHARE = 0.2, 0.5
"""A model is made in this deterministic time whatever is left of the limit, or in this part of it.

A model that is made with the last of the time proves nothing."""


def term_count(data: ProblemData, choices: int, *, timed: bool) -> int:
    """Number of terms in the rules of so many choices, roughly.

    Choices are those of `planner.solvers.variables.mode_choices`.  The order of sends takes one
    term for each three boards that are not alike, that of alike boards one for each two students,
    that of students one for each two communities.
    """
    students, boards = data.slots + len(data.extra_students), len(data.boards)
    kinds, communities = len(data.board_classes), len(data.sizes)
    terms = TERMS_PER_CHOICE * choices + data.slots * communities * (communities + data.slots)
    if timed:
        alike = sum(len(kind) ** 3 for kind in data.board_classes)
        return terms + 3 * (boards**3 - alike)
    on_a_board = choices // max(1, boards)
    return terms + (boards - kinds) * students * on_a_board // 2


def is_modelled(terms: int, deterministic_limit: float = math.inf) -> bool:
    """Whether a model of so many terms is small enough, and made within a limit."""
    soon = max(SOON, MAKING_SHARE * deterministic_limit)
    return terms <= MOST_TERMS and terms * UNITS_PER_TERM <= soon
