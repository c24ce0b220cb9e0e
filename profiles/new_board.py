"""A new board: rates of its layers from a few measured networks.

Its rows join those of the public boards (`profiles.measured_latency`), and one fit is made to all:
what a few rows cannot tell is what boards of its kind of core have in common.  That fit takes rows
far from what is common for outliers, which those of another runtime are not: a second step moves
the board's rates until they meet its rows, as a Gaussian prior around the first ones has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.board_library import affine_quantities, clock_hz
from profiles.device import DeviceProfile
from profiles.latency_predictor import LatencyPredictor, check_networks
from profiles.layer import LayerRates
from profiles.layer_rates import WORKS, network_work
from profiles.measured_latency import (
    INT8,
    BoardSetting,
    LatencyRow,
    RuntimeNetwork,
    measured_networks,
    measured_rows,
)


def new_board_rates(
    setting: BoardSetting,
    measured: Sequence[tuple[RuntimeNetwork, float]],
    int8: bool,
    source: str,
) -> LayerRates:
    """Rates of a board on which networks took so many ms, all of one precision.

    `source` says who measured.  Raises InputError for no network.
    """
    names = [f"network {number}{INT8 if int8 else ''}" for number in range(len(measured))]
    own = {name: network for name, (network, _) in zip(names, measured, strict=True)}
    rows = [LatencyRow(setting, name, ms) for name, (_, ms) in zip(names, measured, strict=True)]
    public = [row for row in measured_rows() if row.ms is not None]
    predictor = LatencyPredictor.fit([*public, *rows], {**measured_networks(), **own}, [setting])
    log_rates, place = predictor.log_rates.copy(), predictor.settings[setting]
    works = network_work([network for network, _ in measured])
    log_rates[place] = met_rates(log_rates[place], works, np.array([ms for _, ms in measured]))
    predictor = replace(predictor, log_rates=log_rates)
    return predictor.layer_rates(
        setting, int8, f"{source}; rates fitted to these and to {len(public)} public rows (ncnn)"
    )


Matrix = NDArray[np.float64]

LEVEL, KIND, NOISE = 1.0, 0.3, 0.1
"""Deviations, in log ms: of all rates together, of one kind of work, and of a measured row."""


def met_rates(log_rates: Matrix, works: Matrix, ms: Matrix) -> Matrix:
    """Log rates [kinds] moved from `log_rates` until networks of `works` [rows, kinds] take `ms`.

    The most likely ones, where they differ from `log_rates` by a common level and by kind.
    """
    from scipy.optimize import minimize

    kinds = len(log_rates)
    spread = np.linalg.cholesky(LEVEL**2 + KIND**2 * np.eye(kinds))
    target = np.log(ms)

    def loss(moved: Matrix) -> tuple[float, Matrix]:
        times = works * np.exp(log_rates + spread @ moved)
        total = times.sum(axis=1)
        error = (np.log(total) - target) / NOISE
        value = 0.5 * float(error @ error + moved @ moved)
        return value, spread.T @ (times.T @ (error / NOISE / total)) + moved

    options: dict[str, Any] = {"maxiter": 500}
    found = minimize(loss, np.zeros(kinds), jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
    moved: Matrix = log_rates + spread @ found.x
    return moved


def unmet_rows(
    rates: LayerRates, rows: Sequence[LatencyRow], networks: Mapping[str, RuntimeNetwork]
) -> list[tuple[LatencyRow, float]]:
    """Measured rows whose latency is outside the rates' own interval, and the predicted ms.

    A few rows of one board are met closely; these contradict each other, or one is a slip.
    """
    unit_ms = np.array([rates.ms_per_unit.get(name, 0.0) for name in WORKS])
    predicted = network_work([networks[row.network] for row in rows]) @ unit_ms
    return [
        (row, float(ms))
        for row, ms in zip(rows, predicted, strict=True)
        if row.ms is not None and not ms * rates.low <= row.ms <= ms * rates.high
    ]


def calibrated_board(
    rows: Sequence[LatencyRow],
    networks: Mapping[str, RuntimeNetwork],
    like: DeviceProfile,
    name: str,
    where: str,
) -> DeviceProfile:
    """Device of measured `rows`, all of one board, number of threads and precision.

    What the rows do not tell is taken over from `like`: memory, power, messages.  Raises InputError
    for rows of several settings, for none, and for networks without layers; `where` is their file.
    """
    measured = [row for row in rows if row.ms is not None]
    kinds = {(row.setting, row.network.endswith(INT8)) for row in measured}
    if len(kinds) != 1:
        raise ProfileError(
            "a device is one board on one number of threads, in one precision",
            where=where,
            found=", ".join(
                sorted(
                    f"{setting.board} on {setting.threads} in {'int8' if int8 else 'fp32'}"
                    for setting, int8 in kinds
                )
            )
            or "no row",
            allowed="rows of one of them",
        )
    check_networks((row.network for row in measured), networks)
    ((setting, int8),) = kinds
    note = f"{where}: {len(measured)} networks"
    pairs = [(networks[row.network], row.ms or 0.0) for row in measured]
    fixed, slope = affine_quantities(pairs, note) if len(pairs) > 1 else (None, None)
    taken = {
        part: figure.model_copy(update={"provenance": "assumed", "source": f"that of {like.name}"})
        for part, figure in like
        if isinstance(figure, Quantity) and part != "compute_cv"
    }
    return like.model_copy(
        update={
            **taken,
            "name": name,
            "title": setting.board,
            "board": name,
            "core": setting.core,
            "clock_hz": clock_hz(setting) or like.clock_hz,
            "cores": setting.threads,
            "runtime": "measured",
            "precision": "int8" if int8 else "fp32",
            "source": f"{note}; memory, power and messages are those of {like.name}",
            "compute_cv": None,
            "compute_fixed_ms": fixed or taken.get("compute_fixed_ms"),
            "compute_ms_per_mmac": slope or taken.get("compute_ms_per_mmac"),
            "layers": None,
            "layer_rates": new_board_rates(setting, pairs, int8, note),
            "hosting": None,
        }
    )
