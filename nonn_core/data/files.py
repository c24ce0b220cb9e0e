"""Files and tar files that are read whole; what cannot be read is named."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from profiles.errors import InputError

Entry = tuple[PurePosixPath, bytes | None]
"""The name of a file and its content, or the name of a folder and None."""
# KeyError and RecursionError: links to a file that is not there, or to themselves.
_NO_TAR = (
    tarfile.TarError,
    EOFError,
    OSError,
    KeyError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
)


def read_bytes(file: Path) -> bytes:
    """Read a whole file; raises InputError that names it."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from None


def tar_entries(
    archive: Path, wanted: Callable[[PurePosixPath], bool], holds: str
) -> Iterator[Entry]:
    """Yield all folders and the wanted files of a tar file, in the archive's own order.

    Raises InputError that names the archive, and says what it should hold, where it is no tar file
    or is damaged anywhere, also behind its last wanted file.
    """
    if zipfile.is_zipfile(archive):
        raise InputError("is a zip file", where=str(archive), fix="unpack it and name the folder")
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                stream = tar.extractfile(member) if wanted(name) else None
                if stream is not None:
                    yield name, stream.read()
                elif member.isdir():
                    yield name, None
            _check_end(tar)
    except _NO_TAR as error:
        raise InputError(
            f"cannot be read as a tar file: {' '.join(str(error).split())}",
            where=str(archive),
            allowed=f"a folder, or a tar file (.tar, .tar.gz, ...), with {holds}",
        ) from None


def _check_end(tar: tarfile.TarFile) -> None:
    """Tell the end of the archive from a damaged header, at which tarfile stops in silence."""
    assert tar.fileobj is not None  # noqa: S101  (open for reading)
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(-1)
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(tarfile.NUL):
        raise tarfile.ReadError("damaged before its end")
