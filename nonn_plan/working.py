"""`worker`: what runs on a board."""

import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nonn_plan.identity_option import BoardKeys, Insecure, identity_of
from profiles.errors import InputError
from profiles.units import parse_bytes, parse_ms

if TYPE_CHECKING:
    from boards.protocol.address import Address
    from boards.worker.server import Worker
    from nonn_core.bundle import Manifest

_LOOK_S = 0.5

_MOST_BYTES = 2**31 - 1
"""The largest message that gRPC can be asked to take."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(worker)


def worker(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")],
    student: Annotated[
        list[str],
        typer.Option("--student", help="Number or name of a student of this board. Repeatable."),
    ],
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT; frames use the port after it.")
    ] = "0.0.0.0:8001",
    keys: BoardKeys = None,
    insecure: Insecure = False,
    precision: Annotated[
        Literal["fp32", "int8"] | None,
        typer.Option("--precision", help="Default: as planned; else int8 if there."),
    ] = None,
    engine: Annotated[
        Literal["onnxruntime", "ncnn"] | None,
        typer.Option("--engine", help="Default: the first that is installed."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of each student.")] = 1,
    queue: Annotated[
        int, typer.Option("--queue", min=1, max=1024, help="Requests that may wait.")
    ] = 64,
    largest_message: Annotated[
        str, typer.Option("--largest-message", help="Larger requests are refused.")
    ] = "16MiB",
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="HOST:PORT of figures for Prometheus.")
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option(
            "--at-least",
            metavar="STUDENT=TIME",
            help="Hold answers until so long after their computation began, as a slower board "
            "would, e.g. 0=12.5ms. Repeatable.",
        ),
    ] = None,
) -> None:
    """Answer images with the features of this board's students, until SIGTERM."""
    from boards.protocol.address import Address
    from boards.runtime.loading import load_models
    from boards.worker.server import Worker, WorkerSettings
    from nonn_core.bundle import MANIFEST, Manifest

    logging.basicConfig(stream=sys.stderr, format="nonn-plan worker: %(message)s")
    manifest = Manifest.read(bundle / MANIFEST)
    names = [student_name(manifest, text) for text in dict.fromkeys(student)]
    address = Address.parse(listen, "--listen", free_port=True)
    identity = identity_of(keys, insecure)
    if identity is None:
        _require_loopback(address)
    settings = WorkerSettings(
        listen=address,
        identity=identity,
        queue=queue,
        largest_bytes=_message_bytes(largest_message),
        at_least_ms=tuple(_held(manifest, text, names) for text in at_least or ()),
        metrics=None if metrics is None else Address.parse(metrics, "--metrics", free_port=True),
    )
    models = load_models(bundle, names, precision=precision, engine=engine, threads=threads)
    _serve(Worker(models, settings))


def _require_loopback(address: "Address") -> None:
    if not address.loopback:
        raise InputError(
            "plain text is for loopback only",
            where="--insecure",
            found=str(address),
            allowed="127.0.0.1:PORT",
            fix="make keys with `nonn-plan keys init`",
        )


def student_name(manifest: "Manifest", text: str) -> str:
    """Return the name of a model that is given by name, or by its number among the students."""
    names = [model.name for model in manifest.models]
    numbered = [model.name for model in manifest.models if model.role in ("student", "head")]
    if text in names:
        return text
    if text.isdecimal() and int(text) < len(numbered):
        return numbered[int(text)]
    raise InputError(
        "no such student in the bundle",
        where="--student",
        found=text,
        allowed=", ".join([*names, *(f"{n} for {name}" for n, name in enumerate(numbered))]),
    )


def _message_bytes(text: str) -> int:
    size = parse_bytes(text, "--largest-message")
    if size > _MOST_BYTES:
        raise InputError("--largest-message", found=text, allowed="less than 2 GiB, as in gRPC")
    return size


def _held(manifest: "Manifest", text: str, served: Sequence[str]) -> tuple[str, float]:
    student, equals, time = text.rpartition("=")
    if not equals:
        raise InputError("--at-least", found=text, allowed="STUDENT=TIME, e.g. 0=12.5ms")
    name = student_name(manifest, student)
    if name not in served:
        raise InputError("--at-least", found=name, allowed=f"of this worker: {', '.join(served)}")
    return name, parse_ms(time, "--at-least")


def _serve(running: "Worker") -> None:
    """Serve until a signal, then drain."""
    came: list[int] = []
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,))):
        signal.signal(number, lambda number, _: came.append(number))
    running.start()
    typer.echo(f"serving {', '.join(running.students)} on {running.address}")
    sys.stdout.flush()
    # The system may give a signal to another thread; Python then runs its handler in this one, but
    # does not wake it for that.
    while not came:
        time.sleep(_LOOK_S)
    running.drain()
