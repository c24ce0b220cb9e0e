"""Fetch a published data set: whole files with the right checksum, or none."""

import logging
from pathlib import Path

import pooch

from nonn_common import Progress, silent
from nonn_common.document import check_place
from nonn_common.errors import InputError, NonnError
from nonn_core.data.files import PublishedDataset, PublishedFile

CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30
"""How long a server may say nothing."""
# A server that takes .gz for an encoding would have the file unpacked on the way.
_AS_IT_IS = {"Accept-Encoding": "identity"}


def download(
    dataset: PublishedDataset, folder: Path, progress: Progress = silent
) -> tuple[Path, ...]:
    """Fetch the files that are not in `folder` yet; return those that were fetched.

    Raises InputError, before anything is fetched, where a file of that name is there and is another
    one; NonnError when a file cannot be fetched or is not the published one.  Files fetched until
    then stay, no part of a file does.
    """
    missing = [file for file in dataset.files if not _is_there(file, folder / file.name)]
    for file in missing:
        check_place(folder / file.name)
    for file in missing:
        _fetch(file, folder, progress)
    return tuple(folder / file.name for file in missing)


def _is_there(file: PublishedFile, path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        found = pooch.file_hash(str(path), alg="md5")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if found != file.md5:
        raise InputError(
            "is another file than the published one and is not replaced",
            where=str(path),
            found=f"md5 {found}",
            allowed=f"md5 {file.md5}",
            fix="remove it or choose another folder",
        )
    return True


def _fetch(file: PublishedFile, folder: Path, progress: Progress) -> None:
    """Fetch one file; pooch writes under another name until the checksum is right."""
    # We say ourselves what is fetched.
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(
        progressbar=_Bar(file.name, progress),
        chunk_size=CHUNK_BYTES,
        timeout=TIMEOUT_S,
        headers=_AS_IT_IS,
    )
    try:
        pooch.retrieve(
            file.url,
            known_hash=f"md5:{file.md5}",
            fname=file.name,
            path=folder,
            downloader=downloader,
        )
    except OSError as error:
        # Of the network, where requests raises its own kinds of OSError, or of the disk.
        raise NonnError(
            f"{file.url}: could not be fetched into {folder}: {error}; nothing of it was kept; "
            "check the connection and the disk, and run the command again"
        ) from None
    except ValueError as error:
        raise NonnError(f"{file.url}: {error} Run the command again") from None


class _Bar:
    """Progress bar of pooch, passed on to ours in kB.

    pooch sets `total` (bytes, 0 if unknown), and at the end resets the bar and fills it.
    """

    def __init__(self, name: str, progress: Progress) -> None:
        self.total = 0
        self._name, self._progress, self._done = name, progress, 0

    def update(self, size_bytes: int) -> None:
        # The last chunk is counted as a whole one.
        self._done = min(self._done + size_bytes, self.total or self._done + size_bytes)
        self._progress(f"fetching {self._name} (kB)", self._done // 1000, self.total // 1000)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass
