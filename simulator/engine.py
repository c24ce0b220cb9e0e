"""The engine: runs a workload in a scenario, on the quickest path that is exact.

Two paths give the same result: `events`, one SimPy event per hop, can do everything; `fused`, one
event per image, does what nothing can disturb.  Time is SimPy's, in ms.  In a closed loop without
noise every inference takes as long as `closed_form` says.
"""

from collections.abc import Callable

from profiles.errors import SimulationError
from simulator import events, fused
from simulator.arrivals import Times
from simulator.job import Job
from simulator.recorder import Keep, Progress, Recorder
from simulator.result import SimulationResult
from simulator.scenario import UNDISTURBED, Scenario
from simulator.summary import summarise
from simulator.workload import Workload

Path = Callable[[Job, int, Scenario, Recorder], None]


def simulate(
    workload: Workload | Job,
    inferences: int = 1,
    scenario: Scenario = UNDISTURBED,
    keep: Keep = "all",
    progress: Progress | None = None,
) -> SimulationResult:
    """Run `inferences` images of `workload` and return what happened.

    With `keep` totals, memory does not grow with the images: no tables, and percentiles with the
    error that the result states.  `progress` hears of each batch of images.  Raises
    SimulationError for fewer than one inference and where scenario and workload do not fit,
    ProfileError where a profile lacks a figure.
    """
    job = workload if isinstance(workload, Job) else workload.job()
    path = fused.play if inferences > 1 and fused.fits(job, scenario) else events.play
    return run(path, job, inferences, scenario, keep, progress)


def run(
    path: Path,
    job: Job,
    inferences: int = 1,
    scenario: Scenario = UNDISTURBED,
    keep: Keep = "all",
    progress: Progress | None = None,
) -> SimulationResult:
    """Run `job` on the path that the caller names, `events.play` or `fused.play`."""
    if inferences < 1:
        raise SimulationError(f"at least one inference is needed; found {inferences}")
    arrivals = scenario.arrivals
    if isinstance(arrivals, Times) and inferences > len(arrivals.ms):
        raise SimulationError(
            f"the trace holds {len(arrivals.ms)} arrivals; {inferences} inferences are too many"
        )
    scenario.check(job)
    recorder = Recorder(job, keep, progress)
    path(job, inferences, scenario, recorder)
    recording = recorder.finish()
    return summarise(recorder.statistics, recording)
