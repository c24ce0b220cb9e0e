"""Recipes that differ in a few numbers, of which the best is wanted.  Torch-free."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

from nonn_core.recipe import DistillationRecipe, OptimiserRecipe, TrainingRecipe
from profiles.errors import InputError, TrainingError

Setting = Mapping[str, float]
"""A value for each field, named as in the recipe: `distillation.beta`."""
FIELDS = tuple(
    f"{part}.{name}"
    for part, record in (("distillation", DistillationRecipe), ("optimiser", OptimiserRecipe))
    for name in record.model_fields
)
_ALLOWED = "FIELD=VALUE,VALUE,... such as distillation.beta=10,100,1000,10000"


@dataclass(frozen=True, slots=True)
class Axis:
    """A field of a recipe, and the values that are tried for it."""

    field: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `distillation.beta=10,100`; raises InputError."""
        field, _, values = text.partition("=")
        if field not in FIELDS:
            raise InputError(
                "not a field whose values can be tried", found=field, allowed=", ".join(FIELDS)
            )
        try:
            numbers = tuple(dict.fromkeys(float(value) for value in values.split(",")))
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            raise InputError("not numbers to try", found=text, allowed=_ALLOWED)
        return cls(field, numbers)


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting, and the validation accuracy at the end of its run; None where it diverged."""

    setting: Setting
    validation_accuracy_pct: float | None


def settings(axes: Sequence[Axis]) -> tuple[Setting, ...]:
    """Return every combination of the axes' values, one empty setting where there is no axis.

    Raises InputError when two axes are of one field.
    """
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise InputError("a field is named twice", found=", ".join(fields))
    values = product(*(axis.values for axis in axes))
    return tuple(dict(zip(fields, each, strict=True)) for each in values)


def with_setting(recipe: TrainingRecipe, setting: Setting) -> TrainingRecipe:
    """Return the recipe with these values; raises InputError for one that it does not allow."""
    content = recipe.model_dump(mode="json")
    for field, value in setting.items():
        part, _, name = field.partition(".")
        content[part][name] = value
    return TrainingRecipe.check(content, where=f"a recipe with {label(setting)}")


def label(setting: Setting) -> str:
    """Name a setting: `beta=100,alpha=0.9`."""
    return ",".join(f"{field.partition('.')[2]}={value:.12g}" for field, value in setting.items())


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial of highest validation accuracy, the first of equals.

    Raises TrainingError when all of them diverged.
    """
    finished = [trial for trial in trials if trial.validation_accuracy_pct is not None]
    if not finished:
        raise TrainingError("training diverged with every setting; lower the learning rate or beta")
    return max(finished, key=lambda trial: trial.validation_accuracy_pct or 0.0)
