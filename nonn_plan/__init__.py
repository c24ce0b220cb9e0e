"""nonn-plan in Python: plan, prove, simulate and explore a Network of Neural Networks.

    from nonn_plan import Partition, simulate, solve, state_problem

    problem = state_problem(Partition.read("partition.json"), "rpi3x2")
    plan = solve(problem)
    print(plan.status, plan.predicted.total_ms, simulate(plan).total_ms)

Files are documents with `read` and `write`; quantities have their unit in the name.  Errors are
`NonnError` and its kinds.  A name is loaded when it is first used, and only then what it needs: to
import `nonn_plan` costs nothing, and no name here loads torch.  docs/api.md has examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nonn_common.errors import BoardError as BoardError
    from nonn_common.errors import InfeasibleError as InfeasibleError
    from nonn_common.errors import InputError as InputError
    from nonn_common.errors import NonnError as NonnError
    from nonn_common.errors import PartitionError as PartitionError
    from nonn_common.errors import PlanningError as PlanningError
    from nonn_common.errors import ProfileError as ProfileError
    from nonn_common.errors import SimulationError as SimulationError
    from nonn_common.errors import StoppedError as StoppedError
    from nonn_common.errors import TrainingError as TrainingError
    from nonn_common.errors import UnprovenError as UnprovenError
    from nonn_core.partition import Community as Community
    from nonn_core.partition import Partition as Partition
    from nonn_plan.api import explore as explore
    from nonn_plan.api import grid_cells as grid_cells
    from nonn_plan.api import read_plan as read_plan
    from nonn_plan.api import simulate as simulate
    from nonn_plan.api import state_problem as state_problem
    from nonn_plan.api import verify as verify
    from nonn_plan.api import write_recipe as write_recipe
    from planner.diagnosis.explanation import Explanation as Explanation
    from planner.diagnosis.explanation import explain as explain
    from planner.exploration.exploration import Exploration as Exploration
    from planner.exploration.exploration import plan_rows as plan_rows
    from planner.heuristics.baselines import solve_by_baseline as solve_by_baseline
    from planner.plan_file.alternatives import with_alternatives as with_alternatives
    from planner.plan_file.plan_document import PlanDocument as PlanDocument
    from planner.plan_file.training_recipe import training_recipe as training_recipe
    from planner.problem.budgets import BoardBudget as BoardBudget
    from planner.problem.budgets import BudgetLimits as BudgetLimits
    from planner.problem.budgets import board_budgets as board_budgets
    from planner.problem.goals import ObjectiveLevel as ObjectiveLevel
    from planner.problem.goals import Requirement as Requirement
    from planner.problem.problem import Problem as Problem
    from planner.reliability.failures import Failures as Failures
    from planner.replan import Replan as Replan
    from planner.replan import replan as replan
    from planner.solve import solve as solve
    from planner.solvers.certificate_search import with_certificates as with_certificates
    from profiles.fleet import Fleet as Fleet
    from profiles.fleet import FleetBoard as FleetBoard
    from profiles.fleet import parse_fleet as parse_fleet
    from simulator.results.simulation_result import SimulationResult as SimulationResult
    from simulator.scenario import ClosedLoop as ClosedLoop
    from simulator.scenario import Periodic as Periodic
    from simulator.scenario import Poisson as Poisson
    from simulator.scenario import RenewalFailure as RenewalFailure
    from simulator.scenario import Scenario as Scenario
    from simulator.scenario import Throttle as Throttle
    from simulator.scenario import TimedFailure as TimedFailure

_MODULES = {
    "nonn_common.errors": (
        "BoardError",
        "InfeasibleError",
        "InputError",
        "NonnError",
        "PartitionError",
        "PlanningError",
        "ProfileError",
        "SimulationError",
        "StoppedError",
        "TrainingError",
        "UnprovenError",
    ),
    "nonn_core.partition": (
        "Community",
        "Partition",
    ),
    "nonn_plan.api": (
        "explore",
        "grid_cells",
        "read_plan",
        "simulate",
        "state_problem",
        "verify",
        "write_recipe",
    ),
    "planner.diagnosis.explanation": (
        "Explanation",
        "explain",
    ),
    "planner.exploration.exploration": (
        "Exploration",
        "plan_rows",
    ),
    "planner.plan_file.alternatives": ("with_alternatives",),
    "planner.plan_file.plan_document": ("PlanDocument",),
    "planner.plan_file.training_recipe": ("training_recipe",),
    "planner.problem.budgets": ("BoardBudget", "BudgetLimits", "board_budgets"),
    "planner.problem.goals": ("ObjectiveLevel", "Requirement"),
    "planner.problem.problem": ("Problem",),
    "planner.reliability.failures": ("Failures",),
    "planner.heuristics.baselines": ("solve_by_baseline",),
    "planner.replan": ("Replan", "replan"),
    "planner.solve": ("solve",),
    "planner.solvers.certificate_search": ("with_certificates",),
    "profiles.fleet": (
        "Fleet",
        "FleetBoard",
        "parse_fleet",
    ),
    "simulator.results.simulation_result": ("SimulationResult",),
    "simulator.scenario": (
        "ClosedLoop",
        "Periodic",
        "Poisson",
        "RenewalFailure",
        "Scenario",
        "Throttle",
        "TimedFailure",
    ),
}
"""Names of the interface by module."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load a name of the interface."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    """List the names of the interface."""
    return [*globals(), *__all__]
