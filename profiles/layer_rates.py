"""Rates of layers: what a unit of each kind of work costs a board.

A network's time is a sum over kinds of work: multiply-accumulates (MACs) by the algorithm that
the runtime takes for them, values moved, weights read, layers begun.  A 3 x 3 convolution without
a stride is computed by Winograd's transform (Lavin and Gray, CVPR 2016): its MACs are those of
whole tiles, its weights the transformed ones.  The logarithm of each rate is::

    level of the setting + common to all + of the kind of core + of the board + of the setting
    + slope * log2(threads)

where all but the level are drawn to zero by a ridge, the common part to a prior.  So what is
common to a kind of core is learnt from all of its boards, and a board with three rows borrows
the rest.  int8 work has the rate of its fp32 twin, times a factor of the same structure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from profiles.measured_latency import BoardSetting, RuntimeLayer, RuntimeNetwork

Matrix = NDArray[np.float64]
Amount = tuple[str, float]
"""A kind of work, and how much of it."""


class Work(NamedTuple):
    """A kind of work: its prior cost, and how freely the cost is fitted.

    `ms` is the cost of a million units, or of one where `counted`, on a board that computes five
    MACs in a nanosecond; fits share the level of a `group`.  `serial` is the prior slope over
    log2(threads) against the board's other work: 0.5 for what one thread does alone.  The cost of
    a `stiff` kind, which few networks have, stays near its prior.
    """

    ms: float
    group: str
    stiff: bool = False
    serial: float = 0.0
    counted: bool = False


INT8_WORK = "int8 "
"""Beginning of the kinds of work that are computed in int8."""
_DENSE = ("stem", "pointwise", "winograd", "narrow", "strided", "wide")
_DEPTHWISE = ("depthwise", "depthwise strided", "depthwise wide")
_CONVOLUTIONS = {
    **dict.fromkeys((*_DENSE, *_DEPTHWISE), Work(0.2, "macs")),
    **dict.fromkeys(("odd channels", "odd depthwise"), Work(0.05, "odd")),
    **dict.fromkeys(
        ("pointwise values", "tile values", "column values", "dense values"), Work(1.0, "values")
    ),
    "depthwise values": Work(1.0, "values"),
    **dict.fromkeys(
        ("pointwise weights", "winograd weights", "dense weights"), Work(0.6, "weights")
    ),
}
WORKS: Mapping[str, Work] = {
    **_CONVOLUTIONS,
    **{
        INT8_WORK + name: Work(0.8 if work.group != "odd" else 1.0, INT8_WORK + work.group)
        for name, work in _CONVOLUTIONS.items()
    },
    "matrix": Work(0.5, "matrix"),
    "fc weights": Work(0.6, "weights"),
    **dict.fromkeys(("pool values", "elementwise values", "copied values"), Work(1.0, "values")),
    "permuted values": Work(3.0, "permuted", stiff=True),
    "exponentials": Work(3.0, "exponentials", stiff=True),
    "normalised values": Work(10.0, "normalised", stiff=True),
    "detection candidates": Work(130.0, "detection", stiff=True, serial=0.5),
    "groups": Work(0.01, "groups", stiff=True, serial=0.5, counted=True),
    "convolutions": Work(0.01, "layers", serial=0.5, counted=True),
    "other layers": Work(0.01, "layers", serial=0.5, counted=True),
}
"""Kinds of work in a fixed order, with priors.

Orders of magnitude: an exponential costs three values moved, a local response normalisation ten, a
detector's candidate box a sort; matrix products of transformers had plain loops for long.
"""

_UNIT = np.array([1.0 if work.counted else 1e-6 for work in WORKS.values()])
_INDEX = {name: place for place, name in enumerate(WORKS)}
_GROUPS = sorted({work.group for work in WORKS.values()})
_GROUP_OF = np.array([_GROUPS.index(work.group) for work in WORKS.values()])
_PRIOR = np.log([work.ms for work in WORKS.values()])
_SERIAL = np.array([work.serial for work in WORKS.values()])
_IS_INT8 = np.array([float(name.startswith(INT8_WORK)) for name in WORKS])
_TWIN = np.eye(len(WORKS))
for _name in _CONVOLUTIONS:
    _TWIN[_INDEX[_name], _INDEX[INT8_WORK + _name]] = 1.0

_FREE = ("Split", "Input", "MemoryData", "Noop", "Dropout", "Flatten")
_CONVOLUTION_KINDS = ("Convolution", "ConvolutionDepthWise", "DeconvolutionDepthWise")
_FUSED_EXPONENTIAL = (4, 5)
"""ncnn's numbers of the fused activations sigmoid and mish."""

_LANES = 4
"""Values of a vector register; channels that are no multiple of it are computed one by one."""

_DETECTED_CLASSES = 21
"""Classes of the single-shot detectors: 20 of PASCAL VOC, and the background."""


def network_work(networks: Sequence[RuntimeNetwork]) -> Matrix:
    """Work of each network: one row per network, one column per kind in `WORKS`.

    Layers that are alike are counted once, so that thousands of students take little time.
    """
    seen: dict[RuntimeLayer, int] = {}
    columns = [seen.setdefault(layer, len(seen)) for network in networks for layer in network]
    of = np.repeat(np.arange(len(networks)), [len(network) for network in networks])
    layers = np.zeros((max(len(seen), 1), len(WORKS)))
    for layer, row in seen.items():
        for name, amount in layer_work(layer):
            layers[row, _INDEX[name]] += amount
    counts = _counts(of, columns, (len(networks), len(layers)))
    found: Matrix = counts @ (layers * _UNIT)
    return found


def layer_work(layer: RuntimeLayer) -> Iterable[Amount]:
    """Amounts of work of one layer in single units; a kind may come twice."""
    if layer.kind in _FREE:
        return ()
    if layer.kind in _CONVOLUTION_KINDS:
        return (("convolutions", 1.0), *_convolution(layer))
    own = _OTHER_WORK.get(layer.kind)
    return (("other layers", 1.0), *(own(layer) if own else ()))


def _values(layer: RuntimeLayer) -> tuple[int, int]:
    """Numbers of values that a layer reads and writes."""
    read, written = layer.in_shape or (0, 1, 1), layer.out_shape or (0, 1, 1)
    return read[0] * read[1] * read[2], written[0] * written[1] * written[2]


def _moved(name: str) -> Callable[[RuntimeLayer], Iterable[Amount]]:
    """Work of a layer that only moves its values."""
    return lambda layer: ((name, sum(_values(layer))),)


def _fully_connected(layer: RuntimeLayer) -> Iterable[Amount]:
    # The source's table has no weights of these layers.
    read, written = _values(layer)
    yield "fc weights", read * written


def _matrix_product(layer: RuntimeLayer) -> Iterable[Amount]:
    read, written = _values(layer)
    height = (layer.in_shape or (0, 1, 1))[1]
    yield "matrix", read * written / height


def _attention(layer: RuntimeLayer) -> Iterable[Amount]:
    width, tokens, _ = layer.in_shape or (0, 1, 1)
    yield "matrix", 4.0 * width * width * tokens + 2.0 * width * tokens * tokens
    yield "exponentials", _HEADS * tokens * tokens


def _pooling(layer: RuntimeLayer) -> Iterable[Amount]:
    overlap = (layer.kernel[0] / max(layer.stride, 1)) ** 2
    yield "pool values", _values(layer)[0] * max(1.0, overlap)


def _exponentials(layer: RuntimeLayer) -> Iterable[Amount]:
    yield "exponentials", _values(layer)[1]
    yield "elementwise values", sum(_values(layer))


def _box_detection(layer: RuntimeLayer) -> Iterable[Amount]:
    boxes = (layer.in_shape or (0, 1, 1))[0] / 4
    yield "detection candidates", boxes * _DETECTED_CLASSES


def _grid_detection(layer: RuntimeLayer) -> Iterable[Amount]:
    yield "detection candidates", _values(layer)[0]


_HEADS = 12
"""Heads of an attention of the base size (Dosovitskiy et al., ICLR 2021)."""


_OTHER_WORK: Mapping[str, Callable[[RuntimeLayer], Iterable[Amount]]] = {
    "InnerProduct": _fully_connected,
    "Gemm": _matrix_product,
    "MultiHeadAttention": _attention,
    "Pooling": _pooling,
    "DetectionOutput": _box_detection,
    **dict.fromkeys(("YoloDetectionOutput", "Yolov3DetectionOutput"), _grid_detection),
    **dict.fromkeys(("Reduction", "Interp"), _moved("pool values")),
    "LRN": _moved("normalised values"),
    **dict.fromkeys(("Permute", "Reshape"), _moved("permuted values")),
    **dict.fromkeys(("Swish", "Sigmoid", "GELU", "Softmax"), _exponentials),
    **dict.fromkeys(
        ("BinaryOp", "Eltwise", "ReLU", "HardSwish", "HardSigmoid", "BatchNorm", "LayerNorm"),
        _moved("elementwise values"),
    ),
    **dict.fromkeys(
        ("Concat", "ShuffleChannel", "Slice", "Crop", "Padding"), _moved("copied values")
    ),
}


def _convolution(layer: RuntimeLayer) -> Iterable[Amount]:
    read, written = _values(layer)
    width, height, channels = layer.in_shape or (0, 1, 1)
    out_width, out_height, out_channels = layer.out_shape or (0, 1, 1)
    pixels, groups = out_width * out_height, max(layer.groups, 1)
    small = layer.kernel[0] == 3
    name = INT8_WORK if layer.int8 else ""
    deconvolution = layer.kind == "DeconvolutionDepthWise"
    macs = float((width * height if deconvolution else pixels) * layer.weights)
    odd = bool(out_channels % _LANES or (channels % _LANES and channels > _LANES))
    if (layer.kind == "ConvolutionDepthWise" and groups == channels > 1) or deconvolution:
        shape = "depthwise wide" if not small else "depthwise"
        yield name + (f"{shape} strided" if small and layer.stride > 1 else shape), macs
        yield name + "depthwise values", read + written
        if channels % _LANES:
            yield name + "odd depthwise", macs
        return
    inner, outer = channels // groups, out_channels // groups
    if layer.kernel[0] == 1:
        yield name + "pointwise", macs
        yield name + "pointwise values", read + written
        yield name + "pointwise weights", layer.weights
    elif small and layer.stride == 1 and min(inner, outer) >= _WINOGRAD_CHANNELS and channels > 4:
        sides = ((-(-out_width // s) * -(-out_height // s), (s + 2) ** 2) for s in _TILE_SIDES)
        tiles, tile = min(sides, key=prod)
        macs = float(tiles * tile * channels * out_channels // groups)
        yield name + "winograd", macs
        yield name + "tile values", tiles * tile * (channels + out_channels)
        yield name + "winograd weights", tile * inner * outer * groups
    else:
        if channels <= _LANES:
            dense = "stem"
        elif small:
            dense = "narrow" if layer.stride == 1 else "strided"
        else:
            dense = "wide"
        yield name + dense, macs
        yield name + "dense values", read + written
        yield name + "dense weights", layer.weights
        yield name + "column values", pixels * layer.kernel[0] * layer.kernel[1] * channels
    if odd:
        yield name + "odd channels", macs
    if groups > 1:
        yield "groups", groups
    if layer.activation in _FUSED_EXPONENTIAL:
        yield "exponentials", written


_WINOGRAD_CHANNELS = 8
_TILE_SIDES = (6, 4)
"""Sides of the tiles that Winograd's transform writes, F(6, 3) and F(4, 3)."""


COMMON, CORE, BOARD, SETTING, SLOPE, GROUP, FACTOR = 0.3, 0.4, 0.2, 0.6, 0.05, 0.0005, 0.003
"""Ridges of the parts of a log rate, and of a setting's int8 factor.

They were chosen by the errors on networks and rows left out (`reproduce --latencies`).
"""
STIFFNESS = 5.0
"""Factor of the ridges of stiff kinds of work."""
TOLERANCE = 0.1
"""Relative error up to which a row counts by its square, beyond by its size (pseudo-Huber)."""
PLAIN_THREADS, OTHER_WEIGHT = (1, 4), 0.05
"""Numbers of threads whose rows count in full; others, on shared or unlike cores, count less."""
STEPS = 60
"""Steps of the fit from the prior; stopping early regularises it, too."""


def fit_rates(
    settings: Sequence[BoardSetting], rows: NDArray[np.intp], works: Matrix, ms: Matrix
) -> Matrix:
    """Logarithm of the ms per unit of work.

    One row per setting, columns as in `WORKS`.
    A measured row has its setting's place in `rows`, its network's work (`network_work`) in
    `works`, its latency in `ms`.  A setting without rows has the level of its board or core.
    """
    from scipy.optimize import minimize  # takes longer to load than a plan to find

    cores, core = _places([setting.core for setting in settings])
    boards, board = _places([setting.processor for setting in settings])
    doublings = np.log2([setting.threads for setting in settings])
    kinds, count = len(WORKS), len(settings)
    sizes = {
        "level": (count,),
        "common": (kinds,),
        "group": (len(_GROUPS),),
        "core": (cores, kinds),
        "slope": (kinds,),
        "board": (boards, kinds),
        "setting": (count, kinds),
        "int8": (count,),
    }
    ends = np.cumsum([int(np.prod(size)) for size in sizes.values()])
    stiff = np.array([STIFFNESS if work.stiff else 1.0 for work in WORKS.values()])
    weight = {"core": CORE, "slope": SLOPE, "board": BOARD, "setting": SETTING}
    group_prior = np.zeros(len(_GROUPS))
    group_prior[_GROUP_OF] = _PRIOR
    own, of = np.arange(count), np.arange(len(rows))
    of_core, of_board = _counts(core, own, (cores, count)), _counts(board, own, (boards, count))
    of_setting = _counts(rows, of, (count, len(rows)))
    target = np.log(ms)
    plain = np.isin([setting.threads for setting in settings], PLAIN_THREADS)
    counts_for = np.where(plain, 1.0, OTHER_WEIGHT)[rows]

    def parts(flat: Matrix) -> dict[str, Matrix]:
        pieces = np.split(flat, ends[:-1])
        return {
            name: piece.reshape(size)
            for (name, size), piece in zip(sizes.items(), pieces, strict=True)
        }

    def rates(part: Mapping[str, Matrix]) -> Matrix:
        log_rate = part["common"] + part["core"][core] + part["board"][board] + part["setting"]
        log_rate = log_rate + (_SERIAL + part["slope"]) * doublings[:, None]
        found: Matrix = part["level"][:, None] + log_rate @ _TWIN + np.outer(part["int8"], _IS_INT8)
        return found

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        part = parts(flat)
        times = works * np.exp(rates(part))[rows]
        total = times.sum(axis=1)
        error = np.log(total) - target
        slack = np.sqrt(1 + (error / TOLERANCE) ** 2)
        pull = of_setting @ (times * (counts_for * error / slack / total)[:, None])
        free = pull @ _TWIN.T
        away = part["common"] - part["group"][_GROUP_OF]
        value = TOLERANCE**2 * float(counts_for @ (slack - 1))
        value += COMMON / 2 * float(stiff @ away**2)
        value += sum(w / 2 * float((stiff * part[name] ** 2).sum()) for name, w in weight.items())
        value += GROUP / 2 * float(((part["group"] - group_prior) ** 2).sum())
        value += FACTOR / 2 * float((part["int8"] ** 2).sum())
        group = GROUP * (part["group"] - group_prior)
        np.subtract.at(group, _GROUP_OF, COMMON * stiff * away)
        gradient = {
            "level": pull.sum(axis=1),
            "common": free.sum(axis=0) + COMMON * stiff * away,
            "group": group,
            "core": of_core @ free + CORE * stiff * part["core"],
            "slope": doublings @ free + SLOPE * stiff * part["slope"],
            "board": of_board @ free + BOARD * stiff * part["board"],
            "setting": free + SETTING * stiff * part["setting"],
            "int8": pull @ _IS_INT8 + FACTOR * part["int8"],
        }
        scale = 100.0
        return scale * value, scale * np.concatenate([g.ravel() for g in gradient.values()])

    start = parts(np.zeros(ends[-1]))
    start["group"], start["common"] = group_prior, _PRIOR.copy()
    offset = target - np.log((works * np.exp(rates(start))[rows]).sum(axis=1))
    start["level"] = np.array(
        [np.median(offset[rows == s]) if (rows == s).any() else 0.0 for s in range(count)]
    )
    flat = np.concatenate([start[name].ravel() for name in sizes])
    options: dict[str, Any] = {"maxiter": STEPS, "maxfun": 2 * STEPS, "maxcor": 20}
    found = minimize(loss, flat, jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
    fitted = parts(found.x)
    measured = np.bincount(rows, minlength=count)
    _level_of_unmeasured(fitted["level"], measured, core, board, doublings)
    return rates(fitted)


def _level_of_unmeasured(
    level: Matrix,
    measured: NDArray[np.intp],
    core: NDArray[np.intp],
    board: NDArray[np.intp],
    doublings: Matrix,
) -> None:
    """Set the level of settings without rows to the median of the nearest others."""
    known = measured > 0
    for place in np.flatnonzero(~known):
        for same in (board == board[place], core == core[place], np.full(len(level), True)):
            if (known & same).any():
                speedup = _SPEEDUP * (doublings[place] - doublings[known & same])
                level[place] = np.median(level[known & same] - speedup)
                break


_SPEEDUP = 0.8 * log(2)
"""Fall of the log time with each doubling of threads, where a board does not tell."""


def _places(names: Sequence[object]) -> tuple[int, NDArray[np.intp]]:
    """Number of different names, and the place of each."""
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return len(order), np.array([order[name] for name in names], dtype=np.intp)


def _counts(rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
    """Sparse matrix with the number of times that each place is named."""
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
