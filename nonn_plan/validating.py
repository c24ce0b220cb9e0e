"""`validate`: a plan's prediction beside what its boards do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.hosting import (
    BoardsFile,
    BundleFolder,
    Deadline,
    TestImages,
    wait_connected,
)
from nonn_plan.identity_option import HostKeys, Insecure, identity_of
from nonn_plan.options import AsJson, PlanFile
from nonn_plan.output import Output
from profiles.document import check_own_place
from profiles.units import parse_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boards.host.images import HostImage
    from boards.host.inference import Answer
    from boards.validation.comparison import AccuracyComparison, Compared, Validation

WARM_UP = 20
"""Images before the first one that counts."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(validate)


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
    from boards.host.addresses import BoardAddresses
    from boards.host.fan_out import Joining
    from boards.host.images import of_data_set
    from boards.host.session import connected
    from boards.validation.comparison import Validation, compared
    from boards.validation.measured import Measured
    from boards.validation.trace import write_both
    from nonn_core.bundle import MANIFEST, Manifest
    from nonn_plan.planning import read_plan
    from simulator.perfetto import START

    output = Output(as_json)
    plan = read_plan(plan_file)
    manifest = Manifest.read(bundle / MANIFEST)
    addresses = BoardAddresses.read(boards_file)
    Validation.check_target(out)
    if trace is not None:
        check_own_place(trace, START)
    joining = Joining(deadline_ms=parse_ms(deadline, "--deadline"))
    identity = identity_of(keys, insecure)
    with (
        output.progress("nothing was written") as progress,
        connected(plan, bundle, addresses, identity, joining, str(boards_file)) as fan_out,
    ):
        images = of_data_set(manifest, data, progress)
        wait_connected(output, fan_out)
        wires = fan_out.wires
        for image in images[:WARM_UP]:
            fan_out.ask(image.pixels)
        answers = []
        for done, image in enumerate(images[:limit], start=1):
            answers.append(fan_out.ask(image.pixels))
            progress("images", done, min(limit, len(images)))
    accuracy_pct = _accuracy_pct(images, answers)
    found = compared(plan, manifest, answers, accuracy_pct, wires)
    found.write(out)
    if trace is not None:
        whole = Measured([answer for answer in answers if not answer.missing])
        write_both(plan, whole.typical, trace)
    _show(output, found)
    output.say(f"written to {out}" + (f" and {trace}" if trace else ""))
    output.result(found.model_dump(mode="json"))


def _accuracy_pct(images: "Sequence[HostImage]", answers: "Sequence[Answer]") -> float | None:
    """Return how many of the images with every student were named rightly, in percent."""
    whole = [
        image.label == answer.labels[0]
        for image, answer in zip(images, answers, strict=False)
        if not answer.missing
    ]
    return 100 * sum(whole) / len(whole) if whole else None


def _show(output: Output, found: "Validation") -> None:
    output.table(
        f"Latency in ms over {found.images} images: predicted, measured (median), error",
        ("figure", "predicted", "measured", "error"),
        [
            _row("total", found.total_ms),
            _row("compute", found.compute_ms),
            _row("communication", found.communication_ms),
            _row("95th percentile", found.p95_ms),
        ],
    )
    output.table(
        "Boards, in ms; energy of computing in mJ, measured as time at the predicted power",
        ("board", "device", "protocol", "figure", "predicted", "measured", "error"),
        [
            (board.board, board.device, board.wire, *_row(name, figure))
            for board in found.boards
            for name, figure in (
                ("computed", board.computed_ms),
                ("replied", board.replied_ms),
                ("energy", board.energy_mj),
            )
        ],
    )
    output.say(_accuracy_told(found.accuracy))
    if found.incomplete:
        output.say(f"{found.incomplete} images are left out: not every student answered")
    for line in found.advice:
        output.say(line)


def _row(name: str, figure: "Compared") -> tuple[str, str, str, str]:
    error = "" if figure.error_pct is None else f"{figure.error_pct:+.1f} %"
    return name, _ms(figure.predicted), _ms(figure.measured), error


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _accuracy_told(accuracy: "AccuracyComparison") -> str:
    def told(value: float | None) -> str:
        return "not known" if value is None else f"{value:.2f} %"

    interval = (
        f" ({accuracy.low_pct:.2f} to {accuracy.high_pct:.2f})"
        if accuracy.low_pct is not None and accuracy.high_pct is not None
        else ""
    )
    return (
        f"accuracy: predicted {told(accuracy.predicted_pct)}{interval}, exported models "
        f"{told(accuracy.exported_pct)}, on the boards {told(accuracy.measured_pct)}"
    )
