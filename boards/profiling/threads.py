"""What more threads are worth: how long students take on 1, 2, ... threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from boards.profiling.member import Member
from boards.profiling.stopwatch import Stopwatch
from boards.profiling.students import answering
from boards.runtime.model import LoadedModel
from nonn_core.progress import Progress, silent

COMPARED = 4
"""Students that are timed on each number of threads."""

Load = Callable[[Sequence[str], int], Sequence[LoadedModel]]
"""Loads models by name, on so many threads."""


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """Students on so many threads: their time beside that on one thread, geometric mean."""

    threads: int
    ratio: float


def measure_threads(
    members: Sequence[Member],
    load: Load,
    counts: Sequence[int],
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> tuple[ThreadTime, ...]:
    """Time some of `members` on each of these numbers of threads, of which the first is one."""
    chosen = members[:: max(1, len(members) // COMPARED)][:COMPARED]
    names = [member.name for member in chosen]
    things = {
        (count, name): thing
        for count in counts
        for name, thing in answering(chosen, load(names, count)).items()
    }
    labelled = {f"{count} {name}": thing for (count, name), thing in things.items()}
    timed = watch.timed("threads", labelled, seconds, progress)
    return tuple(
        ThreadTime(
            count,
            float(
                np.exp(
                    np.mean(
                        [
                            np.log(timed[f"{count} {name}"].ms / timed[f"{counts[0]} {name}"].ms)
                            for name in names
                        ]
                    )
                )
            ),
        )
        for count in counts
    )


def thread_counts(cores: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and the number of cores."""
    doubled = [1 << power for power in range(cores.bit_length()) if 1 << power <= cores]
    return tuple(dict.fromkeys((*doubled, cores)))
