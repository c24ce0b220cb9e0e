"""The benchmark of single layers: one convolution, from models of one and several.

The difference between the two models is convolutions alone, each with the normalisation that is
folded into it and its activation, without what an answer costs besides.  The layer fit of
`profiles` makes a layer model of them.

Where the sum over a student's layers, and what is left of its time, predicts students that were
held out clearly better than their MACs do, the model knows all kinds of layers, and simulations go
by it; otherwise it knows convolutions only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boards.profiling.benchmark_model import GeneratedModel, random_pixels, write_generated_bundle
from boards.profiling.onnx_builder import chain_model
from boards.profiling.stopwatch import Stopwatch, TimedTask
from boards.profiling.student_benchmark import StudentTime
from boards.worker.model_runtime import LoadedModel, load_models
from boards.worker.student_pool import StudentPool
from nonn_common import Progress, silent
from nonn_core.export.bundle import ModelPrecision
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from profiles import Quantity
from profiles.fitting import fit_layers, relative_fit
from profiles.layer import KindCost, LayerModel, LayerTable, LayerWork, layer_ms

CHAIN_LENGTH = 9
"""Convolutions of the longer model."""

_SHAPES = ((8, 16), (16, 32), (32, 16), (64, 8), (32, 32), (64, 16), (128, 8), (64, 4), (128, 2))
"""Channels and side of maps, as in students for images of 32 x 32 and of 8 x 8."""
_DEPTHWISE = ((32, 32), (64, 16), (96, 8), (192, 4))
_LEAST_MS = 1e-6

MAX_ERROR_RATIO = 0.75
"""Layers must at least do with this share of the MACs' error, as plans go by MACs."""


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Convolutions, and what each took, in ms."""

    rows: tuple[tuple[LayerWork, float], ...]


def benchmark_layers() -> tuple[LayerWork, ...]:
    """Return the convolutions that are measured."""
    return (
        *(_convolution(channels, side, 3, 1) for channels, side in _SHAPES),
        *(_convolution(channels, side, 1, 1) for channels, side in _SHAPES),
        *(_convolution(channels, side, 3, channels) for channels, side in _DEPTHWISE),
    )


def measure_layers(
    folder: Path,
    layers: Sequence[LayerWork],
    precision: ModelPrecision,
    threads: int,
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> LayerTimes:
    """Time these convolutions; their models are written to `folder`."""
    made = [_chain(layer, count) for layer in layers for count in (1, CHAIN_LENGTH)]
    write_generated_bundle(folder, made, precision, progress)
    models = load_models(folder, [each.name for each in made], precision=precision, threads=threads)
    timed = watch.timed("layers", _model_tasks(models), seconds, progress)
    rows = []
    for layer in layers:
        longer, shorter = (timed[_name(layer, count)].ms for count in (CHAIN_LENGTH, 1))
        rows.append((layer, max(_LEAST_MS, (longer - shorter) / (CHAIN_LENGTH - 1))))
    return LayerTimes(tuple(rows))


def layer_model(
    times: LayerTimes,
    precision: ModelPrecision,
    students: Sequence[StudentTime],
    by_macs_pct: float | None,
) -> LayerModel:
    """Layer model of convolutions; of all kinds of layers where that predicts students better.

    `by_macs_pct` is the mean error of the MACs' model on students held out; None where none were.
    """
    convolutions = fit_layers(times.rows, precision, "convolutions in a row")
    if by_macs_pct is None or not all(_knows(convolutions, _table(row)) for row in students):
        return convolutions
    whole = _with_the_rest(convolutions, precision, students)
    error_pct = held_out_error_pct(whole, precision, students)
    better = error_pct is not None and error_pct < MAX_ERROR_RATIO * by_macs_pct
    return whole if better else convolutions


def held_out_error_pct(
    model: LayerModel, precision: ModelPrecision, students: Sequence[StudentTime]
) -> float | None:
    """Mean absolute error of the sum over layers, on students held out.

    None where there are none, or where the model does not know all of their layers.
    """
    errors = []
    for row in students:
        if row.student.held_out:
            times = [layer_ms(model, layer, precision) for layer in _table(row)]
            known = [ms for ms in times if ms is not None]
            if len(known) < len(times):
                return None
            errors.append(100 * abs(sum(known) / row.timing.ms - 1))
    return sum(errors) / len(errors) if errors else None


def _with_the_rest(
    model: LayerModel, precision: ModelPrecision, students: Sequence[StudentTime]
) -> LayerModel:
    """Add normalisations, which are folded, and pooling, which takes the remaining time.

    Each student ends with one pooling; what any answer costs is in its fixed time.
    """
    fitted = [row for row in students if not row.student.held_out]
    tables = [_table(row) for row in fitted]
    fit = relative_fit(
        {"fixed_ms": [float(sum(each.kind == "pool" for each in table)) for table in tables]},
        [row.timing.ms for row in fitted],
        known=[
            sum(layer_ms(model, layer, precision) or 0.0 for layer in table) for table in tables
        ],
    )
    rest = fit.quantity("fixed_ms", f"the rest of the time of {len(fitted)} students")
    return model.model_copy(
        update={
            "kinds": (
                *model.kinds,
                KindCost(kind="norm", kernels=("pointwise",), layers=len(fitted), terms={}),
                KindCost(
                    kind="pool",
                    kernels=("pointwise", "spatial"),
                    layers=len(fitted),
                    terms={"fixed_ms": _measured(rest)},
                ),
            ),
            "residual_pct": max(model.residual_pct, fit.residual_pct),
        }
    )


def _measured(figure: Quantity) -> Quantity:
    return figure.model_copy(update={"provenance": "measured"})


def _knows(model: LayerModel, table: LayerTable) -> bool:
    """Whether the model knows each convolution."""
    return all(
        layer_ms(model, layer, "fp32") is not None for layer in table if layer.kind == "conv"
    )


def _table(row: StudentTime) -> LayerTable:
    student = row.student
    return student_table(parse_network(student.network), student.image, student.filters)


def _convolution(channels: int, side: int, kernel: int, groups: int) -> LayerWork:
    weights = channels // groups * channels * kernel**2
    return LayerWork(
        name=f"conv-{channels}x{side}x{side}-k{kernel}-g{groups}",
        kind="conv",
        macs=weights * side**2,
        weights=weights,
        in_channels=channels,
        in_height=side,
        in_width=side,
        out_channels=channels,
        out_height=side,
        out_width=side,
        kernel=kernel,
        groups=groups,
    )


def _chain(layer: LayerWork, count: int) -> GeneratedModel:
    image = ImageShape(layer.in_channels, layer.in_height, layer.in_width)
    return GeneratedModel(_name(layer, count), chain_model(layer, count), image, layer.out_channels)


def _name(layer: LayerWork, count: int) -> str:
    return f"{layer.name}-{count}"


def _model_tasks(models: Sequence[LoadedModel]) -> dict[str, TimedTask]:
    """Make a timed task of each model, which computes once as the worker does."""
    pool = StudentPool(models)

    def once(model: LoadedModel) -> TimedTask:
        pixels = random_pixels(1, ImageShape(*model.reads.shape))
        return lambda: pool.answer([model.name], pixels).computed_ns / 1e6

    return {model.name: once(model) for model in models}
