"""`host`, `validate`, `emulate`: a plan on its boards, or on boards that this machine emulates."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.document import check_own_place, write_atomic
from nonn_common.errors import BoardError, InputError, StoppedError
from nonn_common.units import parse_ms
from nonn_plan.api import read_plan
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.options import (
    AsJson,
    ConfusionFiles,
    HostKeys,
    Insecure,
    PlanFile,
    Seed,
    read_identity,
)
from nonn_plan.cli.views.board_report import show_emulated_fleet, show_host_report, show_validation
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from simulator.graph_builder import join_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boards.emulation.emulated_fleet import EmulatedFleet
    from boards.host.client import InferenceClient
    from boards.host.host_report import AnswerLog, HostReport
    from boards.host.inference import Answer
    from boards.host.session import FollowedPlan, HostImage, HostImages
    from boards.protocol.frames import Values
    from nonn_common import Progress
    from nonn_core.export.bundle import Manifest


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
    confusion: ConfusionFiles = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go by PLAN and the boards' file as they change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send images to all boards, join their answers, and report accuracy and latency."""
    from boards.host.client import QuorumPolicy
    from boards.host.connection import separate_copies, working_boards
    from boards.host.host_report import AnswerLog
    from boards.host.session import following, open_client
    from boards.protocol.address import BoardAddresses
    from nonn_core.class_accuracy import check_confusion_file
    from nonn_core.export.bundle import MANIFEST, Manifest
    from nonn_plan.cli.views.training_report import show_classes

    output, files = Output(as_json), confusion or []
    manifest = Manifest.read(bundle / MANIFEST)
    joining = QuorumPolicy(needs, parse_ms(deadline, "--deadline"), in_flight)
    if out is not None:
        check_own_place(out, b"image")
    for file in files:
        check_confusion_file(file)
    identity = read_identity(keys, insecure)
    output.warn(*(() if identity is None else identity.expiry_warnings()))

    def opened() -> "tuple[PlanDocument, InferenceClient]":
        plan, addresses = read_plan(plan_file), BoardAddresses.read(boards_file)
        return plan, open_client(plan, bundle, addresses, identity, joining, str(boards_file))

    plans: list[str] = []

    def tell(sentence: str, refused: bool) -> None:
        plans.append(sentence)
        (output.warn if refused else output.say)(sentence)

    with (
        output.progress("nothing was written") as progress,
        following(opened, [plan_file, boards_file] if follow else [], tell) as followed,
    ):
        source = _images_to_send(manifest, data, images, progress)
        wait_connected(output, followed.client)
        log = AnswerLog(working_boards(followed.plan), manifest.class_names)
        report = _classify(followed, _first(source.images, limit), log, progress)
    report = report.model_copy(update={"plans": tuple(plans)})
    output.warn(*separate_copies(followed.plan, manifest), *source.warnings())
    if out is not None:
        write_atomic(out, log.csv().encode())
    show_host_report(output, report)
    if report.unanswered:
        output.warn(
            f"{report.unanswered} of {report.images} images were answered by no student within "
            f"{deadline}; they are in none of the times above"
        )
    show_classes(output, report.class_accuracy, "images", files, all_sent=limit is None)
    if out is not None:
        output.say(f"written to {out}")
    output.result(report.model_dump(mode="json"))
    if report.images and report.unanswered == report.images:
        pairs = (why.partition(": ")[::2] for why in report.reasons.values())
        raise BoardError(f"no board answered any image; {_by_reason(pairs)}")


def _images_to_send(
    manifest: "Manifest", data: str | None, images: str | None, progress: "Progress"
) -> "HostImages":
    from boards.host.session import HostImages, data_set_images, folder_images, stream_images

    if images is None:
        return data_set_images(manifest, data, progress)
    if data is not None:
        raise InputError("either --data or --images", where="--images", found=images)
    if images == "-":
        return HostImages(stream_images(manifest, sys.stdin.buffer))
    return folder_images(manifest, Path(images))


def wait_connected(output: Output, client: "InferenceClient") -> None:
    """Wait for the boards, and go on without those that are absent.

    Boards whose frames cannot be reached are named.  Raises BoardError where all are absent.
    """
    everybody = client.wait_connected(CONNECT_S)
    if client.fallbacks:
        output.warn(
            f"{_by_reason(client.fallbacks.items())}: the port of frames cannot be reached, and "
            "answers are slower; forward or open that port as it is numbered there, too"
        )
    if everybody:
        return
    reasons = _by_reason(client.down.items())
    if not client.protocols:
        # A worker that shows a certificate runs.
        silent = any("certificate" not in why.lower() for why in client.down.values())
        advice = "; start their workers" if silent else ""
        raise BoardError(f"no board could be reached: {reasons}{advice}")
    output.warn(f"without {reasons}")


def _by_reason(reasons: "Iterable[tuple[str, str]]") -> str:
    """Boards and why they are missing; boards with one reason together."""
    boards: dict[str, list[str]] = {}
    for board, why in reasons:
        if board not in boards.setdefault(why, []):
            boards[why].append(board)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in boards.items())


def _classify(
    followed: "FollowedPlan",
    images: "Iterable[HostImage]",
    log: "AnswerLog",
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

    for done, answer in enumerate(followed.stream(pixels()), start=1):
        log.add(sent.pop(0), answer, len(followed.plan.students))
        progress("images", done, max(total, done))
    return log.report(time.perf_counter() - began, followed.client.protocols)


def _first(images: "Iterable[HostImage]", limit: int | None) -> "Iterable[HostImage]":
    if isinstance(images, list):
        return images[:limit]
    return images if limit is None else islice(images, limit)


WARM_UP = 20
"""Images before the first one that counts."""


def validate(
    plan_file: PlanFile,
    bundle: BundleFolder,
    boards_file: BoardsFile = Path("boards.yaml"),
    keys: HostKeys = None,
    insecure: Insecure = False,
    data: TestImages = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Images that are sent, one at a time.")
    ] = 200,
    deadline: Deadline = "5s",
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the comparison.")
    ] = Path("validation.json"),
    trace: Annotated[
        Path | None,
        typer.Option("--trace", help="Trace of one real inference beside the simulated one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency and accuracy on the boards, beside what the plan predicted."""
    from boards.board_validation import (
        AnswerTimes,
        Validation,
        compare_with_plan,
        write_comparison_trace,
    )
    from boards.host.client import QuorumPolicy
    from boards.host.connection import separate_copies
    from boards.host.session import data_set_images, open_client
    from boards.protocol.address import BoardAddresses
    from nonn_core.export.bundle import MANIFEST, Manifest
    from nonn_plan.api import read_plan
    from simulator.results.perfetto import START

    output = Output(as_json)
    plan = read_plan(plan_file)
    manifest = Manifest.read(bundle / MANIFEST)
    addresses = BoardAddresses.read(boards_file)
    Validation.check_target(out)
    if trace is not None:
        check_own_place(trace, START)
    policy = QuorumPolicy(deadline_ms=parse_ms(deadline, "--deadline"))
    identity = read_identity(keys, insecure)
    output.warn(*(() if identity is None else identity.expiry_warnings()))
    with (
        output.progress("nothing was written") as progress,
        closing(open_client(plan, bundle, addresses, identity, policy, str(boards_file))) as client,
    ):
        source = data_set_images(manifest, data, progress)
        images = list(source.images)
        wait_connected(output, client)
        protocols = client.protocols
        for image in images[:WARM_UP]:
            client.ask(image.pixels)
        answers = []
        for done, image in enumerate(images[:limit], start=1):
            answers.append(client.ask(image.pixels))
            progress("images", done, min(limit, len(images)))
    output.warn(*separate_copies(plan, manifest), *source.warnings())
    accuracy_pct = _accuracy_pct(images, answers)
    comparison = compare_with_plan(plan, manifest, answers, accuracy_pct, protocols)
    comparison.write(out)
    if trace is not None:
        complete = AnswerTimes([answer for answer in answers if not answer.missing])
        write_comparison_trace(plan, complete.typical, trace)
    show_validation(output, comparison)
    output.say(f"written to {out}" + (f" and {trace}" if trace else ""))
    output.result(comparison.model_dump(mode="json"))


def _accuracy_pct(images: "Sequence[HostImage]", answers: "Sequence[Answer]") -> float | None:
    """Accuracy over the images that every student answered, in percent."""
    whole = [
        image.label == answer.labels[0]
        for image, answer in zip(images, answers, strict=False)
        if not answer.missing
    ]
    return 100 * sum(whole) / len(whole) if whole else None


POLL_S = 0.5
"""How often it is looked whether all workers live."""


def emulate(
    plan_file: PlanFile,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")],
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Folder of `keys init`; default: keys for this time alone."),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Where the boards are, for `host`.")
    ] = Path("emulated.yaml"),
    own_message: Annotated[
        str,
        typer.Option(
            "--own-message", help="What a message costs here anyway; only what is more is added."
        ),
    ] = "1ms",
    loopback: Annotated[
        bool, typer.Option("--loopback", help="Without namespaces and tc, even where they work.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run a plan's fleet on this machine, a worker for each board, until Ctrl-C."""
    from boards.emulation.emulated_fleet import emulated
    from boards.emulation.namespace import LOOPBACK_ONLY
    from boards.host.connection import separate_copies
    from boards.protocol.address import BoardAddresses
    from nonn_core.export.bundle import MANIFEST, Manifest

    output = Output(as_json)
    plan = read_plan(plan_file)
    output.warn(*separate_copies(plan, Manifest.read(bundle / MANIFEST)))
    BoardAddresses.check_target(out)
    own_message_ms = parse_ms(own_message, "--own-message")
    with (
        emulated(
            plan,
            bundle,
            keys,
            capabilities=LOOPBACK_ONLY if loopback else None,
            own_message_ms=own_message_ms,
            seed=seed,
        ) as fleet,
        # Once it serves, a stop is how it ends.
        suppress(StoppedError),
    ):
        fleet.addresses.write(out)
        expected_ms = _expected_ms(plan)
        show_emulated_fleet(output, fleet, expected_ms)
        output.say(
            f"next: nonn-plan host {plan_file} {bundle} --boards {out} "
            f"--keys {fleet.keys / 'host'}; Ctrl-C ends the fleet"
        )
        output.result(
            {
                **fleet.addresses.model_dump(mode="json"),
                "keys": str(fleet.keys / "host"),
                "expected_ms": expected_ms,
                "emulated": fleet.methods,
                "not_emulated": fleet.limitations,
            }
        )
        sys.stdout.flush()
        _watch(output, fleet)
    output.say("the fleet has ended")


def _expected_ms(plan: PlanDocument) -> float:
    """Closed-form time from an image to the last reply, without the host's join."""
    from simulator.workloads.closed_form import fan_out_breakdown as closed_form

    workload = plan_workload(plan)
    return closed_form(workload).total_ms - join_ms(workload.host)


def _watch(output: Output, fleet: "EmulatedFleet") -> None:
    """Watch the workers until Ctrl-C, and report each end once."""
    gone: set[str] = set()
    while True:
        time.sleep(POLL_S)
        for board, worker in fleet.workers.items():
            if board not in gone and not worker.running:
                gone.add(board)
                output.say(f"the worker of {board} has ended")
        if fleet.relay is not None and not fleet.relay.running and "relay" not in gone:
            gone.add("relay")
            output.say("the relay has ended: no board can be reached; start the fleet again")
