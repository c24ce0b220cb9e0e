"""C library of a student: its header, calls of the kernels, and constants.

Requantisation is in fixed point: each scale becomes a whole multiplier of up to 31 bits beside a
shift of its layer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import ExportError
from nonn_core.firmware.arena import Arena, lay_out
from nonn_core.firmware.int8_network import (
    LEVELS,
    Int8Add,
    Int8Average,
    Int8Conv,
    Int8Layer,
    Int8Map,
    Int8MaxPool,
    Int8Network,
)

KERNELS = "nonn_kernels"
LARGEST_WORD = 2**31 - 1
MOST_FRACTION_BITS, FEWEST_FRACTION_BITS = 20, 12
"""Bits behind the point in norms and sums: as many as the layer's factors leave."""
_WORD_BITS, _RAISED_BITS = 32, 9
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CLibrary:
    """Header and source of one student, bytes of its constants, and where its maps are."""

    prefix: str
    header: str
    source: str
    constant_bytes: int
    arena: Arena


def kernel_files() -> dict[str, str]:
    """Kernels that all libraries share, by file name."""
    folder = files("nonn_core.firmware")
    return {
        f"{KERNELS}{suffix}": (folder / f"kernels{suffix}").read_text() for suffix in (".h", ".c")
    }


def identifier_of(name: str) -> str:
    """Prefix of a student's names in C."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[0].isalpha() else f"student_{plain}"


def c_library(network: Int8Network, name: str) -> CLibrary:
    """Library of a network that is int8 throughout.

    Raises ExportError where a scale is too large for fixed point.
    """
    arena = lay_out(network)
    text = _LibraryText(network, arena, identifier_of(name), name)
    return text.library()


class _LibraryText:
    """Text of a library, layer by layer."""

    def __init__(self, network: Int8Network, arena: Arena, prefix: str, name: str) -> None:
        self._network, self._arena, self._prefix, self._name = network, arena, prefix, name
        self._constants: list[str] = []
        self._calls: list[str] = []
        self._constant_bytes = 0

    def library(self) -> CLibrary:
        network, prefix = self._network, self._prefix
        self._constant("uint8_t", "table", network.table.ravel())
        image = network.maps[network.image]
        self._calls.append(
            f"nonn_image({self._place(network.image)}, {image.height * image.width}, "
            f"{image.channels}, {prefix}_table);"
        )
        for step, layer in enumerate(self._arena.layers):
            self._layer(step, layer)
        source = "\n".join(
            (
                f'#include "{prefix}.h"',
                "",
                f'#include "{KERNELS}.h"',
                "",
                *self._constants,
                "",
                f"uint8_t *{prefix}_init(void *memory) {{",
                f"  return (uint8_t *)memory + {self._arena.offsets[network.image]};",
                "}",
                "",
                f"const uint8_t *{prefix}_run(void *memory) {{",
                "  uint8_t *arena = memory;",
                *(f"  {call}" for call in self._calls),
                f"  return {self._place(network.features)};",
                "}",
                "",
            )
        )
        return CLibrary(prefix, self._header(), source, self._constant_bytes, self._arena)

    def _header(self) -> str:
        network, upper, arena = self._network, self._prefix.upper(), self._arena
        image, features = network.maps[network.image], network.maps[network.features]
        sizes = {
            "HEIGHT": image.height,
            "WIDTH": image.width,
            "CHANNELS": image.channels,
            "FEATURES": features.channels,
            "ARENA_BYTES": arena.maps_bytes,
            "MEMORY_BYTES": arena.maps_bytes + arena.columns_bytes,
            "FEATURE_ZERO": features.zero,
        }
        return "\n".join(
            (
                f"/* {self._name.replace('*/', '* /')}: a student, int8 throughout.",
                " *",
                f" *   uint8_t *image = {self._prefix}_init(memory);",
                " *   ... write the image there, again before each run ...",
                f" *   const uint8_t *features = {self._prefix}_run(memory);",
                " *",
                f" * `memory`: {upper}_MEMORY_BYTES bytes of RAM, free for other use between runs.",
                " * The image: pixels of 0 to 255, height x width x channels, channels innermost.",
                f" * A feature f stands for {upper}_FEATURE_SCALE * (f - {upper}_FEATURE_ZERO).",
                " */",
                f"#ifndef {upper}_H",
                f"#define {upper}_H",
                "",
                "#include <stdint.h>",
                "",
                *(f"#define {upper}_{name} {size}" for name, size in sizes.items()),
                f"#define {upper}_FEATURE_SCALE {_float(features.scale)}",
                "",
                f"uint8_t *{self._prefix}_init(void *memory);",
                f"const uint8_t *{self._prefix}_run(void *memory);",
                "",
                "#endif",
                "",
            )
        )

    def _layer(self, step: int, layer: Int8Layer) -> None:
        read, written = self._network.maps[layer.reads[0]], self._network.maps[layer.writes]
        match layer:
            case Int8Conv() if layer.depthwise and layer.kernel == layer.stride == 1:
                self._norm(step, layer, read, written)
            case Int8Conv():
                self._convolution(step, layer, read, written)
            case Int8Add():
                self._addition(step, layer, written)
            case Int8MaxPool():
                fields = (*_sides(read), read.channels, *_sides(written))
                window = (layer.kernel, layer.stride, layer.pad)
                self._struct(step, "pool", (*fields, *window, 0, 0, 0, 0))
                self._call("max_pool", step, layer)
            case Int8Average():
                scale = read.scale / (written.scale * np.float32(read.height * read.width))
                (multiplier,), shift = self._multipliers(layer, np.array([scale / LEVELS]))
                area = read.height * read.width
                sizes = (*_sides(read), read.channels, 1, 1, 0, 0, 0, shift)
                sums = (-area * read.zero, multiplier, _offset(written, shift))
                self._struct(step, "pool", (*sizes, *sums))
                self._call("global_average", step, layer)

    def _convolution(self, step: int, layer: Int8Conv, read: Int8Map, written: Int8Map) -> None:
        weights = layer.weights
        sums = layer.biases - read.zero * weights.sum(axis=(1, 2, 3), dtype=np.int64)
        multipliers, shift = self._multipliers(layer, layer.scales)
        rows = _paired(weights) if not layer.depthwise else weights[:, 0].transpose(1, 2, 0).ravel()
        self._constant("int8_t", f"weights{step}", rows)
        self._constant("int32_t", f"sums{step}", sums)
        self._constant("int32_t", f"multipliers{step}", multipliers)
        fields = (*_sides(read), read.channels, *_sides(written), written.channels)
        window = (layer.kernel, layer.stride, layer.pad, read.zero, shift, _offset(written, shift))
        names = (f"{self._prefix}_{each}{step}" for each in ("weights", "sums", "multipliers"))
        self._struct(step, "conv", (*fields, *window, *names))
        columns = "" if layer.depthwise else f", arena + {self._arena.scratch[step]}"
        self._call("depthwise" if layer.depthwise else "convolution", step, layer, columns)

    def _norm(self, step: int, layer: Int8Conv, read: Int8Map, written: Int8Map) -> None:
        factors = layer.scales.astype(np.float64) * layer.weights.ravel()
        sums = layer.scales.astype(np.float64) * layer.biases - read.zero * factors
        shift, *words = self._affine(layer, factors, sums + written.zero + 0.5)
        self._constant("int32_t", f"factors{step}", words[0])
        self._constant("int32_t", f"sums{step}", words[1])
        names = (f"{self._prefix}_{each}{step}" for each in ("factors", "sums"))
        self._struct(step, "norm", (read.height * read.width, read.channels, shift, *names))
        self._call("normalisation", step, layer)

    def _addition(self, step: int, layer: Int8Add, written: Int8Map) -> None:
        reads = [self._network.maps[name] for name in layer.reads]
        factors = np.array([read.scale / written.scale for read in reads], np.float64)
        rest = written.zero + 0.5 - factors @ [read.zero for read in reads]
        shift, words, (offset,) = self._affine(layer, factors, np.array([rest]))
        self._struct(step, "add", (written.elements, shift, *words, offset))
        second = f", {self._place(layer.reads[1])}"
        places = f"{self._place(layer.reads[0])}{second}, {self._place(layer.writes)}"
        self._calls.append(f"nonn_addition(&{self._prefix}_layer{step}, {places});")

    def _affine(
        self, layer: Int8Layer, factors: NDArray[np.float64], sums: NDArray[np.float64]
    ) -> tuple[int, Whole, Whole]:
        """Fixed point for values times factors, plus sums: its shift, and both as whole numbers.

        Two terms and a sum stay within a word.
        """
        reach = float(max(2 * LEVELS * np.abs(factors).max(), 2 * np.abs(sums).max()))
        shift = min(MOST_FRACTION_BITS, _WORD_BITS - 2 - int(np.ceil(np.log2(max(reach, 1)))))
        if shift < FEWEST_FRACTION_BITS:
            raise self._refusal(layer, reach)
        whole = np.rint(factors * 2.0 ** (shift + _RAISED_BITS))
        return shift, whole.astype(np.int64), np.rint(sums * 2.0**shift).astype(np.int64)

    def _multipliers(self, layer: Int8Layer, scales: NDArray[np.float32]) -> tuple[Whole, int]:
        """Whole multipliers of scales, and their shift beyond 32 bits."""
        largest = float(np.abs(scales).max())
        shift = -2 - int(np.floor(np.log2(max(largest, 2.0**-_WORD_BITS))))
        if shift < 0:
            raise self._refusal(layer, largest)
        whole = np.rint(scales.astype(np.float64) * 2.0 ** (_WORD_BITS + shift))
        return np.minimum(whole, LARGEST_WORD).astype(np.int64), shift

    def _refusal(self, layer: Int8Layer, largest: float) -> ExportError:
        return ExportError(
            f"{self._name}: the layer {layer.writes} needs a factor of {largest:.3g}, beyond what "
            "fixed point holds; nothing was written; export without --c"
        )

    def _constant(self, kind: str, name: str, values: NDArray[np.generic]) -> None:
        items = ", ".join(map(str, values.tolist()))
        self._constants.append(f"static const {kind} {self._prefix}_{name}[] = {{{items}}};")
        self._constant_bytes += len(values) * (1 if "8" in kind else 4)

    def _struct(self, step: int, kind: str, fields: Iterable[object]) -> None:
        values = ", ".join(_field(each) for each in fields)
        self._constants.append(
            f"static const nonn_{kind} {self._prefix}_layer{step} = {{{values}}};"
        )

    def _call(self, kernel: str, step: int, layer: Int8Layer, more: str = "") -> None:
        self._calls.append(
            f"nonn_{kernel}(&{self._prefix}_layer{step}, {self._place(layer.reads[0])}, "
            f"{self._place(layer.writes)}{more});"
        )

    def _place(self, name: str) -> str:
        return f"arena + {self._arena.offsets[name]}"


def _paired(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights as the convolution reads them: four of one output channel, four of the next."""
    rows = weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)
    rows = np.pad(rows, ((0, len(rows) % 2), (0, -rows.shape[1] % 4)))
    return rows.reshape(len(rows) // 2, 2, -1, 4).transpose(0, 2, 1, 3).ravel()


def _offset(written: Int8Map, shift: int) -> int:
    """Zero point and a half, where `multipliers` put the sums."""
    return (2 * written.zero + 1) << (_WORD_BITS + shift - 1)


def _sides(each: Int8Map) -> tuple[int, int]:
    return each.height, each.width


def _field(value: object) -> str:
    if isinstance(value, str):
        return value
    number = int(value)  # type: ignore[call-overload]
    return f"INT64_C({number})" if abs(number) > LARGEST_WORD else str(number)


def _float(value: np.float32) -> str:
    return f"{np.format_float_positional(value, unique=True, trim='0')}f"
