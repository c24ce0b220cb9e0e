"""A scenario: when images come, what fails, what slows down, and the seed of all randomness."""

from dataclasses import dataclass, field
from typing import Literal

from profiles.errors import SimulationError
from simulator.arrivals import Arrivals, ClosedLoop
from simulator.failures import Failure, Uptimes
from simulator.job import Job
from simulator.throttling import Speed, Throttle

OnFailure = Literal["wait", "lose"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens around a job; nothing disturbs it by default.

    What a step did is lost when a board that it needs goes down.  With `on_failure` wait it queues
    again when that board is up again; only resources that serve nothing but that board's steps, as
    its processor does, are kept for it meanwhile.  With lose, and where no repair comes, it never
    ends and its resources are free.  In a closed loop the host gives up a lost image when nothing
    of it is under way any more and enough of what it lost is up again for an answer, at once if
    that never comes, or at its deadline.
    """

    arrivals: Arrivals = field(default_factory=ClosedLoop)
    failures: tuple[Failure, ...] = ()
    throttling: tuple[Throttle, ...] = ()
    on_failure: OnFailure = "wait"
    seed: int = 0

    def check(self, job: Job) -> None:
        """Refuse boards that `job` does not have; raises SimulationError."""
        failing = {board for failure in self.failures for board in failure.boards}
        throttled = {throttle.board for throttle in self.throttling}
        named = failing | throttled
        if named and (unknown := sorted(named - job.places)):
            raise SimulationError(
                f"the scenario names boards that have no part in this workload: "
                f"{', '.join(unknown)}; it has: {', '.join(sorted(job.places))}"
            )

    def uptimes(self) -> Uptimes:
        """Return when places are up."""
        return Uptimes(self.failures, self.seed)

    def speed(self, board: str) -> Speed | None:
        """Return the clock of `board` over time, or None if it is never throttled."""
        own = [throttle for throttle in self.throttling if throttle.board == board]
        return Speed(own) if own else None


UNDISTURBED = Scenario()
"""A closed loop in which nothing fails and nothing slows down."""
