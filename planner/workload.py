"""From a plan to the workload that the simulator runs."""

from planner.evaluation import workload_of
from planner.plan import PlanDocument
from profiles.errors import InputError
from simulator.workload import FanOut


def fan_out(plan: PlanDocument) -> FanOut:
    """Return the plan's NoNN as a fan-out from its host; raises InputError without students."""
    require_students(plan)
    return workload_of(plan.question, plan.decision, plan.send_order)


def require_students(plan: PlanDocument) -> None:
    """Refuse a plan that proves that there is none; raises InputError."""
    if not plan.students:
        raise InputError(
            "this plan has no students: its question is infeasible",
            allowed="a plan with status optimal or feasible",
            fix="relax a requirement that `nonn-plan explain` names and plan again",
        )
