"""Forms that the accuracy model could have, compared by leaving out one row after the other.

    python benchmarks/accuracy_forms.py

Rows are those of `planner.accuracy.rows`.  Every form has an offset for each teacher; the sizes'
coefficients are not below zero.  What is fitted is ln(drop / teacher's error), ln(error / teacher's
error), or the drop in points; the error that is shown is predicted minus true accuracy in points,
over all rows and over those of WRN40-4 on CIFAR-10, and that of ln(drop), on which the interval is
built (a predicted drop below 0.02 points counts as that).  Kept is what is best by the last one:
ln drop, a term for plain KD, parameters and MACs alike.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import lsq_linear

from planner.accuracy.rows import AccuracyRow, published_rows

Column = Callable[[AccuracyRow], float]
Response = tuple[Column, Callable[[AccuracyRow, float], float]]
CIFAR_10 = "WRN40-4 on cifar-10"

SIZES: Mapping[str, tuple[Column, ...]] = {
    "none": (),
    "params": (lambda r: log(r.teacher.params / r.params),),
    "macs": (lambda r: log(r.teacher.macs / r.macs),),
    "both alike": (lambda r: r.missing,),
    "both": (lambda r: log(r.teacher.params / r.params), lambda r: log(r.teacher.macs / r.macs)),
    "students": (lambda r: -log(r.students),),
    "both alike, students": (lambda r: r.missing, lambda r: -log(r.students)),
    "both alike, one model": (lambda r: r.missing, lambda r: float(r.students == 1)),
}
METHODS: Mapping[str, tuple[str, ...]] = {"": (), "kd": ("kd",), "kd, atkd": ("kd", "atkd")}


def _teacher_error(row: AccuracyRow) -> float:
    return 100 - row.teacher_accuracy_pct


def _drop(row: AccuracyRow) -> float:
    return row.teacher_accuracy_pct - row.accuracy_pct


RESPONSES: Mapping[str, Response] = {
    "ln drop": (
        lambda r: log(_drop(r) / _teacher_error(r)),
        lambda r, y: r.teacher_accuracy_pct - _teacher_error(r) * exp(y),
    ),
    "ln error": (
        lambda r: log((100 - r.accuracy_pct) / _teacher_error(r)),
        lambda r, y: 100 - _teacher_error(r) * exp(y),
    ),
    "drop": (_drop, lambda r, y: r.teacher_accuracy_pct - y),
}


def predicted(
    row: AccuracyRow,
    others: Sequence[AccuracyRow],
    response: Response,
    methods: Sequence[str],
    sizes: Sequence[Column],
) -> float:
    """Predict a row's accuracy by a fit to the others."""
    teachers = list(dict.fromkeys(other.teacher for other in others))

    def line(one: AccuracyRow) -> NDArray[np.float64]:
        own = [float(one.teacher == teacher) for teacher in teachers]
        trained = [float(one.method == method) for method in methods]
        return np.array([*own, *trained, *(size(one) for size in sizes)])

    design = np.array([line(other) for other in others])
    lowest = np.full(design.shape[1], -np.inf)
    lowest[len(teachers) + len(methods) :] = 0.0
    wanted = np.array([response[0](other) for other in others])
    found = lsq_linear(design, wanted, bounds=(lowest, np.inf), method="bvls").x
    return response[1](row, float(line(row) @ found))


def main() -> None:
    """Compare all forms."""
    rows = published_rows()
    table = Table(title=f"leave-one-out, root mean square over {len(rows)} rows")
    for name in ("fitted", "methods", "sizes", "points", "points, CIFAR-10", "ln drop"):
        table.add_column(name)
    for fitted, response in RESPONSES.items():
        for trained, methods in METHODS.items():
            for name, sizes in SIZES.items():
                values = [
                    predicted(row, [*rows[:i], *rows[i + 1 :]], response, methods, sizes)
                    for i, row in enumerate(rows)
                ]
                table.add_row(fitted, trained, name, *_errors(rows, values))
    Console(width=100).print(table)


def _errors(rows: Sequence[AccuracyRow], values: Sequence[float]) -> tuple[str, str, str]:
    points = [value - row.accuracy_pct for row, value in zip(rows, values, strict=True)]
    near = [e for row, e in zip(rows, points, strict=True) if row.teacher.title == CIFAR_10]
    logs = [
        log(max(row.teacher_accuracy_pct - value, 0.02) / _drop(row))
        for row, value in zip(rows, values, strict=True)
    ]
    first, second, third = (sqrt(float(np.mean(np.square(e)))) for e in (points, near, logs))
    return f"{first:.3f}", f"{second:.3f}", f"{third:.3f}"


if __name__ == "__main__":
    main()
