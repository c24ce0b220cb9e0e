"""`download`, `train-teacher`, `partition`: from images to a teacher's communities.

torch is loaded inside the commands, so that the others start without it.  No other command than
`download` ever fetches anything.
"""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from nonn_common.document import check_own_place, check_place, write_atomic
from nonn_common.errors import InputError
from nonn_core.data.files import PUBLISHED
from nonn_core.evidence import partition_warnings
from nonn_core.networks.family import parse_network
from nonn_core.partition import (
    CONFIDENCE_PCT,
    EPSILON_PCT,
    RESTARTS,
    TOP_FILTERS,
    Partition,
    Rule,
    SignedMaps,
)
from nonn_core.recipe import ComputeRecipe, OptimiserRecipe
from nonn_plan.cli.output import TO_RESUME, UNCHANGED, Output, output_of_rank_zero
from nonn_plan.cli.parsers.options import (
    AsJson,
    BatchSize,
    ConfusionFiles,
    Device,
    Epochs,
    LearningRate,
    Precision,
    Seed,
)
from nonn_plan.cli.views.plan_report import show_gammas, show_partition
from nonn_plan.cli.views.training_report import show_classes

if TYPE_CHECKING:
    from nonn_common import Progress
    from nonn_core.communities.filter_network import LinkOptions
    from nonn_core.communities.knowledge import Knowledge


DATA_SETS = ", ".join(PUBLISHED)
FILES_KEPT = "files that were fetched whole are kept; run the same command again to go on"


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{DATA_SETS}.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the files; default: ./NAME."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a published data set and check it against its published checksums."""
    from nonn_core.data.download import download as fetch

    output = Output(as_json)
    if name not in PUBLISHED:
        raise InputError("not a data set that can be downloaded", found=name, allowed=DATA_SETS)
    dataset, folder = PUBLISHED[name], out or Path(name)
    with output.progress(FILES_KEPT) as progress:
        fetched = fetch(dataset, folder, progress)
    files = [folder / file.name for file in dataset.files]
    for path in files:
        output.say(f"{path}: {'fetched' if path in fetched else 'was there already'}, intact")
    source = dataset.source(folder)
    output.say(f"next: nonn-plan train-teacher --network wrn16-2 --data {source}")
    output.result(
        {
            "name": name,
            "data": source,
            "files": list(map(str, files)),
            "fetched": list(map(str, fetched)),
        }
    )


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="digits; imagefolder:PATH (folder or tar with train/, test/); idx:, cifar10: or "
        "cifar100:PATH of the published files.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        help="Each picture's largest centred square, resized to this side (bilinear); "
        "as imagefolder,size=64:PATH.",
    ),
]
Paper = Annotated[
    str | None,
    typer.Option(
        "--paper",
        help="Colour behind transparent pictures: white, beige, #f5f5dc; as "
        "imagefolder,paper=beige:PATH.  [default: white]",
    ),
]


def train_teacher(
    network: Annotated[str, typer.Option("--network", help="e.g. wrn16-2 or wrn16:32,64,128.")],
    data: Data = "digits",
    image_size: ImageSize = None,
    paper: Paper = None,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Weights; the card is the .json beside it.")
    ] = Path("teacher.safetensors"),
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    confusion: ConfusionFiles = None,
    as_json: AsJson = False,
) -> None:
    """Train a teacher; a killed run goes on when the same command is given again.

    Under `torchrun` several processes train it together, as for `train`.
    """
    from nonn_core.class_accuracy import check_confusion_file
    from nonn_core.data.dataset import load_dataset
    from nonn_core.data.sources import with_picture_options
    from nonn_core.distillation.run import train_teacher as train

    here = "nonn-plan train-teacher"
    optimiser = OptimiserRecipe.check(
        {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}, where=here
    )
    compute = ComputeRecipe.check({"device": device, "precision": precision}, where=here)
    files = confusion or []
    for file in files:
        check_confusion_file(file)
    with output_of_rank_zero():
        output = Output(as_json)
        with output.progress(TO_RESUME) as progress:
            dataset = load_dataset(with_picture_options(data, image_size, paper), progress)
            output.warn(*dataset.warnings)
            spec = parse_network(network)
            teacher = train(spec, dataset, optimiser, seed, out, progress, compute)
        card = teacher.card
        output.say(
            f"{out}: {card.network} on {card.data}, {card.validation_accuracy_pct:.2f} % of the "
            "validation images right"
        )
        show_classes(output, card.class_accuracy, "validation images", files)
        output.result(card.model_dump(mode="json"))


NETWORK_SUFFIX = ".npz"
GRAPHML_START = b"<graphml"
_MOST_GAMMAS = 100
_OTHER_FORMS = (".npy", ".pkl", ".pickle")
_SAVE_AGAIN = "save its matrix of weights: numpy.savez('network.npz', filter_network=WEIGHTS)"


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
    graphml: Annotated[
        Path | None,
        typer.Option(
            "--graphml", help="Also write the filter network for Gephi or Cytoscape, graph.graphml."
        ),
    ] = None,
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
    by_estimate: Annotated[
        bool,
        typer.Option(
            "--by-estimate",
            help="Drop by the measured delta_val alone, as the NoNN paper does, however few images "
            f"measured it; else the loss must stay below epsilon with {CONFIDENCE_PCT:g} % "
            "confidence.",
        ),
    ] = False,
    restarts: Annotated[
        int, typer.Option("--restarts", min=1, help="Community searches; the best is kept.")
    ] = RESTARTS,
    fconv: Annotated[
        str | None,
        typer.Option("--fconv", help="Layer whose output is fconv, if not the one that is found."),
    ] = None,
    signed_maps: Annotated[
        str | None,
        typer.Option(
            "--signed-maps",
            help="What stands for negative values of fconv (SiLU, GELU): relu, the default, is 0; "
            "abs is their size.",
        ),
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
        str | None,
        typer.Option(
            "--data",
            help="Data set, if not the one of the teacher's card; of unlike photos "
            "imagefolder,size=64:PATH.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Split a teacher's fconv filters into communities, and measure what may be dropped."""
    from nonn_core.communities.filter_network import LinkOptions, read_filter_network
    from nonn_core.communities.knowledge import Knowledge
    from nonn_core.communities.knowledge import partition as partition_at

    output, gammas = Output(as_json), _gammas(gamma)
    files, graphs = _files(out, gammas), {} if graphml is None else _files(graphml, gammas)
    top = TOP_FILTERS if top_filters is None else top_filters or None
    options = LinkOptions(per_image_scale is not False, top, link_percentile)
    for file in files.values():
        check_place(file)
    for file in graphs.values():
        check_own_place(file, GRAPHML_START)
    with output.progress(UNCHANGED) as progress:
        if source.lower().endswith(NETWORK_SUFFIX):
            _refuse_teacher_options(
                rule=rule,
                fconv=fconv,
                signed_maps=signed_maps,
                data=data,
                epsilon=epsilon,
                by_estimate=by_estimate or None,
                top_filters=top_filters,
                per_image_scale=per_image_scale,
            )
            weights = read_filter_network(Path(source))
            knowledge = Knowledge.of_network(weights, link_percentile)
        else:
            signed = _signed_maps(signed_maps or "relu")
            knowledge, changed = _teacher_knowledge(
                source, fconv, data, _rule(rule or "AH"), seed, options, signed, progress
            )
            output.warn(*changed)
        bound = EPSILON_PCT if epsilon is None else epsilon
        sure = None if by_estimate else CONFIDENCE_PCT
        partitions = [
            partition_at(knowledge, each, seed, restarts, bound, progress, sure) for each in gammas
        ]
    output.warn(*knowledge.warnings)
    for each, _ in partitions:
        each.write(files[each.gamma])
        if graphs:
            _write_graphml(each, knowledge, graphs[each.gamma])
    if len(gammas) == 1:
        show_partition(output, partitions[0][0])
        output.say(f"written to {out}" + (f" and {graphml}" if graphml else ""))
        output.result(partitions[0][0].model_dump(mode="json"))
        return
    rows, names = [row for _, row in partitions], [str(file) for file in files.values()]
    show_gammas(output, rows, names)
    output.warn(*dict.fromkeys(text for each, _ in partitions for text in partition_warnings(each)))
    output.result([{**asdict(row), "file": name} for row, name in zip(rows, names, strict=True)])


def _teacher_knowledge(
    source: str,
    fconv: str | None,
    data: str | None,
    rule: Rule,
    seed: int,
    options: "LinkOptions",
    signed_maps: SignedMaps,
    progress: "Progress",
) -> "tuple[Knowledge, tuple[str, ...]]":
    """Knowledge of a teacher, and what was left out or changed of its data set."""
    from nonn_core.communities.knowledge import Knowledge
    from nonn_core.teacher.teacher import REFERENCES, is_teacher, teacher_and_data

    if not is_teacher(source):
        raise InputError(
            "neither a teacher nor a filter network",
            found=source,
            allowed=f"{REFERENCES}; or a saved filter network ({NETWORK_SUFFIX})",
            fix=_SAVE_AGAIN if Path(source).suffix.lower() in _OTHER_FORMS else None,
        )
    teacher, dataset = teacher_and_data(source, data, fconv, seed, progress, signed_maps)
    return Knowledge.of_teacher(teacher, dataset, rule, options, progress), dataset.warnings


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


def _signed_maps(text: str) -> SignedMaps:
    for kind in get_args(SignedMaps):
        if text.lower() == kind:
            return cast(SignedMaps, kind)
    raise InputError("--signed-maps", found=text, allowed=" or ".join(get_args(SignedMaps)))


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


def _files(path: Path, gammas: Sequence[float]) -> dict[float, Path]:
    """File of each gamma: the one typed, or of several NAME-gamma0.5.SUFFIX."""
    if len(gammas) == 1:
        return {gammas[0]: path}
    return {each: path.with_name(f"{path.stem}-gamma{each:.15g}{path.suffix}") for each in gammas}


def _write_graphml(partition: Partition, knowledge: "Knowledge", path: Path) -> None:
    """Write filters, their communities, and all links, however many there are."""
    from networkx import generate_graphml

    graph = partition.graph(knowledge.links())
    write_atomic(path, "\n".join([*generate_graphml(graph), ""]).encode())
