"""The hardware: devices, links, fleets, and the provenance of their quantities."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from numbers import Real
from typing import Generic, Literal, TypeVar

from pydantic import Field, field_validator

from nonn_common.document import Document, Record, plain_yaml
from nonn_common.errors import ProfileError

Provenance = Literal["measured", "published", "fitted", "assumed"]


class Quantity(Record):
    """A non-negative number with its provenance.

    Its unit is the suffix of the field it fills.
    """

    value: float = Field(ge=0, description="The number, in the unit that ends the field's name.")
    provenance: Provenance = Field(
        description="measured on this board; published by others; fitted to measurements; "
        "assumed for want of a measurement."
    )
    source: str = Field(min_length=1, description="Table, page or reasoning the number rests on.")
    residual_pct: float | None = Field(
        default=None,
        ge=0,
        description="Largest relative error, in per cent, that the fit leaves on the rows it used; "
        "0 where it has as many figures as rows, which then says nothing of its error elsewhere.",
    )
    standard_error: float | None = Field(
        default=None,
        ge=0,
        description="Standard error of the value, in its unit; absent where there are not more "
        "rows than figures fitted to them, or where the value lies on its bound of zero.",
    )

    @field_validator("value", mode="before")
    @classmethod
    def _is_a_plain_number(cls, value: object) -> float:
        # YAML's 1e8 is a text, which counts; 100Mbit/s is none, and `true` is no 1.
        if isinstance(value, str | Real) and not isinstance(value, bool):
            with suppress(ValueError):
                return float(value)
        raise ValueError(
            f"must be a plain number, in the unit that ends the field's name; found {value!r}"
        )


Profile = TypeVar("Profile", bound=Document)


@dataclass(frozen=True)
class Registry(Generic[Profile]):
    """Profiles of one `kind`, one file each, in `profiles/data/<folder>/<name>.yaml`.

    Further ones are lines of one file, `table` in `profiles/data`, which is opened only for a name
    that has no file of its own.
    """

    kind: type[Profile]
    noun: str
    folder: str
    table: str | None = None

    def names(self) -> tuple[str, ...]:
        """Names of all profiles with a file of their own, sorted."""
        return _shipped_names(self.folder)

    def further_names(self) -> tuple[str, ...]:
        """Names of the profiles of the table, in its order."""
        return tuple(_shipped_lines(self.table)) if self.table else ()

    def lines_with(self, text: str) -> tuple[str, ...]:
        """Names of the profiles of the table in whose line this text stands."""
        lines = _shipped_lines(self.table) if self.table else {}
        return tuple(name for name, line in lines.items() if text in line)

    def has(self, name: str) -> bool:
        """Whether there is a profile called `name`."""
        return name in self.names() or name in self.further_names()

    def get(self, name: str, where: str | None = None, also: Iterable[str] = ()) -> Profile:
        """The profile called `name`.

        Raises ProfileError, with the names that come close, when there is none; `where` is the
        file and field, or the option, that asked for it; `also` are names known elsewhere.
        """
        if not self.has(name):
            known = (*also, *self.names())
            raise unknown_name(self.noun, name, known, where, self.further_names())
        found: Profile = _shipped(self, name)
        return found


def unknown_name(
    noun: str,
    name: str,
    known: Sequence[str],
    where: str | None = None,
    further: Sequence[str] = (),
) -> ProfileError:
    """Build the error for a `name` that is not among the `known` ones.

    `further` ones are counted; only those that come close are named.
    """
    close = get_close_matches(name, (*known, *further), n=3)
    more = f" and {len(further)} more (nonn-plan devices)" if further else ""
    return ProfileError(
        f"unknown {noun}",
        where=where,
        found=name,
        allowed=", ".join(known) + more,
        fix=f"did you mean {' or '.join(close)}?" if close else None,
    )


@cache
def _shipped_names(folder: str) -> tuple[str, ...]:
    entries = (files("profiles") / "data" / folder).iterdir()
    return tuple(sorted(e.name.removesuffix(".yaml") for e in entries if e.name.endswith(".yaml")))


@cache
def _shipped_lines(table: str) -> dict[str, str]:
    """Lines of a table of profiles by the name that each begins with."""
    text = (files("profiles") / "data" / table).read_text(encoding="utf-8")
    return {line.split('"', 4)[3]: line for line in text.splitlines()}


@cache
def _shipped(registry: Registry[Profile], name: str) -> Profile:
    if name not in registry.names() and registry.table is not None:
        line = json.loads(_shipped_lines(registry.table)[name])
        return registry.kind.check(line, where=f"{registry.table}, {name}")
    file = files("profiles") / "data" / registry.folder / f"{name}.yaml"
    content = plain_yaml(file.read_text(encoding="utf-8"))
    return registry.kind.check(content, where=f"{registry.folder}/{name}.yaml")
