"""What several students at once cost: a factor on the sum of what each takes alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from boards.profiling.stopwatch import Answering, Stopwatch
from boards.runtime.model import Batch, LoadedModel
from boards.worker.students import Students
from nonn_core.progress import Progress, silent
from profiles.figure import Figure
from profiles.fitting import relative_fit

MOST_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Sharing:
    """So many students at once, how long they take, and the sum of what each takes alone."""

    students: int
    together_ms: float
    summed_ms: float

    @property
    def factor(self) -> float:
        """Below 1 where there are processors to spare."""
        return self.together_ms / self.summed_ms


def measure_sharing(
    models: Sequence[LoadedModel],
    images: Batch,
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> tuple[Sharing, ...]:
    """Time 2, 3, ... of `models` at once as the worker runs them, and each alone beside that."""
    students = Students(models)
    groups = [tuple(students.names[:count]) for count in range(2, len(models) + 1)]
    alone = {name: (name,) for name in students.names}
    things = {
        " ".join(names): _asking(students, names, images, watch)
        for names in (*alone.values(), *groups)
    }
    timed = watch.timed("several at once", things, seconds, progress)
    return tuple(
        Sharing(len(names), timed[" ".join(names)].ms, sum(timed[name].ms for name in names))
        for names in groups
    )


def sharing_figure(rows: Sequence[Sharing]) -> Figure:
    """Return the one factor that is nearest to all rows, each counting alike."""
    fit = relative_fit(
        {"factor": [row.summed_ms for row in rows]}, [row.together_ms for row in rows]
    )
    counts = ", ".join(str(row.students) for row in rows)
    return fit.figure("factor", f"{counts} students at once in one worker").model_copy(
        update={"provenance": "measured"}
    )


def _asking(students: Students, names: Sequence[str], images: Batch, watch: Stopwatch) -> Answering:
    return lambda: watch.once(lambda: students.answer(names, images))
