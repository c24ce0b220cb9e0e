"""Errors of predicted latencies on measured rows that were left out, beside simpler models.

Three questions about public measurements of ncnn (`profiles.measured_latency`): a network that no
board has measured (its int8 twin is left out, too), a network measured on other boards, and a new
board on which three networks were measured.  One about NAS-Bench-201 on a Raspberry Pi 4.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import nnls
from scipy.stats import spearmanr

from nonn_common.document import Record
from profiles.board_library import network_macs
from profiles.cell_latency import computed_operations, fit_cells, is_degenerate, swapped
from profiles.latency_predictor import LatencyPredictor
from profiles.layer_rates import network_work
from profiles.measured_latency import (
    INT8,
    LatencyRow,
    RuntimeNetwork,
    measured_cells,
    measured_networks,
    measured_rows,
)

Matrix = NDArray[np.float64]
ErrorModel = Literal["predictor", "least squares", "FLOP-affine", "live edges"]

SCORED_THREADS = (1, 4)
PLAIN = ["resnet18", "resnet50", "vgg16", "mobilenet", "mobilenet_v2", "mnasnet", "squeezenet"]
"""Plain networks, like students."""
FOLDS = 10
"""Tenths: as much of the source's rows is withheld."""
KNOWN_NETWORKS = 3
TRAINED_CELLS = (50, 2000)
CELL_DRAWS = 5
SLOW_MODE = 1.2
"""Factor over the typical time beyond which a measurement is in the slower mode."""


class LatencyErrors(Record):
    """Errors of one model on rows that were left out; relative, in per cent."""

    question: str = Field(description="What was left out.")
    rows_of: str = Field(description="Rows that are scored.")
    model: ErrorModel = Field(description="Model that predicted.")
    rows: int = Field(description="Number of scored rows.")
    median_pct: float = Field(description="Median of the absolute relative error.")
    p90_pct: float = Field(description="90th percentile of the absolute relative error.")
    spearman: float = Field(description="Rank correlation of predicted and measured.")
    covered_pct: float | None = Field(
        description="Share of rows within the predictor's 90 % interval; null for other models."
    )


class PredictedRow(Record):
    """A measured row beside its prediction, for the picture."""

    question: str = Field(description="What was left out.")
    board: str = Field(description="Description of the board.")
    core: str = Field(description="Kind of core that computes.")
    threads: int = Field(description="Threads.")
    network: str = Field(description="Network.")
    measured_ms: float = Field(description="Measured latency.")
    predicted_ms: float = Field(description="Predicted latency.")


class RepeatedCells(Record):
    """The same NAS-Bench-201 networks measured twice, with their inner nodes swapped."""

    pairs: int = Field(description="Pairs of networks.")
    median_pct: float = Field(description="Median of their relative difference.")
    p90_pct: float = Field(description="90th percentile of their relative difference.")
    slow_pct: float = Field(description="Share of cells without a 3x3 convolution that are slow.")
    slow_others_pct: float = Field(description="Share of other cells that are slow.")
    split_pct: float = Field(
        description="Share of the pairs without a 3x3 convolution of which one alone is slow."
    )
    degenerate: int = Field(description="Networks whose output does not depend on the input.")


class LatencyReproduction(Record):
    """All errors, the rows behind them, and the noise of NAS-Bench-201."""

    errors: tuple[LatencyErrors, ...] = Field(description="One entry per question and model.")
    noise: RepeatedCells = Field(description="What no model can predict.")
    rows: tuple[PredictedRow, ...] = Field(description="Rows of networks measured nowhere.")


def latency_reproduction() -> LatencyReproduction:
    """Every error, on the data that ship with the project; takes about two minutes."""
    table = _Table(measured_rows(), measured_networks())
    errors: list[LatencyErrors] = []
    pictured: tuple[PredictedRow, ...] = ()
    for question, folds in (
        ("network unseen on every board", table.by_network()),
        ("network measured on other boards", table.by_row()),
        (f"new board with {KNOWN_NETWORKS} known networks", table.by_board()),
    ):
        found, covered = table.left_out(folds)
        errors += table.scores(question, found, covered)
        pictured = pictured or table.pictured(question, found["predictor"])
    cells = measured_cells()
    return LatencyReproduction(
        errors=(*errors, *_cell_errors(cells)), noise=repeated_cells(cells), rows=pictured
    )


class _Table:
    """Measured rows as arrays, and who predicts which of them from which others."""

    def __init__(self, rows: Sequence[LatencyRow], networks: Mapping[str, RuntimeNetwork]) -> None:
        self.rows = [row for row in rows if row.ms is not None]
        self.networks = networks
        self.ms = np.array([row.ms for row in self.rows], dtype=float)
        self.settings = [row.setting for row in self.rows]
        self.names = np.array([row.network for row in self.rows])
        self.families = np.array([name.removesuffix(INT8) for name in self.names])
        self.int8 = np.char.endswith(self.names, INT8)
        self.numbered = {one: n for n, one in enumerate(dict.fromkeys(self.settings))}
        self.numbers = np.array([self.numbered[one] for one in self.settings])
        self.boards = np.array([setting.board for setting in self.settings])
        order = sorted(networks)
        works = network_work([networks[name] for name in order])
        self.works = works[[order.index(name) for name in self.names]]
        self.macs = np.array([network_macs(networks[name]) for name in self.names])

    def by_network(self) -> Iterator[NDArray[np.bool_]]:
        for family in np.unique(self.families):
            yield self.families == family

    def by_row(self) -> Iterator[NDArray[np.bool_]]:
        fold = np.random.default_rng(0).integers(0, FOLDS, len(self.rows))
        for number in range(FOLDS):
            yield fold == number

    def by_board(self) -> Iterator[NDArray[np.bool_]]:
        """Tenths of the boards, with three fp32 networks of each drawn as known."""
        random = np.random.default_rng(0)
        boards = np.unique(self.boards)
        known = np.zeros(len(self.rows), dtype=bool)
        group = np.full(len(self.rows), -1)
        for board, number in zip(boards, random.integers(0, FOLDS, len(boards)), strict=True):
            own = self.boards == board
            common = set(self.names[own & ~self.int8])
            for setting in {self.settings[row] for row in np.flatnonzero(own)}:
                common &= {
                    self.names[row] for row in np.flatnonzero(own) if self.settings[row] == setting
                }
            if len(common) > KNOWN_NETWORKS:
                drawn = random.choice(sorted(common), KNOWN_NETWORKS, replace=False)
                known |= own & np.isin(self.names, drawn)
                group[own] = number
        for number in range(FOLDS):
            yield (group == number) & ~known

    def left_out(
        self, folds: Iterator[NDArray[np.bool_]]
    ) -> tuple[dict[ErrorModel, Matrix], NDArray[np.bool_]]:
        """Predictions of each fold from all other rows; NaN for rows in none."""
        models: tuple[ErrorModel, ...] = ("predictor", "least squares", "FLOP-affine")
        found = {model: np.full(len(self.rows), np.nan) for model in models}
        covered = np.zeros(len(self.rows), dtype=bool)
        for test in folds:
            if not test.any():
                continue
            places = np.flatnonzero(test)
            rest = [self.rows[row] for row in np.flatnonzero(~test)]
            settings = list(dict.fromkeys(self.settings[row] for row in places))
            names = list(dict.fromkeys(self.names[places]))
            predictor = LatencyPredictor.fit(rest, self.networks, settings)
            ms, low, high = predictor.predict_table(
                settings, {name: self.networks[name] for name in names}
            )
            at = [settings.index(self.settings[row]) for row in places]
            of = [names.index(self.names[row]) for row in places]
            found["predictor"][places] = ms[at, of]
            covered[places] = (low[at, of] <= self.ms[places]) & (self.ms[places] <= high[at, of])
            for setting in settings:
                own = self.numbers == self.numbered[setting]
                for model, features in (
                    ("least squares", self.works),
                    ("FLOP-affine", np.column_stack([np.ones(len(self.macs)), self.macs])),
                ):
                    found[model][own & test] = _least_squares(  # type: ignore[index]
                        features[own & ~test], self.ms[own & ~test], features[own & test]
                    )
        return found, covered

    def scores(
        self, question: str, found: Mapping[ErrorModel, Matrix], covered: NDArray[np.bool_]
    ) -> Iterator[LatencyErrors]:
        threads = np.isin([setting.threads for setting in self.settings], SCORED_THREADS)
        groups = {
            "fp32": ~self.int8,
            "int8": self.int8,
            "plain fp32": np.isin(self.names, PLAIN),
        }
        for rows_of, chosen in groups.items():
            for model, ms in found.items():
                scored = threads & chosen & ~np.isnan(ms)
                inside = 100 * covered[scored].mean() if model == "predictor" else None
                yield errors_of(question, rows_of, model, ms[scored], self.ms[scored], inside)

    def pictured(self, question: str, ms: Matrix) -> tuple[PredictedRow, ...]:
        return tuple(
            PredictedRow(
                question=question,
                board=row.setting.board,
                core=row.setting.core,
                threads=row.setting.threads,
                network=row.network,
                measured_ms=float(self.ms[place]),
                predicted_ms=float(ms[place]),
            )
            for place, row in enumerate(self.rows)
            if not np.isnan(ms[place])
        )


def errors_of(
    question: str,
    rows_of: str,
    model: ErrorModel,
    predicted: Matrix,
    measured: Matrix,
    covered_pct: float | None = None,
) -> LatencyErrors:
    """Errors of predictions in ms beside measured ms."""
    errors = 100 * np.abs(predicted / measured - 1)
    return LatencyErrors(
        question=question,
        rows_of=rows_of,
        model=model,
        rows=len(measured),
        median_pct=float(np.median(errors)),
        p90_pct=float(np.percentile(errors, 90)),
        spearman=float(spearmanr(predicted, measured).statistic),
        covered_pct=None if covered_pct is None else float(covered_pct),
    )


def _least_squares(features: Matrix, ms: Matrix, asked: Matrix) -> Matrix:
    """Non-negative least squares of relative errors, and what it predicts; NaN without rows."""
    if not len(ms):
        return np.full(len(asked), np.nan)
    scale = np.maximum(features.max(axis=0), 1e-12)
    costs = nnls(features / scale / ms[:, None], np.ones(len(ms)))[0]
    found: Matrix = asked / scale @ costs
    return np.where(found > 0, found, np.median(ms))


def _cell_errors(cells: Mapping[str, float]) -> Iterator[LatencyErrors]:
    names = sorted(cells)
    sound = np.array([not is_degenerate(name) for name in names])
    ms = np.array([cells[name] for name in names])
    live = np.array([computed_operations(name) for name in names], dtype=float)
    affine = np.column_stack([np.ones(len(names)), live @ _MMACS])
    counted = np.column_stack([np.ones(len(names)), live])
    for size in TRAINED_CELLS:
        models: dict[ErrorModel, Callable[[NDArray[np.intp], NDArray[np.intp]], Matrix]] = {
            "predictor": lambda trained, asked: fit_cells(
                {names[row]: float(ms[row]) for row in trained}
            ).predict([names[row] for row in asked]),
            "live edges": lambda trained, asked: _least_squares(
                counted[trained], ms[trained], counted[asked]
            ),
            "FLOP-affine": lambda trained, asked: _least_squares(
                affine[trained], ms[trained], affine[asked]
            ),
        }
        for model, predict in models.items():
            predicted, measured = [], []
            for draw in range(CELL_DRAWS):
                chosen = np.random.default_rng(draw).choice(len(names), size, replace=False)
                trained = chosen[sound[chosen]]
                asked = np.setdiff1d(np.flatnonzero(sound), chosen)
                predicted.append(predict(trained, asked))
                measured.append(ms[asked])
            yield errors_of(
                f"NAS-Bench-201, trained on {size}",
                "networks",
                model,
                np.concatenate(predicted),
                np.concatenate(measured),
            )


_MMACS = np.array([1.0, 9.0, 0.0])
"""MACs of the operations of a cell, as multiples of a 1x1 convolution's."""


def repeated_cells(cells: Mapping[str, float]) -> RepeatedCells:
    """The same networks under two names, and the share of measurements in the slower mode."""
    twins = [(cell, swapped(cell)) for cell in cells]
    pairs = [
        (cell, twin)
        for cell, twin in twins
        if twin is not None and twin > cell and twin in cells and not is_degenerate(cell)
    ]
    differences = [100 * abs(cells[first] / cells[second] - 1) for first, second in pairs]
    sound = [cell for cell in cells if not is_degenerate(cell)]
    typical = fit_cells(cells).predict(sound)
    slow = np.array([cells[cell] for cell in sound]) > SLOW_MODE * typical
    without = np.array([computed_operations(cell)[1] == 0 for cell in sound])
    is_slow = dict(zip(sound, slow, strict=True))
    cheap = [pair for pair in pairs if computed_operations(pair[0])[1] == 0]
    split = [is_slow[first] != is_slow[second] for first, second in cheap]
    return RepeatedCells(
        pairs=len(pairs),
        median_pct=float(np.median(differences)),
        p90_pct=float(np.percentile(differences, 90)),
        slow_pct=float(100 * slow[without].mean()),
        slow_others_pct=float(100 * slow[~without].mean()),
        split_pct=float(100 * np.mean(split)) if split else 0.0,
        degenerate=len(cells) - len(sound),
    )


def draw(rows: Sequence[PredictedRow], path: Path) -> None:
    """Draw predicted against measured ms, and the errors per kind of core, as a PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    points, bars = figure.subplots(1, 2)
    cores = sorted({row.core for row in rows})
    for number, core in enumerate(cores):
        own = [row for row in rows if row.core == core and row.threads in SCORED_THREADS]
        measured = np.array([row.measured_ms for row in own])
        predicted = np.array([row.predicted_ms for row in own])
        colour, marker = colormaps["tab20"](number), "o^"[number % 2]
        points.plot(measured, predicted, marker, ms=2.5, alpha=0.5, color=colour, label=core)
        low, middle, high = np.percentile(100 * (predicted / measured - 1), (10, 50, 90))
        ends = [[middle - low], [high - middle]]
        bars.errorbar([middle], [number], xerr=ends, fmt=marker, capsize=3, color=colour)
    limits = [min(row.measured_ms for row in rows), max(row.measured_ms for row in rows)]
    points.plot(limits, limits, color="grey", lw=1)
    points.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms")
    points.set_title("networks unseen on every board")
    points.legend(fontsize="small", markerscale=2)
    bars.axvline(0, color="grey", lw=1)
    bars.set(xlabel="error, %: median, and 10th to 90th percentile")
    bars.set_yticks(range(len(cores)), cores)
    figure.savefig(path, dpi=120, metadata={"Software": None})
