"""A plan on a fleet of your own: images come at random, a board fails, or runs hot."""

from pathlib import Path

from nonn_plan import (
    BudgetLimits,
    Fleet,
    FleetBoard,
    Partition,
    Poisson,
    RenewalFailure,
    Scenario,
    Throttle,
    board_budgets,
    simulate,
    solve,
    state_problem,
)

PARTITION = Path(__file__).parents[1] / "results" / "cpu" / "partition.json"
FLEET = Fleet(
    name="attic",
    title="Three boards in the attic",
    boards=(
        FleetBoard(name="attic-1", device="rpi-4b"),
        FleetBoard(name="attic-2", device="rpi-zero-2w"),
        FleetBoard(name="attic-3", device="rpi-zero-2w"),
    ),
)
ON_AND_OFF = RenewalFailure(boards=("attic-1",), mttf_ms=60_000, mttr_ms=5_000)
SCENARIOS = {
    "one image at a time": Scenario(),
    "5 a second, at random": Scenario(arrivals=Poisson(5.0), seed=1),
    "10 a second, at random": Scenario(arrivals=Poisson(10.0), seed=1),
    "5 a second, attic-1 fails": Scenario(arrivals=Poisson(5.0), failures=(ON_AND_OFF,), seed=1),
    "5 a second, attic-2 hot": Scenario(
        arrivals=Poisson(5.0), throttling=(Throttle("attic-2", at_ms=0, factor=0.5),), seed=1
    ),
}


def main():
    budgets = board_budgets(FLEET, BudgetLimits(memory_bytes=400_000, macs=10_000_000))
    plan = solve(state_problem(Partition.read(PARTITION), FLEET, budgets=budgets))
    print(f"{'':<26} {'p50':>8} {'p99':>9} {'lost':>6} {'throughput':>12}")
    for name, scenario in SCENARIOS.items():
        run = simulate(plan, 2000, scenario)
        print(f"{name:<26} {run.p50_ms:>5.1f} ms {run.p99_ms:>6.1f} ms", end=" ")
        print(f"{run.lost:>6} {run.throughput_per_s:>10.2f}/s")


if __name__ == "__main__":
    main()
