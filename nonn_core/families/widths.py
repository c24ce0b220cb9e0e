"""Widths in the names of networks: numbers of channels, separated by commas."""

from itertools import product

from profiles.errors import InputError

WIDEST = 16_384
_FIRST_EIGHTHS, _MIDDLE_EIGHTHS, _LAST_EIGHTHS = (2, 4), (2, 3, 4), (1, 2, 3, 4)


def parse_widths(text: str, name: str, notation: str) -> tuple[int, ...]:
    """Read `32,64,88`; raises InputError that names the whole network."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise InputError("not the name of a network", found=name, allowed=notation) from None


def check_widths(widths: tuple[int, ...], count: int) -> None:
    """Raise InputError unless there are `count` widths from 1 to the widest."""
    if len(widths) != count or min(widths) < 1 or max(widths) > WIDEST:
        raise InputError(
            "not the widths of a network",
            found=",".join(map(str, widths)),
            allowed=f"{count} numbers of 1 to {WIDEST} channels",
        )


def proportion(widths: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Scale widths so that the first one is `first`."""
    return tuple(max(1, width * first // widths[0]) for width in widths)


def narrowed(widths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return widths of at most half: shares of the first, of the middle, and of the last ones."""
    shares = product(_FIRST_EIGHTHS, _MIDDLE_EIGHTHS, _LAST_EIGHTHS)
    found = (
        tuple(
            max(1, width * share // 8)
            for width, share in zip(
                widths, (first, *[middle] * (len(widths) - 2), last), strict=True
            )
        )
        for first, middle, last in shares
    )
    return tuple(dict.fromkeys(found))
