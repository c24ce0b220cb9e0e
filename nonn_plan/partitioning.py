"""`partition`: from a teacher to its communities and what may be dropped.

torch is loaded inside the command, so that the others start without it.
"""

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.partition import EPSILON_PCT, RESTARTS, TOP_FILTERS, Rule
from nonn_plan.learning import UNCHANGED
from nonn_plan.options import AsJson, Seed
from nonn_plan.output import Output
from nonn_plan.partitioning_view import show_partition, show_sweep
from profiles.document import check_place
from profiles.errors import InputError

if TYPE_CHECKING:
    from nonn_core.knowledge.filter_network import LinkOptions
    from nonn_core.knowledge.partitioning import Knowledge
    from nonn_core.progress import Progress

NETWORK_SUFFIX = ".npz"
_MOST_GAMMAS = 100


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(partition)


def partition(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER",
            help="teacher.safetensors, an exported program (.pt2), package.module:callable, or a "
            "saved network (.npz).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Where to write the partition; of a range NAME-gamma0.5.json."
        ),
    ] = Path("partition.json"),
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="AH (activation hubs) or CA (co-activation); default AH."),
    ] = None,
    gamma: Annotated[
        str,
        typer.Option(
            "--gamma",
            help="Larger: fewer and larger communities (Eq. 5). A range START:STOP:STEP gives a "
            "table.",
        ),
    ] = "1",
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            help="Points of validation accuracy P0 may cost; 0 drops nothing; default "
            f"{EPSILON_PCT:g}.",
        ),
    ] = None,
    restarts: Annotated[
        int, typer.Option("--restarts", min=1, help="Community searches; the best is kept.")
    ] = RESTARTS,
    fconv: Annotated[
        str | None,
        typer.Option("--fconv", help="Layer whose output is fconv, if not the one that is found."),
    ] = None,
    top_filters: Annotated[
        int | None,
        typer.Option(
            "--top-filters",
            min=0,
            help=f"Most active filters kept per image (default {TOP_FILTERS}); 0 keeps all.",
        ),
    ] = None,
    link_percentile: Annotated[
        float, typer.Option("--link-percentile", help="Links kept lie above this percentile.")
    ] = 99.0,
    per_image_scale: Annotated[
        bool | None,
        typer.Option(help="Scale each image's activities by its largest, the default, or not."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set, if not the one of the teacher's card.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Split a teacher's fconv filters into communities, and measure what may be dropped."""
    from nonn_core.knowledge.filter_network import LinkOptions, read_filter_network
    from nonn_core.knowledge.partitioning import Knowledge
    from nonn_core.knowledge.partitioning import partition as partition_at

    output, gammas = Output(as_json), _gammas(gamma)
    files = {each: _file(out, each) if len(gammas) > 1 else out for each in gammas}
    top = TOP_FILTERS if top_filters is None else top_filters or None
    options = LinkOptions(per_image_scale is not False, top, link_percentile)
    for file in files.values():
        check_place(file)
    with output.progress(UNCHANGED) as progress:
        if source.endswith(NETWORK_SUFFIX):
            _refuse_teacher_options(
                rule=rule,
                fconv=fconv,
                data=data,
                epsilon=epsilon,
                top_filters=top_filters,
                per_image_scale=per_image_scale,
            )
            weights = read_filter_network(Path(source))
            knowledge = Knowledge.of_network(weights, link_percentile)
        else:
            knowledge = _of_teacher(
                source, fconv, data, _rule(rule or "AH"), seed, options, progress
            )
        bound = EPSILON_PCT if epsilon is None else epsilon
        found = [partition_at(knowledge, each, seed, restarts, bound, progress) for each in gammas]
    for made, _ in found:
        made.write(files[made.gamma])
    if len(gammas) == 1:
        show_partition(output, found[0][0])
        output.say(f"written to {out}")
        output.result(found[0][0].model_dump(mode="json"))
        return
    rows, names = [row for _, row in found], [str(file) for file in files.values()]
    show_sweep(output, rows, names)
    output.result([{**asdict(row), "file": name} for row, name in zip(rows, names, strict=True)])


def _of_teacher(
    source: str,
    fconv: str | None,
    data: str | None,
    rule: Rule,
    seed: int,
    options: "LinkOptions",
    progress: "Progress",
) -> "Knowledge":
    from nonn_core.knowledge.partitioning import Knowledge
    from nonn_core.teacher import teacher_and_data

    teacher, dataset = teacher_and_data(source, data, fconv, seed, progress)
    return Knowledge.of_teacher(teacher, dataset, rule, options, progress)


def _refuse_teacher_options(**options: object) -> None:
    """Raise InputError for an option that a saved network has no use for."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"--{name.replace('_', '-')} goes with a teacher, not with a saved filter network",
                found=value,
            )


def _rule(text: str) -> Rule:
    for rule in ("AH", "CA"):
        if text.upper() == rule:
            return rule
    raise InputError("rule", found=text, allowed="AH or CA")


def _gammas(text: str) -> list[float]:
    """Read `1.5`, or a range `0.5:2:0.25` that includes its end; raises InputError."""
    allowed = (
        f"a number, or START:STOP:STEP with 0 < START <= STOP, STEP > 0 and at most {_MOST_GAMMAS} "
        "values"
    )
    try:
        # Decimals, so that 0.1:0.3:0.1 has three values, and reaches 0.3.
        start, stop, step = [Decimal(part) for part in text.split(":")] * (1 if ":" in text else 3)
        count = int((stop - start) / step) + 1
        sensible = 0 < start <= stop and step > 0 and count <= _MOST_GAMMAS
    except (ArithmeticError, ValueError):
        sensible = False
    if not sensible:
        raise InputError("--gamma", found=text, allowed=allowed)
    return [float(start + k * step) for k in range(count)]


def _file(out: Path, gamma: float) -> Path:
    return out.with_name(f"{out.stem}-gamma{gamma:.15g}{out.suffix}")
