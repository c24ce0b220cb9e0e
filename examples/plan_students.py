"""Plan students for three boards, prove the plan, and compare it with other ways.

The partition is that of a teacher for CIFAR-10 in `results/cpu`; `nonn-plan partition` makes one of
your own teacher.
"""

from pathlib import Path

from nonn_plan import (
    BudgetLimits,
    Partition,
    board_budgets,
    parse_fleet,
    solve,
    state_problem,
    with_alternatives,
)

PARTITION = Path(__file__).parents[1] / "results" / "cpu" / "partition.json"


def three_boards():
    """State a problem: two Raspberry Pi 3B and an Odroid, 400 KB and 20 MFLOP for each."""
    fleet = parse_fleet("rpi-3b*2,odroid-xu4s")
    limits = BudgetLimits(memory_bytes=400_000, macs=10_000_000)
    return state_problem(Partition.read(PARTITION), fleet, budgets=board_budgets(fleet, limits))


def main():
    plan = with_alternatives(solve(three_boards()))
    print(f"{plan.status}: {len(plan.students)} students, {plan.dropped_filters} filters dropped")
    for student in plan.students:
        size = f"{len(student.filters)} filters, {student.memory_bytes / 1000:.0f} KB"
        print(f"  {student.board}: {student.network}, {size}")
    for level in plan.stages:
        print(f"  {level.objective}: {level.best:g}, proven {level.proven}")
    cost = plan.predicted
    print(f"one image: {cost.total_ms:.1f} ms, {cost.energy_fleet_mj:.0f} mJ on all boards")
    for one in plan.alternatives:
        latency = "no latency" if one.total_ms is None else f"{one.total_ms:.1f} ms"
        print(f"  {one.kind}: {latency}, {one.status}")


if __name__ == "__main__":
    main()
