"""`host`: classifies images on the boards of a plan."""

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.identity_option import HostKeys, Insecure, identity_of
from nonn_plan.options import AsJson, PlanFile
from nonn_plan.output import Output, shown_pct
from profiles.document import check_own_place, write_atomic
from profiles.errors import BoardError, InputError
from profiles.units import parse_ms

if TYPE_CHECKING:
    from boards.host.fan_out import FanOut
    from boards.host.images import HostImage
    from boards.host.report import BoardReport, HostReport, Log, Percentiles
    from boards.protocol.frames import Values
    from nonn_core.bundle import Manifest
    from nonn_core.progress import Progress

CONNECT_S = 10.0

BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")]
BoardsFile = Annotated[
    Path, typer.Option("--boards", help="boards.yaml: name and HOST:PORT of each board.")
]
TestImages = Annotated[
    str | None,
    typer.Option("--data", help="Data set whose test images are sent, if not the bundle's."),
]
Deadline = Annotated[
    str, typer.Option("--deadline", help="An image is answered by then, with who has answered.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(host)


def host(
    plan_file: PlanFile,
    bundle: BundleFolder,
    boards_file: BoardsFile = Path("boards.yaml"),
    keys: HostKeys = None,
    insecure: Insecure = False,
    data: TestImages = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            help="Folder of pictures in place of a data set; - reads raw bytes from stdin, "
            "channel after channel, image after image.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Send only the first so many images.")
    ] = None,
    needs: Annotated[
        int | None, typer.Option("--needs", min=1, help="Answer when so many students have.")
    ] = None,
    deadline: Deadline = "5s",
    in_flight: Annotated[
        int, typer.Option("--in-flight", min=1, max=64, help="Images on their way at once.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="CSV with a line for each image.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send images to all boards, join their answers, and report accuracy and latency."""
    from boards.host.addresses import BoardAddresses
    from boards.host.fan_out import Joining
    from boards.host.report import Log
    from boards.host.session import connected
    from nonn_core.bundle import MANIFEST, Manifest
    from nonn_plan.planning import read_plan

    output = Output(as_json)
    plan = read_plan(plan_file)
    manifest = Manifest.read(bundle / MANIFEST)
    addresses = BoardAddresses.read(boards_file)
    joining = Joining(needs, parse_ms(deadline, "--deadline"), in_flight)
    if out is not None:
        check_own_place(out, b"image")
    identity = identity_of(keys, insecure)
    with (
        output.progress("nothing was written") as progress,
        connected(plan, bundle, addresses, identity, joining, str(boards_file)) as fan_out,
    ):
        source = _source(manifest, data, images, progress)
        wait_connected(output, fan_out)
        log = Log(plan.send_order, manifest.class_names)
        report = _classified(fan_out, _first(source, limit), log, len(plan.students), progress)
    if out is not None:
        write_atomic(out, log.csv().encode())
    _show(output, report)
    output.result(report.model_dump(mode="json"))
    if report.images and report.unanswered == report.images:
        raise BoardError("no board answered any image; " + "; ".join(report.reasons.values()))


def _source(
    manifest: "Manifest", data: str | None, images: str | None, progress: "Progress"
) -> "Iterable[HostImage]":
    from boards.host.images import of_data_set, of_folder, of_stream

    if images is None:
        return of_data_set(manifest, data, progress)
    if data is not None:
        raise InputError("either --data or --images", where="--images", found=images)
    if images == "-":
        return of_stream(manifest, sys.stdin.buffer)
    return of_folder(manifest, Path(images))


def wait_connected(output: Output, fan_out: "FanOut") -> None:
    """Wait for the boards; go on without those that are not there, unless it is all of them."""
    if fan_out.wait_connected(CONNECT_S):
        return
    told = "; ".join(f"{board}: {why}" for board, why in fan_out.down.items())
    if not fan_out.wires:
        raise BoardError(f"no board could be reached: {told}; start their workers")
    output.say(f"without {told}")


def _classified(
    fan_out: "FanOut",
    images: "Iterable[HostImage]",
    log: "Log",
    students: int,
    progress: "Progress",
) -> "HostReport":
    """Send all images; the log gets each answer."""
    total = len(images) if isinstance(images, list) else 0
    sent: list[HostImage] = []
    began = time.perf_counter()

    def pixels() -> "Iterator[Values]":
        for image in images:
            sent.append(image)
            yield image.pixels

    for done, answer in enumerate(fan_out.stream(pixels()), start=1):
        log.add(sent.pop(0), answer, students)
        progress("images", done, max(total, done))
    return log.report(time.perf_counter() - began, fan_out.wires)


def _first(images: "Iterable[HostImage]", limit: int | None) -> "Iterable[HostImage]":
    if isinstance(images, list):
        return images[:limit]
    return images if limit is None else islice(images, limit)


def _show(output: Output, report: "HostReport") -> None:
    output.table(
        "Images",
        ("images", "all students", "some", "none", "accuracy", "p50", "p95", "p99", "per second"),
        [
            (
                str(report.images),
                str(report.images - report.incomplete - report.unanswered),
                str(report.incomplete),
                str(report.unanswered),
                "not known" if report.accuracy_pct is None else shown_pct(report.accuracy_pct),
                *_times(report.total_ms),
                f"{report.throughput_per_s:.1f}",
            )
        ],
    )
    output.table(
        "Boards, ms from taking an image up: median and 95th percentile",
        ("board", "protocol", "answered", "sent", "computed", "replied", "p95"),
        [_board_row(board) for board in report.boards],
    )
    for student, count in report.missing.items():
        output.say(f"{student} was missing at {count} images: {report.reasons[student]}")


def _board_row(board: "BoardReport") -> tuple[str, ...]:
    sent, computed, replied = board.sent_ms, board.computed_ms, board.replied_ms
    return (
        board.board,
        board.wire or "not connected",
        str(board.answered),
        f"{sent.p50_ms:.2f}" if sent else "",
        f"{computed.p50_ms:.2f}" if computed else "",
        f"{replied.p50_ms:.2f}" if replied else "",
        f"{replied.p95_ms:.2f}" if replied else "",
    )


def _times(times: "Percentiles | None") -> tuple[str, str, str]:
    if times is None:
        return "", "", ""
    return f"{times.p50_ms:.2f} ms", f"{times.p95_ms:.2f} ms", f"{times.p99_ms:.2f} ms"
