"""Measured latencies of public sources, and the layers of the networks measured.

The tables lie in `profiles/data/latencies/`, with their sources and licences in its README; a
file of a user has the same columns.  Times are those of the fastest loop, in ms for one image.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import inf, nan
from typing import NamedTuple

from nonn_common.csv_table import CsvTable
from nonn_common.errors import InputError
from profiles.layer import LayerTable, LayerWork

PlacedLine = tuple[str, Mapping[str, str]]
"""Place of a line, for messages, and its cells by column, without blank ones."""

INT8 = "_int8"
"""Ending of the name of a network that ran in int8."""

OTHER_SPELLINGS = {
    "squeezenet-int8": "squeezenet_int8",
    "mobilenet-ssd": "mobilenet_ssd",
    "mobilenet-yolo": "mobilenet_yolo",
    "squeezenet-ssd": "squeezenet_ssd",
    "mobilenet_yolov3": "mobilenetv2_yolov3",
}
"""Names of networks in the source's measurements, where its descriptions spell them otherwise."""

IMAGE_SIDES = {"blazeface": 128, "FastestDet": 352, "vision_transformer": 384}
"""Side of the image, in pixels, of networks whose description gives no shapes."""

LITTLE = 1
"""Powersave mode of ncnn in which the little cores alone compute."""

_LITTLE_CORES: tuple[tuple[str, str], ...] = (
    ("A55", r"a55|a520|a510"),
    ("A53", r"a53|qualcomm|snapdragon|kirin"),
)
_CORES: tuple[tuple[str, str], ...] = (
    ("Loongson", r"loongson"),
    ("x86", r"\b(intel|amd|celeron|atom)\b"),
    ("Phytium", r"phytium|ftc"),
    ("Sunway", r"sunway"),
    ("RISC-V", r"c910|c906|c908|spacemit|risc-?v|sifive|jh7110"),
    ("X1", r"a78|cortex-x[1-4]|\b888\b|8 gen|855|oryon|a720|a71[05]|jetson.*orin|carmel|apple"),
    ("A76", r"a76|a77|a75|kyro460|kyro475|765g|845"),
    ("A73", r"a73|kirin 9[67]0|835|660|82[01]"),
    ("A72", r"a72|rk3399"),
    ("A57", r"a57|denver"),
    ("A55", r"a55|a510|a520"),
    ("A53", r"a53|a35|qrb"),
    ("A7", r"\ba(5|7|8|9|15|17)\b|h2\+|armv7|arm11"),
)
"""Kinds of core by what a board's description says; the first that fits is the one."""


class BoardSetting(NamedTuple):
    """A board as it was measured: its description, its threads, and ncnn's powersave mode."""

    board: str
    threads: int
    powersave: int

    @property
    def processor(self) -> tuple[str, bool]:
        """Board, and whether its little cores alone compute."""
        return self.board, self.powersave == LITTLE

    @property
    def core(self) -> str:
        """Kind of core that computes; `other` where the description names none we know."""
        text = self.board.lower()
        little = _LITTLE_CORES if self.powersave == LITTLE else ()
        for name, pattern in (*little, *_CORES):
            if re.search(pattern, text):
                return name
        return "other"


class LatencyRow(NamedTuple):
    """A network on a board; `ms` is None where the row asks for a prediction."""

    setting: BoardSetting
    network: str
    ms: float | None


class RuntimeLayer(NamedTuple):
    """A layer as the runtime describes it; shapes are (width, height, channels), or unknown."""

    kind: str
    inputs: int
    in_shape: tuple[int, int, int] | None
    out_shape: tuple[int, int, int] | None
    kernel: tuple[int, int]
    stride: int
    groups: int
    int8: bool
    activation: int
    weights: int


RuntimeNetwork = tuple[RuntimeLayer, ...]
"""A network's layers in the order of execution."""


@cache
def measured_rows() -> tuple[LatencyRow, ...]:
    """Rows of ncnn's benchmark that ship with the project."""
    return latency_rows(_shipped("ncnn-benchmark.csv"))


@cache
def measured_networks() -> Mapping[str, RuntimeNetwork]:
    """Networks of these rows by name."""
    return runtime_networks(_shipped("ncnn-layers.csv"))


@cache
def measured_cells() -> Mapping[str, float]:
    """Latency of NAS-Bench-201 networks on a Raspberry Pi 4, in ms, by their operations."""
    lines = _shipped("nasbench201-raspi4.csv")
    return {cells["operations"]: float(cells["latency_ms"]) for _, cells in lines}


def latency_rows(lines: Iterable[PlacedLine]) -> tuple[LatencyRow, ...]:
    """Rows of a table with the columns of ncnn-benchmark.csv; `min_ms` may be missing.

    Raises InputError that names the line.
    """
    found = []
    for where, line in lines:
        threads, powersave = _whole(line, "threads", where), _whole(line, "powersave", where)
        if threads < 1:
            raise InputError("threads must be positive", where=where, found=threads, allowed=">= 1")
        ms = _milliseconds(line, "min_ms", where) if "min_ms" in line else None
        name = OTHER_SPELLINGS.get(line["network"], line["network"])
        found.append(LatencyRow(BoardSetting(line["board"], threads, powersave), name, ms))
    return tuple(found)


def runtime_networks(lines: Iterable[PlacedLine]) -> dict[str, RuntimeNetwork]:
    """Networks of a table with the columns of ncnn-layers.csv, by name.

    Shapes that a description leaves out are inferred (`with_shapes`).  Raises InputError that
    names the line.
    """
    layers: dict[str, list[RuntimeLayer]] = {}
    for where, line in lines:
        layers.setdefault(line["network"], []).append(_layer(line, where))
    return {
        name: with_shapes(network, IMAGE_SIDES[name]) if name in IMAGE_SIDES else tuple(network)
        for name, network in layers.items()
    }


def placed_lines(table: CsvTable, *needed: str) -> tuple[PlacedLine, ...]:
    """Lines of a user's `table`, each with its place.

    Raises InputError for a column or a cell that is `needed` and not there.
    """
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(
            "columns are missing",
            where=table.place,
            found=", ".join(filter(None, table.columns)) or "nothing",
            allowed=f"a header with {', '.join(needed)}",
        )
    lines = tuple((f"{table.place} line {row.line}", row.cells) for row in table.rows())
    for where, cells in lines:
        for name in needed:
            if name not in cells:
                raise InputError(f"{name} is missing", where=where, allowed="a value in each row")
    return lines


def with_shapes(layers: Sequence[RuntimeLayer], image_side: int) -> RuntimeNetwork:
    """Layers with shapes inferred from their order, for an image of `image_side` pixels.

    The description says how many inputs a layer has, not which.  A layer reads what the one
    before it wrote; but the second layer with a stride after a `Split`, and before branches join
    again, begins a branch anew at the size of the split.  A pooling before an `Interp` brings an
    earlier, larger map to the size that the `Interp` reaches.  A convolution of stride 32 makes
    the tokens of a vision transformer, whose `Gemm`s have four times its width between them (as
    in Dosovitskiy et al., ICLR 2021).
    """
    walk = _ShapeWalk(image_side, image_side, 3)
    found = []
    for place, layer in enumerate(layers):
        following = layers[place + 1].kind if place + 1 < len(layers) else ""
        before = layers[place - 1].kind if place else ""
        found.append(walk.pass_through(layer, before, following))
    return tuple(found)


@dataclass
class _ShapeWalk:
    """Shapes of the last layer's output and of the last split's."""

    width: int
    height: int
    channels: int
    token_width: int = 0
    branch: tuple[int, int] | None = None
    strided: bool = False

    def pass_through(self, layer: RuntimeLayer, before: str, following: str) -> RuntimeLayer:
        """The layer with its shapes; `before` and `following` are kinds of its neighbours."""
        if layer.kind in ("Input", "MemoryData"):
            return layer
        read = (self.width, self.height, self.channels)
        doubled = (layer.kind, following) == ("Pooling", "Interp") or (
            layer.kind == "Interp" and before != "Pooling"
        )
        if doubled:
            self.width, self.height = 2 * self.width, 2 * self.height
        elif layer.kind in ("Convolution", "ConvolutionDepthWise", "Pooling"):
            read = self._window(layer)
        else:
            self._other(layer)
        return layer._replace(in_shape=read, out_shape=(self.width, self.height, self.channels))

    def _window(self, layer: RuntimeLayer) -> tuple[int, int, int]:
        """Shape that a convolution or a pooling reads."""
        side = (self.width, self.height)
        if layer.stride > 1:
            side = self.branch if self.strided and self.branch else side
            self.strided = self.branch is not None
        read = self.channels
        self.width, self.height = (-(-length // max(layer.stride, 1)) for length in side)
        if layer.kind == "ConvolutionDepthWise":
            read = self.channels = layer.groups
        elif layer.kind == "Convolution":
            taps = max(layer.kernel[0] * layer.kernel[1] * read, 1)
            self.channels = max(layer.weights // taps, 1)
            self.token_width = self.channels if layer.stride == _PATCH else self.token_width
        return (*side, read)

    def _other(self, layer: RuntimeLayer) -> None:
        if layer.kind == "Split":
            self.branch, self.strided = (self.width, self.height), False
        elif layer.kind == "Concat" and self.token_width == self.channels:
            tokens = self.width * self.height + 1
            self.width, self.height, self.channels = self.token_width, tokens, 1
        elif layer.kind == "Concat":
            self.channels, self.branch, self.strided = self.channels * layer.inputs, None, False
        elif layer.kind == "Slice":
            self.channels //= 2
        elif layer.kind == "Gemm":
            inner = 4 * self.token_width
            self.width = inner if self.width == self.token_width else self.token_width


_PATCH = 32
"""Stride of the convolution that makes tokens."""


def student_network(table: LayerTable, int8: bool = False) -> RuntimeNetwork:
    """Layers of our own model as the runtime sees them, norms folded away."""
    return tuple(_runtime_layer(layer, int8) for layer in table if layer.kind != "norm")


def _runtime_layer(layer: LayerWork, int8: bool) -> RuntimeLayer:
    kind = {"conv": "Convolution", "pool": "Pooling", "fc": "InnerProduct"}[layer.kind]
    if kind == "Convolution" and layer.groups > 1:
        kind = "ConvolutionDepthWise"
    return RuntimeLayer(
        kind=kind,
        inputs=1,
        in_shape=(layer.in_width, layer.in_height, layer.in_channels),
        out_shape=(layer.out_channels, 1, 1)
        if kind == "InnerProduct"
        else (layer.out_width, layer.out_height, layer.out_channels),
        kernel=(layer.kernel, layer.kernel),
        stride=layer.stride,
        groups=layer.groups,
        int8=int8,
        activation=0,
        weights=layer.weights,
    )


def _layer(line: Mapping[str, str], where: str) -> RuntimeLayer:
    return RuntimeLayer(
        kind=line["kind"],
        inputs=_whole(line, "inputs", where),
        in_shape=_shape(line, "in", where),
        out_shape=_shape(line, "out", where),
        kernel=(_whole(line, "kernel_w", where), _whole(line, "kernel_h", where)),
        stride=_whole(line, "stride_w", where),
        groups=_whole(line, "groups", where),
        int8=_whole(line, "int8", where) != 0,
        activation=_whole(line, "activation", where),
        weights=_whole(line, "weights", where),
    )


def _shape(line: Mapping[str, str], side: str, where: str) -> tuple[int, int, int] | None:
    if not line.get(f"{side}_w"):
        return None
    width, height, channels = (_whole(line, f"{side}_{axis}", where) for axis in "whc")
    return width, max(height, 1), max(channels, 1)


def _whole(line: Mapping[str, str], name: str, where: str) -> int:
    text = line.get(name) or "0"
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"{name} is no whole number", where=where, found=text, allowed="such as 4"
        ) from None


def _milliseconds(line: Mapping[str, str], name: str, where: str) -> float:
    try:
        found = float(line[name])
    except ValueError:
        found = nan
    if not 0 < found < inf:
        raise InputError(
            f"{name} is no latency", where=where, found=line[name], allowed="a number > 0, in ms"
        )
    return found


def _shipped(name: str) -> Iterator[PlacedLine]:
    file = files("profiles") / "data" / "latencies" / f"{name}.gz"
    text = gzip.decompress(file.read_bytes()).decode("utf-8")
    for line in csv.DictReader(io.StringIO(text)):
        yield name, {column: cell for column, cell in line.items() if cell}
