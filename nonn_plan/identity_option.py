"""The options that say who this machine is: its keys, or none on loopback."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiles.errors import InputError

if TYPE_CHECKING:
    from boards.credentials.identity import Identity

Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plain text without keys; on loopback only.")
]
HostKeys = Annotated[
    Path | None, typer.Option("--keys", help="Folder of the host's keys, of `keys init`.")
]
BoardKeys = Annotated[
    Path | None, typer.Option("--keys", help="Folder of this board's keys, of `keys init`.")
]


def identity_of(keys: Path | None, insecure: bool) -> "Identity | None":
    """Return the keys to be used; None for plain text.  Raises InputError for neither or both."""
    from boards.credentials.identity import Identity

    if (keys is None) != insecure:
        raise InputError(
            "either keys or --insecure",
            where="--keys",
            fix="make keys with `nonn-plan keys init`, or try on this machine with --insecure",
        )
    return None if keys is None else Identity.read(keys)
