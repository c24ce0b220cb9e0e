"""`keys`, `deploy`, `worker`: keys of boards, the way to them, and what runs there."""

import logging
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nonn_common.errors import BoardError, InputError
from nonn_common.units import parse_bytes, parse_ms
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.options import AsJson, BoardKeys, Insecure, read_identity

if TYPE_CHECKING:
    from boards.protocol.address import Address
    from boards.tls.credential import CertificateInfo, Subject
    from boards.tls.identity import Identity
    from boards.worker.server import Worker
    from nonn_core.export.bundle import Manifest


Keys = Annotated[
    Path, typer.Argument(metavar="KEYS", help="Folder with a folder of keys for each of them.")
]


def keys_init(
    keys: Keys,
    boards: Annotated[
        list[str] | None,
        typer.Option(
            "--board",
            metavar="NAME[=ADDRESS]",
            help="A board's name, as in the plan, and its IP addresses or host names, with commas "
            "between. Repeatable.",
        ),
    ] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Also each board that this plan uses.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the keys that are missing; what exists is never replaced."""
    from boards.tls.authority import list_keys, make_keys
    from boards.tls.credential import HOST_NAME, Subject, parse_board_subject
    from nonn_plan.cli.views.board_report import show_certificates

    output = Output(as_json)
    planned, typed = {each.name: each for each in _planned_boards(plan_file)}, list[Subject]()
    for each in map(parse_board_subject, boards or ()):
        sends = each.name in planned and planned.pop(each.name).sends
        typed.append(replace(each, sends=sends))
    made = make_keys(keys, [*typed, *planned.values()])
    found = list_keys(keys)
    show_certificates(output, found)
    output.say(f"made: {', '.join(made) or 'nothing, all of it was there'}")
    output.say(
        f"copy to each board the folder with its name, and nothing else; "
        f"{keys / HOST_NAME} is for this machine's commands"
    )
    output.result({"made": made, "certificates": _certificate_documents(found)})


def keys_show(keys: Keys, as_json: AsJson = False) -> None:
    """Show what each certificate says, and until when it is valid."""
    from boards.tls.authority import list_keys
    from nonn_plan.cli.views.board_report import show_certificates

    output = Output(as_json)
    found = list_keys(keys)
    show_certificates(output, found)
    output.result(_certificate_documents(found))


def keys_renew(
    keys: Keys,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Default: those that end within 30 days."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Renew certificates for two years; their keys stay."""
    from boards.tls.authority import list_keys
    from boards.tls.renewal import renew_keys
    from nonn_plan.cli.views.board_report import show_certificates

    output = Output(as_json)
    renewed = renew_keys(keys, names or ())
    found = list_keys(keys)
    show_certificates(output, found)
    output.say(f"renewed: {', '.join(renewed) or 'nothing, all of it is valid for longer'}")
    if renewed:
        output.say("`nonn-plan deploy` brings them to their boards, and restarts the workers")
    output.result({"renewed": renewed, "certificates": _certificate_documents(found)})


def keys_revoke(
    keys: Keys,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="host, or boards.")],
    as_json: AsJson = False,
) -> None:
    """Take certificates back, for hosts and boards that get the list."""
    from boards.tls.credential import REVOKED_FILE
    from boards.tls.revocation import revoke_keys

    output = Output(as_json)
    revoked = revoke_keys(keys, names)
    output.say(f"taken back: {', '.join(revoked) or 'nothing new'}")
    output.say(f"`nonn-plan deploy` brings {REVOKED_FILE} to the boards; restart the host")
    output.result({"revoked": revoked})


key_commands = typer.Typer(
    help="Keys and certificates of host and boards.", no_args_is_help=True, rich_markup_mode=None
)
key_commands.command("init")(keys_init)
key_commands.command("show")(keys_show)
key_commands.command("renew")(keys_renew)
key_commands.command("revoke")(keys_revoke)


def _planned_boards(plan_file: Path | None) -> "Sequence[Subject]":
    """Boards that a plan uses; none without a plan."""
    if plan_file is None:
        return ()
    from boards.tls.credential import board_subject
    from nonn_plan.api import read_plan
    from planner.plan_file.plan_document import require_students

    plan = read_plan(plan_file)
    require_students(plan)
    sender = plan.group0.board if plan.group0 else ""
    return [
        replace(board_subject(name, where=str(plan_file)), sends=name == sender)
        for name in sorted(plan.decision.used)
    ]


def _certificate_documents(found: "Sequence[CertificateInfo]") -> list[dict[str, object]]:
    return [
        asdict(each)
        | {
            "valid_from": each.valid_from.isoformat(),
            "valid_until": each.valid_until.isoformat(),
        }
        for each in found
    ]


def deploy(
    plan_file: Annotated[
        Path | None, typer.Argument(metavar="PLAN", help="plan.json, as `plan` writes it.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")
    ] = None,
    boards_file: Annotated[
        Path, typer.Option("--boards", help="boards.yaml: where each board is, and its ssh.")
    ] = Path("boards.yaml"),
    keys: Annotated[
        Path, typer.Option("--keys", help="Folder of all keys, of `keys init`.")
    ] = Path("keys"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check boards, and say what would go there.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="See what each board of boards.yaml runs.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Start what each of them ran before.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="End workers, and remove all that was deployed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a plan's students to their boards over ssh, and start them there."""
    from boards.deployment.rollout import Rollout, Work, run_on_boards
    from boards.protocol.address import BoardAddresses
    from boards.tls.identity import Identity
    from nonn_plan.api import read_plan
    from nonn_plan.cli.views.board_report import show_deployment

    output = Output(as_json)
    asked = {"--dry-run": dry_run, "--status": status, "--rollback": rollback, "--remove": remove}
    if len(flags := [name for name, given in asked.items() if given]) > 1:
        raise InputError("one of these at a time", where="deploy", found=" ".join(flags))
    addresses = BoardAddresses.read(boards_file)
    rollout = Rollout(Identity.read(keys / "host"), dry_run)
    if status or rollback or remove:
        act = rollout.status if status else rollout.roll_back if rollback else rollout.remove
        work: Work = {each.name: partial(act, each) for each in addresses.boards}
    elif plan_file is None or bundle is None:
        raise InputError("which plan?", where="deploy", allowed="nonn-plan deploy plan.json bundle")
    else:
        work = rollout.of_plan(read_plan(plan_file), bundle, addresses, keys, str(boards_file))
    with output.progress("each board runs its old release or the new one, whole") as progress:
        rollout.progress = progress
        outcomes = run_on_boards(work, progress)
    output.warn(*rollout.identity.expiry_warnings(), *rollout.warnings)
    left = [each.name for each in addresses.boards if each.name not in work]
    show_deployment(output, outcomes, left)
    output.result({"boards": [each.model_dump(mode="json") for each in outcomes]})
    if failed := [each.board for each in outcomes if not each.good]:
        raise BoardError(f"{len(failed)} of {len(outcomes)} boards failed: {', '.join(failed)}")


_DAY_S = 86_400.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
"""Pauses while the clock is wrong, which double."""

log = logging.getLogger(__name__)

_MOST_BYTES = 2**31 - 1
"""The largest message that gRPC can be asked to take."""


def worker(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")],
    student: Annotated[
        list[str],
        typer.Option(
            "--student",
            metavar="STUDENT",
            help="Number or name of a student of this board, or group0. Repeatable.",
        ),
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
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of each model.")] = 1,
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
    from boards.worker.model_runtime import load_models
    from boards.worker.server import Worker, WorkerSettings
    from nonn_core.export.bundle import MANIFEST, Manifest

    logging.basicConfig(stream=sys.stderr, format="nonn-plan worker: %(message)s")
    manifest = Manifest.read(bundle / MANIFEST)
    names = [student_name(manifest, text) for text in dict.fromkeys(student)]
    address = Address.parse(listen, "--listen", free_port=True)
    identity = _identity_in_time(keys, insecure)
    if identity is None:
        _require_loopback(address)
    settings = WorkerSettings(
        listen=address,
        identity=identity,
        queue=queue,
        largest_bytes=_message_bytes(largest_message),
        at_least_ms=_least_times(manifest, at_least or (), names),
        metrics=None if metrics is None else _metrics_address(metrics),
    )
    models = load_models(bundle, names, precision=precision, engine=engine, threads=threads)
    _serve(Worker(models, settings), identity)


def _identity_in_time(keys: Path | None, insecure: bool) -> "Identity | None":
    """Keys to be used; waits while the clock says that they are not valid yet.

    A board without a battery starts with an old date, and learns the time from the network.
    """
    from boards.tls.credential import NotYetValidError

    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return read_identity(keys, insecure)
        except NotYetValidError as error:
            if pause_s < _LONGEST_PAUSE_S:
                log.warning("waiting for the right time: %s", error)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _metrics_address(text: str) -> "Address":
    """Read the address of the figures; raises InputError."""
    from boards.protocol.address import Address

    address = Address.parse(text, "--metrics", free_port=True)
    if address.zone:
        # prometheus_client passes it on without its zone, which the system refuses.
        raise InputError(
            "an address with a zone cannot serve figures",
            where="--metrics",
            found=text,
            allowed=f"[::]:{address.port}, or another address",
        )
    return address


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
    """Find a model by its name, or by its number among the students."""
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


def _least_times(
    manifest: "Manifest", texts: Sequence[str], served: Sequence[str]
) -> tuple[tuple[str, float], ...]:
    """Least time of each student that one is given for; raises InputError for two."""
    found = tuple(_minimum_ms(manifest, text, served) for text in texts)
    names = [name for name, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"given twice for {twice[0]}", where="--at-least", found=", ".join(texts))
    return found


def _minimum_ms(manifest: "Manifest", text: str, served: Sequence[str]) -> tuple[str, float]:
    student, equals, time = text.rpartition("=")
    if not equals:
        raise InputError("--at-least", found=text, allowed="STUDENT=TIME, e.g. 0=12.5ms")
    name = student_name(manifest, student)
    if name not in served:
        raise InputError("--at-least", found=name, allowed=f"of this worker: {', '.join(served)}")
    return name, parse_ms(time, "--at-least")


def _serve(running: "Worker", identity: "Identity | None") -> None:
    """Serve until a signal, then drain; warn every day of keys that end soon."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,))):
        signal.signal(number, lambda *_: None)
    # The system may give a signal to another thread: the byte wakes this one all the same.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    running.start()
    typer.echo(f"serving {', '.join(running.students)} on {running.address}")
    sys.stdout.flush()
    while True:
        for sentence in () if identity is None else identity.expiry_warnings():
            log.warning("%s", sentence)
        if select.select([reader], [], [], _DAY_S)[0]:
            return running.drain()
