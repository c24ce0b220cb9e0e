"""The base of every room: errors, documents, units, progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is (0 if unknown)."""


LEFT = " left"
"""End of what is being done where it tells itself how long it takes: `about 3 min left`."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody hears of."""
