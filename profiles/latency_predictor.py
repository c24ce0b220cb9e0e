"""Predicted latencies of networks on measured boards, with intervals.

The rates of layers (`profiles.layer_rates`) predict a network from its layers alone.  A network
that was measured somewhere else has more to say: what the rates leave on it.  These residuals
are a Gaussian process over settings and networks, whose covariance is a product.  That of the
networks is learnt from the residuals by expectation maximisation, as in a probabilistic principal
component analysis with missing values; that of the settings says what a board, a kind of core
and settings of like rates have in common.  Rows far off count less, as under a Student t noise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from nonn_common.errors import InputError
from profiles.layer import LayerRates
from profiles.layer_rates import INT8_WORK, WORKS, fit_rates, network_work
from profiles.measured_latency import INT8, BoardSetting, LatencyRow, RuntimeNetwork

Matrix = NDArray[np.float64]
Places = NDArray[np.intp]

COVERED = 0.9
"""Share of measurements that an interval is to cover."""

SAME, BOARD, CORE, LIKE, ALL = 0.2, 0.35, 0.2, 0.6, 0.1
"""Covariance of settings: of one with itself, of a board's, a core's, like ones, and of all."""
THREADS_APART = 1.5
"""Doublings of threads over which settings of a board grow unlike."""
RATES_APART = 0.35
"""Distance of log rates over which settings grow unlike."""
NOISE = 0.04
"""Standard deviation of the noise of a measured row, in log ms."""
NETWORK_PRIOR, PRIOR_WEIGHT = 0.1, 10.0
"""Prior deviation of a network's residual, and how many settings it counts for."""
LARGEST_RESIDUAL = 0.5
"""Residual, in log ms, beyond which a row tells the covariance of networks no more."""
DEGREES_OF_FREEDOM = 2.0
"""Of the Student t noise."""
ROUNDS, REWEIGHTINGS = 20, 2

NEW_NETWORK = 0.285
"""Half an interval of a network that was measured nowhere, in log ms.

Nine of ten networks left out are nearer (`reproduce --latencies`), in fp32 as in int8.
"""
MEASURED_SCALE = 1.8
"""Half an interval of a network measured elsewhere, in standard deviations of the prediction."""
FEW_ROWS = 8
"""Rows below which a setting counts as new: its interval is widened by `NEW_BOARD_SCALE`."""
NEW_BOARD_SCALE = 1.6
NEW_INT8 = 0.55
"""Half an interval of int8 where the setting has fp32 rows alone: kernels for it may be missing."""
OTHER_THREADS, OTHER_BOARD = 0.4, 1.0
"""Least half an interval, in log ms, of a setting without rows: of a measured board, or of none."""

_DIGITS = 4
"""Significant digits of a rate in a profile: far below its error."""


class PredictedLatency(NamedTuple):
    """Time of one image in ms, and its interval for nine of ten cases.

    `measured_elsewhere` says whether the network was measured on other boards, `board_rows` how
    many rows of the setting the prediction rests on; without any it is a guess by kind of core.
    """

    ms: float
    low_ms: float
    high_ms: float
    measured_elsewhere: bool
    board_rows: int


@dataclass(frozen=True)
class _Residuals:
    """The process of the residuals, conditioned on those of measured rows.

    `at` and `of` are the places of the rows' settings and networks; `inverse` is that of the
    rows' covariance with noise, `weights` its product with their residuals.
    """

    settings: Matrix
    networks: Matrix
    at: Places
    of: Places
    weights: Matrix
    inverse: Matrix

    def predict(self, at: Places, of: Places) -> tuple[Matrix, Matrix]:
        """Residual of each network on each setting, and a measurement's deviation from it."""
        residuals, variances = np.zeros((len(at), len(of))), np.zeros((len(at), len(of)))
        spread = np.diag(self.settings)[at]
        for column, network in enumerate(of):
            cross = self.networks[network, self.of] * self.settings[np.ix_(at, self.at)]
            residuals[:, column] = cross @ self.weights
            explained = np.einsum("ij,ij->i", cross @ self.inverse, cross)
            variances[:, column] = self.networks[network, network] * spread - explained
        return residuals, np.sqrt(np.maximum(variances, 0.0) + NOISE**2)


class _Left(NamedTuple):
    """Residuals of measured rows in log ms, and the work of each network."""

    at: Places
    of: Places
    log_ms: Matrix
    work: Matrix


@dataclass(frozen=True)
class LatencyPredictor:
    """A fit to measured rows; `LatencyPredictor.fit` makes it."""

    settings: Mapping[BoardSetting, int]
    networks: Mapping[str, int]
    log_rates: Matrix
    rows: Places
    left: _Left

    @classmethod
    def fit(
        cls,
        rows: Sequence[LatencyRow],
        networks: Mapping[str, RuntimeNetwork],
        also: Sequence[BoardSetting] = (),
    ) -> "LatencyPredictor":
        """Fit to measured `rows`; settings in `also` can be predicted without any.

        Raises InputError for no rows, and for networks without layers.
        """
        measured = [row for row in rows if row.ms is not None]
        if not measured:
            raise InputError("no measured row to fit a predictor to", allowed="at least one")
        check_networks((row.network for row in measured), networks)
        settings = sorted({row.setting for row in measured} | set(also))
        names = sorted({row.network for row in measured})
        place = {setting: number for number, setting in enumerate(settings)}
        column = {name: number for number, name in enumerate(names)}
        at = np.array([place[row.setting] for row in measured], dtype=np.intp)
        of = np.array([column[row.network] for row in measured], dtype=np.intp)
        ms = np.array([row.ms for row in measured], dtype=float)
        work = network_work([networks[name] for name in names])
        log_rates = fit_rates(settings, at, work[of], ms)
        left = np.log(ms) - np.log((work[of] * np.exp(log_rates)[at]).sum(axis=1))
        counts = np.bincount(at, minlength=len(settings)).astype(np.intp)
        return cls(place, column, log_rates, counts, _Left(at, of, left, work))

    @cached_property
    def residuals(self) -> _Residuals:
        """The process of the residuals; networks measured nowhere need none."""
        covariance = _setting_covariance(list(self.settings), self.log_rates, self.left.work)
        return _condition(covariance, self.left)

    def predict(
        self, settings: Sequence[BoardSetting], networks: Mapping[str, RuntimeNetwork]
    ) -> list[dict[str, PredictedLatency]]:
        """Latency of every network on every setting, by name.

        Raises InputError for a setting that the fit does not know.
        """
        ms, low, high = self.predict_table(settings, networks)
        return [
            {
                name: PredictedLatency(
                    float(ms[s, n]),
                    float(low[s, n]),
                    float(high[s, n]),
                    name in self.networks,
                    int(self.rows[self.settings[setting]]),
                )
                for n, name in enumerate(networks)
            }
            for s, setting in enumerate(settings)
        ]

    def predict_table(
        self, settings: Sequence[BoardSetting], networks: Mapping[str, RuntimeNetwork]
    ) -> tuple[Matrix, Matrix, Matrix]:
        """Latencies in ms, and both ends of their intervals.

        A row per setting, a column per network, in the order given.

        Raises InputError for a setting that the fit does not know.
        """
        unknown = [setting for setting in settings if setting not in self.settings]
        if unknown:
            raise InputError(
                "the predictor was not fitted for this board and number of threads",
                found=f"{unknown[0].board}, {unknown[0].threads} threads",
            )
        at = np.array([self.settings[setting] for setting in settings], dtype=np.intp)
        names = list(networks)
        works = network_work([networks[name] for name in names])
        log_ms = np.log(np.exp(self.log_rates[at]) @ works.T)
        half = np.full(log_ms.shape, NEW_NETWORK)
        known = np.array(
            [n for n, name in enumerate(names) if name in self.networks], dtype=np.intp
        )
        if len(known):
            columns = np.array([self.networks[names[n]] for n in known], dtype=np.intp)
            residuals, deviations = self.residuals.predict(at, columns)
            log_ms[:, known] += residuals
            half[:, known] = MEASURED_SCALE * deviations
        half = self._widened(half, settings, np.array([name.endswith(INT8) for name in names]))
        return np.exp(log_ms), np.exp(log_ms - half), np.exp(log_ms + half)

    def layer_rates(self, setting: BoardSetting, int8: bool, source: str) -> LayerRates:
        """Rates of the layers of a network measured nowhere, on one setting.

        Raises KeyError for a setting that the fit does not know.
        """
        at = self.settings[setting]
        half = float(self._widened(np.full((1, 1), NEW_NETWORK), [setting], np.array([int8]))[0, 0])
        return LayerRates(
            ms_per_unit={
                name: float(f"{np.exp(rate):.{_DIGITS}g}")
                for name, rate in zip(WORKS, self.log_rates[at], strict=True)
                if (INT8_WORK + name not in WORKS if int8 else not name.startswith(INT8_WORK))
            },
            low=round(float(np.exp(-half)), _DIGITS),
            high=round(float(np.exp(half)), _DIGITS),
            rows=int((self.left.at == at).sum()),
            threads=setting.threads,
            source=source,
        )

    def _widened(
        self, half: Matrix, settings: Sequence[BoardSetting], int8: NDArray[np.bool_]
    ) -> Matrix:
        """Half intervals [settings, networks], wider where little is known of the setting."""
        at = np.array([self.settings[setting] for setting in settings], dtype=np.intp)
        half = half.copy()
        half[self.rows[at] < FEW_ROWS] *= NEW_BOARD_SCALE
        half[np.ix_(~self._has_int8()[at], int8)] = NEW_INT8
        measured = {known.processor for known, place in self.settings.items() if self.rows[place]}
        for place, setting in enumerate(settings):
            if not self.rows[at[place]]:
                same = setting.processor in measured
                half[place] = np.maximum(half[place], OTHER_THREADS if same else OTHER_BOARD)
        return half

    def _has_int8(self) -> NDArray[np.bool_]:
        """Whether a setting has rows of int8 networks."""
        int8 = np.array([name.endswith(INT8) for name in self.networks])
        found = np.zeros(len(self.settings), dtype=bool)
        found[self.left.at[int8[self.left.of]]] = True
        return found


def check_networks(names: Iterable[str], networks: Mapping[str, RuntimeNetwork]) -> None:
    """Check that the layers of all `names` are known and have shapes.

    Raises InputError.
    """
    for name in dict.fromkeys(names):
        layers = networks.get(name)
        if layers is None:
            raise InputError(
                "the layers of a network are not known",
                found=name,
                allowed=", ".join(sorted(networks)),
                fix="give them with --layers FILE.csv",
            )
        if not any(
            layer.out_shape for layer in layers if layer.kind not in ("Input", "MemoryData")
        ):
            raise InputError("the layers of a network have no shapes", found=name)


def _setting_covariance(
    settings: Sequence[BoardSetting], log_rates: Matrix, work: Matrix
) -> Matrix:
    doublings = np.log2([setting.threads for setting in settings])
    cores, processors = [s.core for s in settings], [s.processor for s in settings]
    shape = log_rates - log_rates.mean(axis=1, keepdims=True)
    share = work * np.exp(np.median(log_rates, axis=0))
    weight = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    scaled = shape * np.sqrt(weight)
    square = (scaled**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square - 2 * scaled @ scaled.T, 0.0)
    near = np.exp(-np.abs(doublings[:, None] - doublings) / THREADS_APART)
    found: Matrix = (
        SAME * np.eye(len(settings))
        + BOARD * _equal(processors) * near
        + CORE * _equal(cores)
        + LIKE * np.exp(-distance / RATES_APART**2)
        + ALL
    )
    return found


def _equal(names: Sequence[object]) -> NDArray[np.bool_]:
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    places = np.array([order[name] for name in names])
    found: NDArray[np.bool_] = places[:, None] == places
    return found


def _condition(settings: Matrix, left: _Left) -> _Residuals:
    """Condition the process on what the rates have left of each row."""
    at, of = left.at, left.of
    table = np.full((len(settings), len(left.work)), np.nan)
    table[at, of] = np.clip(left.log_ms, -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    covariance = _network_covariance(table)
    joint = covariance[np.ix_(of, of)] * settings[np.ix_(at, at)]
    noise = np.full(len(at), NOISE**2)
    for _ in range(REWEIGHTINGS):
        weights = cho_solve(cho_factor(joint + np.diag(noise), lower=True), left.log_ms)
        far = (noise * weights) ** 2 / NOISE**2
        noise = NOISE**2 * np.maximum(1.0, (far + DEGREES_OF_FREEDOM) / (DEGREES_OF_FREEDOM + 1))
    inverse = np.asarray(np.linalg.inv(joint + np.diag(noise)), dtype=np.float64)
    return _Residuals(settings, covariance, at, of, inverse @ left.log_ms, inverse)


def _network_covariance(table: Matrix) -> Matrix:
    """Covariance of networks over settings, by expectation maximisation over what is missing."""
    networks = table.shape[1]
    prior = np.eye(networks) * NETWORK_PRIOR**2
    covariance = prior
    for _ in range(ROUNDS):
        total, seen = PRIOR_WEIGHT * prior, 0
        for row in table:
            known = np.flatnonzero(~np.isnan(row))
            if not len(known):
                continue
            across = covariance[:, known]
            gain = np.linalg.solve(
                covariance[np.ix_(known, known)] + NOISE**2 * np.eye(len(known)), across.T
            ).T
            mean = gain @ row[known]
            total = total + np.outer(mean, mean) + covariance - gain @ across.T
            seen += 1
        covariance = total / (seen + PRIOR_WEIGHT)
    return covariance
