"""Files of data sets: published addresses and checksums, and reading them whole.

What cannot be read is named.  Checksums are MD5 because that is what is published; they tell
a damaged file from a whole one.
"""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import InputError
from nonn_core.data.picture import PictureReading


class LabelledImages(NamedTuple):
    """Pixels uint8 (N, C, H, W) and labels int64 (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RawDataset:
    """Training and test images of one source; label k is the class `class_names[k]`."""

    class_names: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages
    mirrored: bool
    """Whether a mirrored image still shows its class: true of photographs, false of digits."""
    reading: PictureReading | None = None
    """How its pictures were read; None where images were read as they were published."""
    warnings: tuple[str, ...] = ()
    """Sentences on files that were left out and pictures that were changed."""


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


MOST_BYTES = 2**28
"""Bytes of one file in an archive, which may be packed into far fewer."""


def read_bytes(file: Path) -> bytes:
    """Read a whole file; raises InputError that names it."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from None


def tar_entries(
    archive: Path, wanted: Callable[[PurePosixPath], bool], holds: str
) -> Iterator[Entry]:
    """Folders and wanted files of a tar file, in its own order.

    Raises InputError that names the archive, and says what it should hold, where it is no tar file
    or is damaged anywhere, also behind its last wanted file, or holds too large a wanted file.
    """
    if zipfile.is_zipfile(archive):
        raise InputError("is a zip file", where=str(archive), fix="unpack it and name the folder")
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isdir():
                    yield name, None
                elif wanted(name) and (stream := tar.extractfile(member)) is not None:
                    content = stream.read(MOST_BYTES + 1)
                    if len(content) > MOST_BYTES:
                        raise InputError(
                            "too large a file",
                            where=f"{archive}: {name}",
                            found=f"{member.size} bytes",
                            allowed=f"up to {MOST_BYTES}",
                        )
                    yield name, content
            _check_end(tar)
    except _NO_TAR as error:
        raise InputError(
            f"cannot be read as a tar file: {' '.join(str(error).split())}",
            where=str(archive),
            allowed=f"a folder, or a tar file (.tar, .tar.gz, ...), with {holds}",
        ) from None


def _check_end(tar: tarfile.TarFile) -> None:
    """Tell the archive's end from a damaged header.

    tarfile stops at either in silence.
    """
    assert tar.fileobj is not None  # noqa: S101  (open for reading)
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(-1)
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(tarfile.NUL):
        raise tarfile.ReadError("damaged before its end")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file: where it is, and the MD5 of its content."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The name that it is saved under."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    """Files of a data set, and their kind of source."""

    kind: str
    files: tuple[PublishedFile, ...]

    def source(self, folder: Path) -> str:
        """Return the `--data` that reads the files when they lie in `folder`."""
        place = folder if self.kind == "idx" else folder / self.files[0].name
        return f"{self.kind}:{place}"


def _mnist_family(address: str, *md5: str) -> PublishedDataset:
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    return PublishedDataset(
        "idx",
        tuple(
            PublishedFile(f"{address}/{name}", digest)
            for name, digest in zip(names, md5, strict=True)
        ),
    )


def _cifar(kind: str, name: str, md5: str) -> PublishedDataset:
    return PublishedDataset(kind, (PublishedFile(f"https://www.cs.toronto.edu/~kriz/{name}", md5),))


PUBLISHED: Mapping[str, PublishedDataset] = {
    # The page of MNIST's authors no longer hands the files out; this is PyTorch's copy.
    "mnist": _mnist_family(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    # From the authors' repository: their storage server hands out other bytes to clients that take
    # .gz for an encoding (zalandoresearch/fashion-mnist, issue 77).
    "fashion-mnist": _mnist_family(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": _mnist_family(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    "cifar10": _cifar("cifar10", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": _cifar("cifar100", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
}
