"""Measurements of a quiet machine that takes 2 ms + 0.5 ms per million MACs."""

from boards.profiling.benchmark_model import benchmark_models
from boards.profiling.benchmark_run import BenchmarkResult
from boards.profiling.machine import MachineCondition
from boards.profiling.message_benchmark import MessageTime
from boards.profiling.power_meter import GivenPower, measure_power
from boards.profiling.stopwatch import Timing
from boards.profiling.student_benchmark import Sharing, StudentTime, StudentTimes, ThreadTime

COOL = MachineCondition(40.0, 10**9, "performance")


def made_measured(layers=None):
    rows = tuple(
        StudentTime(student, Timing(2.0 + 0.5 * student.macs / 1e6, 1.0, 9))
        for student in benchmark_models(["wrn16-2"], ["3x32x32"])
    )
    return BenchmarkResult(
        students=StudentTimes(rows, drift_pct=1.0),
        threads=(ThreadTime(1, 1.0), ThreadTime(4, 0.4)),
        sharing=(Sharing(2, 6.0, 10.0),),
        messages=tuple(MessageTime(n, 0.3 + 1e-5 * n, 0.6 + 1e-5 * n, 0.1) for n in (256, 9999)),
        layers=layers,
        power=measure_power(None, GivenPower(1.0, 3.0), lambda: None, 1, 0.0),
        engine="onnxruntime",
        before=COOL,
        after=COOL,
    )
