"""A keyring: the folder in which the authority, the host and each board have a folder of keys.

::

    KEYS/authority/  certificate.pem, key.pem                 stays where it is
    KEYS/host/       authority.pem, certificate.pem, key.pem  for `host`, `validate` and the like
    KEYS/<board>/    authority.pem, certificate.pem, key.pem  goes to that board

A folder is made under a temporary name and then renamed: what has its name is whole.  Nothing that
exists is replaced.
"""

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from boards.credentials import pem
from boards.credentials.authority import Authority, KeyPair
from boards.credentials.facts import CertificateFacts, facts
from boards.credentials.holder import AUTHORITY, HOST, THE_HOST, Holder, require_apart
from boards.credentials.identity import AUTHORITY as AUTHORITY_FILE
from boards.credentials.identity import Identity
from profiles.errors import InputError, NonnError

_UNFINISHED = ".new-"


def make_keys(keys: Path, boards: Sequence[Holder]) -> tuple[str, ...]:
    """Make the folders that are missing: the authority's, the host's, each board's.

    Returns the names of the folders that were made.  A run that was killed is finished by the next.
    Raises InputError, before anything is made, where a board is named twice or a folder that exists
    is not what was asked for; NonnError where the system refuses.
    """
    repeated = [name for name, count in Counter(each.name for each in boards).items() if count > 1]
    if repeated:
        raise InputError("a board is named twice", found=", ".join(repeated))
    try:
        with _held(keys):
            return _made(keys, (THE_HOST, *boards))
    except (FileExistsError, NotADirectoryError):
        raise InputError("a file is where a folder of keys should be", where=str(keys)) from None
    except OSError as error:
        raise NonnError(
            f"{keys}: keys cannot be made here: {error.strerror or error}; what is whole stays; "
            "make room or choose another place, and run the command again"
        ) from error


def list_keys(keys: Path) -> tuple[CertificateFacts, ...]:
    """Return what the certificates of a keyring say: the authority's, the host's, the boards'.

    Raises InputError where there are none, or where one cannot be read.
    """
    folders = _folders(keys)
    if not folders:
        raise InputError(
            "holds no keys", where=str(keys), fix=f"make them: nonn-plan keys init {keys}"
        )
    return tuple(_facts(keys / name) for name in folders)


def _made(keys: Path, holders: Sequence[Holder]) -> tuple[str, ...]:
    missing = [each for each in holders if not _there(keys / each.name)]
    for holder in holders:
        if holder not in missing:
            _require_as_asked(keys, holder)
    addresses = {name: _facts(keys / name).addresses for name in _folders(keys)}
    require_apart({**addresses, **{each.name: each.addresses for each in missing}})
    authority, made = _authority(keys)
    for holder in missing:
        pair = authority.issue(holder, datetime.now(UTC))
        _put(keys / holder.name, pair, {AUTHORITY_FILE: authority.pair.certificate})
    return (*made, *(each.name for each in missing))


def _authority(keys: Path) -> tuple[Authority, tuple[str, ...]]:
    """Return the authority of `keys`, and its name if it had to be made."""
    folder = keys / AUTHORITY
    if _there(folder):
        return Authority.read(folder), ()
    if _folders(keys):
        raise InputError(
            "the authority that signed the certificates beside it is not here",
            where=str(folder),
            fix="put it back, or make all keys in another folder",
        )
    authority = Authority.make(datetime.now(UTC))
    _put(folder, authority.pair, {})
    return authority, (AUTHORITY,)


def _require_as_asked(keys: Path, holder: Holder) -> None:
    """Make sure that the folder that exists is the holder's; raises InputError."""
    folder = keys / holder.name
    where = str(folder / pem.CERTIFICATE)
    identity = Identity.read(folder)
    certificate = pem.certificate(identity.certificate, Path(where))
    known = keys / AUTHORITY / pem.CERTIFICATE
    if _there(known):
        pem.require_issued(certificate, pem.certificate(pem.content(known), known), Path(where))
    found = facts(certificate)
    if found.name != holder.name:
        raise InputError("is the certificate of another", where=where, found=found.name)
    if not set(holder.addresses) <= set(found.addresses):
        raise InputError(
            "is there and has other addresses; it is not replaced",
            where=where,
            found=", ".join(found.addresses) or "no address",
            allowed=", ".join(holder.addresses),
            fix=f"leave the addresses out, or {pem.NEW_KEYS}",
        )


def _folders(keys: Path) -> tuple[str, ...]:
    """Return the names of the folders of keys: the authority, the host, then the boards."""
    names = {path.parent.name for path in keys.glob(f"*/{pem.CERTIFICATE}")}
    found = {name for name in names if not name.startswith(_UNFINISHED)}
    return tuple(sorted(found, key=lambda name: (name != AUTHORITY, name != HOST, name)))


def _facts(folder: Path) -> CertificateFacts:
    path = folder / pem.CERTIFICATE
    return facts(pem.certificate(pem.content(path), path))


def _there(path: Path) -> bool:
    """Whether anything has this name, be it a link that leads nowhere."""
    return path.exists() or path.is_symlink()


@contextmanager
def _held(keys: Path) -> Iterator[None]:
    """Keep other processes from making keys here; remove what one that was killed left."""
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(keys, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, keys)
        for unfinished in keys.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(unfinished)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, keys: Path) -> None:
    """Hold `keys` until its descriptor is closed, which the end of a process does, too."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NonnError(f"{keys}: keys are being made here already; wait for that") from None


def _put(folder: Path, pair: KeyPair, others: Mapping[str, bytes]) -> None:
    """Write a folder of keys whole, durably, or not at all."""
    contents = {**others, pem.CERTIFICATE: pair.certificate, pem.KEY: pair.key}
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder.parent) as place:
        new = Path(place) / folder.name
        new.mkdir(mode=0o700)
        for name, content in contents.items():
            _write(new / name, content, 0o600 if name == pem.KEY else 0o644)
        _sync(new)
        new.rename(folder)
    _sync(folder.parent)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file that never, not even while it is empty, had a wider mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
