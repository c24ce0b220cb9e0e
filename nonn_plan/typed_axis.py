"""What people type at `explore`: the values of a budget, from one to another in steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiles.errors import InputError

MOST_VALUES = 1000


@dataclass(frozen=True, slots=True)
class TypedAxis:
    """Values of a budget on every board, and what single boards have instead, as typed.

    One value, None, where nothing was said for every board.  `ends` are the least and the largest
    number that was typed for them: a range may end between two steps.
    """

    values: tuple[int | None, ...]
    own: tuple[str, ...]
    ends: tuple[int, int] | None

    @property
    def own_boards(self) -> frozenset[str]:
        """Names of the boards that have their own."""
        return frozenset(text.rpartition("=")[0] for text in self.own)


def typed_axis(
    option: str, texts: Sequence[str], parse: Callable[[str, str], int], *, ends: bool
) -> TypedAxis:
    """Read `300KB:1MB:50KB`, `300KB,500KB`, `500KB` and `BOARD=500KB`.

    `ends`: a range without steps, `300KB:1MB`, means its two ends.  Raises InputError.
    """
    own = tuple(text for text in texts if "=" in text)
    for text in own:
        parse(text.rpartition("=")[2], f"{option} {text}")
    ranges = [part.strip() for text in texts if "=" not in text for part in text.split(",")]
    values = [value for each in ranges for value in _values(option, each, parse, ends=ends)]
    typed = [parse(end, option) for each in ranges for end in each.split(":")[:2]]
    distinct = tuple(sorted(set(values)))
    if len(distinct) > MOST_VALUES:
        raise InputError(
            "too many values", where=option, found=len(distinct), allowed=f"up to {MOST_VALUES}"
        )
    return TypedAxis(distinct or (None,), own, (min(typed), max(typed)) if typed else None)


def _values(
    option: str, text: str, parse: Callable[[str, str], int], *, ends: bool
) -> Sequence[int]:
    where = f"{option} {text}"
    parts = [parse(part, where) for part in text.split(":")]
    if len(parts) == 1:
        return parts
    if len(parts) > 3 or (len(parts) == 2 and not ends):
        raise InputError(
            "not a range",
            where=option,
            found=text,
            allowed="START:STOP:STEP, or values with commas",
        )
    start, stop = parts[:2]
    if stop < start:
        raise InputError("the range ends before it starts", where=option, found=text)
    if len(parts) == 2:
        return sorted({start, stop})
    found = range(start, stop + 1, parts[2])
    if len(found) > MOST_VALUES:
        raise InputError(
            "too many values", where=option, found=text, allowed=f"up to {MOST_VALUES}"
        )
    return found
