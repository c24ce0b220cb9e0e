"""Every error that nonn-plan raises on purpose, and what it means for the caller.

::

    NonnError                   anything below; the command ends with exit code 1
    |-- StoppedError            a person or the system stopped the program
    |-- InputError              a value or file that the user gave is wrong (exit code 2)
    |   `-- ProfileError        a device, link or fleet is unknown or malformed
    |-- PlanningError           the planner failed
    |   |-- InfeasibleError     the problem has, provably, no plan (exit code 3)
    |   `-- UnprovenError       stopped before a plan or a proof (exit code 4)
    |-- SimulationError         a workload cannot be simulated
    |-- PartitionError          a filter network cannot be partitioned
    |-- TrainingError           training or evaluation failed
    |   `-- DivergedError       a loss or a weight is no number any more
    |-- ExportError             an exported model is not what was trained
    `-- BoardError              a real board did not do what was asked

A message says what is wrong, with which object, what was found, what is allowed, and what to
do next.  It never needs a traceback to be understood.
"""


class NonnError(Exception):
    """Base of every error that nonn-plan raises on purpose."""


class StoppedError(NonnError):
    """A person (Ctrl-C) or the system (SIGTERM) stopped the program."""


class InputError(NonnError):
    """A value or a file that the user gave is wrong.

    `where` names the file, field or option; `found` is the offending value; `allowed` says what
    would have been accepted; `fix` is the next step.  Parts that are not known are left out.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: object | None = None,
        allowed: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.found, self.allowed, self.fix = what, where, found, allowed, fix
        head = f"{where}: {what}" if where else what
        parts = [
            f"found {_shown(found)}" if found is not None else "",
            f"allowed: {allowed}" if allowed else "",
            fix or "",
        ]
        super().__init__("; ".join([head, *filter(None, parts)]))


def _shown(found: object) -> str:
    """Render a value for a message, cut where it would drown the rest."""
    text = repr(found)
    return text if len(text) <= 80 else f"{text[:77]}..."


class ProfileError(InputError):
    """A device, link or fleet is unknown or malformed."""


class PlanningError(NonnError):
    """The planner failed."""


class InfeasibleError(PlanningError):
    """The problem has, provably, no plan."""


class UnprovenError(PlanningError):
    """The solver stopped before it found a plan or a proof."""


class SimulationError(NonnError):
    """A workload cannot be simulated."""


class PartitionError(NonnError):
    """A filter network cannot be partitioned."""


class TrainingError(NonnError):
    """Training or evaluation failed."""


class DivergedError(TrainingError):
    """A loss or a weight is no number any more."""


class ExportError(NonnError):
    """An exported model is not what was trained."""


class BoardError(NonnError):
    """A real board did not do what was asked."""
