"""Options that several commands share, so that they read the same everywhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.errors import InputError, SimulationError

if TYPE_CHECKING:
    from boards.tls.identity import Identity


AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result on stdout as one JSON document.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed; same seed, same result.")
]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json, as `plan` writes it.")]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training images.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=2, help="Images per step.")]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Initial learning rate.")]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1 ..., or auto: a GPU if there is one.")
]
Precision = Annotated[
    str, typer.Option("--precision", help="Of convolutions and matrix products: fp32 or bf16.")
]
CachedViews = Annotated[
    int,
    typer.Option(
        "--views",
        min=0,
        help="Fixed views of each image that the teacher sees once; 0: always new.",
    ),
]
SettingAxes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUES",
        help="e.g. distillation.beta=10,100,1000: of several values the one with the best "
        "validation accuracy is kept. Repeatable.",
    ),
]

ConfusionFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--confusion",
        help="Confusion matrix and accuracy by class: NAME.csv, or a picture NAME.png. Repeatable.",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plain text without keys; on loopback only.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code that the recipe names as its teacher.")
]
Sends = Annotated[
    str,
    typer.Option("--sends", help="Images: one per-board, or per-student, as the NoNN paper did."),
]
HostKeys = Annotated[
    Path | None, typer.Option("--keys", help="Folder of the host's keys, of `keys init`.")
]
BoardKeys = Annotated[
    Path | None, typer.Option("--keys", help="Folder of this board's keys, of `keys init`.")
]


def read_identity(keys: Path | None, insecure: bool) -> "Identity | None":
    """Read the keys to be used; None for plain text.

    Raises InputError for neither or both.
    """
    from boards.tls.identity import Identity

    if (keys is None) != insecure:
        raise InputError(
            "either keys or --insecure",
            where="--keys",
            fix="make keys with `nonn-plan keys init`, or try on this machine with --insecure",
        )
    return None if keys is None else Identity.read(keys)


def one_of(option: str, text: str, allowed: Sequence[str]) -> str:
    """Check that `text` is one of the words of an option; raises InputError."""
    if text not in allowed:
        raise InputError(option, found=text, allowed=" or ".join(allowed))
    return text


@contextmanager
def errors_name_option(where: str) -> Iterator[None]:
    """Turn what the simulator refuses into an InputError that names the option."""
    try:
        yield
    except SimulationError as error:
        raise InputError(str(error), where=where) from None
