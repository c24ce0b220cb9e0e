"""A registry of the YAML profiles of one kind that ship inside this package."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Generic, TypeVar

from nonn_common.document import Document, plain_yaml
from nonn_common.errors import ProfileError

Profile = TypeVar("Profile", bound=Document)


@dataclass(frozen=True)
class Registry(Generic[Profile]):
    """Profiles of one `kind`, one file each, in `profiles/data/<folder>/<name>.yaml`."""

    kind: type[Profile]
    noun: str
    folder: str

    def names(self) -> tuple[str, ...]:
        """Names of all profiles of this registry, sorted."""
        return _shipped_names(self.folder)

    def get(self, name: str, where: str | None = None, also: Iterable[str] = ()) -> Profile:
        """The profile called `name`.

        Raises ProfileError, with the names that come close, when there is none; `where` is the
        file and field, or the option, that asked for it; `also` are names known elsewhere.
        """
        if name not in self.names():
            raise unknown_name(self.noun, name, (*also, *self.names()), where)
        found: Profile = _shipped(self, name)
        return found


def unknown_name(
    noun: str, name: str, known: Sequence[str], where: str | None = None
) -> ProfileError:
    """Build the error for a `name` that is not among the `known` ones."""
    close = get_close_matches(name, known, n=3)
    return ProfileError(
        f"unknown {noun}",
        where=where,
        found=name,
        allowed=", ".join(known),
        fix=f"did you mean {' or '.join(close)}?" if close else None,
    )


@cache
def _shipped_names(folder: str) -> tuple[str, ...]:
    entries = (files("profiles") / "data" / folder).iterdir()
    return tuple(sorted(e.name.removesuffix(".yaml") for e in entries if e.name.endswith(".yaml")))


@cache
def _shipped(registry: Registry[Profile], name: str) -> Profile:
    file = files("profiles") / "data" / registry.folder / f"{name}.yaml"
    content = plain_yaml(file.read_text(encoding="utf-8"))
    return registry.kind.check(content, where=f"{registry.folder}/{name}.yaml")
