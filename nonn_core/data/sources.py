"""Where a data set comes from: the text that `--data` and recipes name it by."""

from collections.abc import Callable
from functools import partial

from nonn_core.data.cifar import CIFAR10, CIFAR100, read_cifar
from nonn_core.data.digits import read_digits
from nonn_core.data.idx import read_idx
from nonn_core.data.imagefolder import read_image_folder
from nonn_core.data.raw import RawDataset
from nonn_core.progress import Progress, silent
from profiles.errors import InputError

_READERS: dict[str, Callable[[str, Progress], RawDataset]] = {
    "imagefolder": read_image_folder,
    "idx": read_idx,
    "cifar10": partial(read_cifar, CIFAR10),
    "cifar100": partial(read_cifar, CIFAR100),
}
ALLOWED = (
    "digits; imagefolder:PATH of a folder or tar file with train/ and test/; idx:PATH of a folder "
    "of MNIST-family files; cifar10:PATH or cifar100:PATH of the published binary version, as a "
    "folder or tar file"
)


def read_source(source: str, progress: Progress = silent) -> RawDataset:
    """Read `digits` or `KIND:PATH`; raises InputError that says what is wrong where."""
    if source == "digits":
        return read_digits()
    kind, _, path = source.partition(":")
    if kind not in _READERS or not path:
        raise InputError("not a data set", found=source, allowed=ALLOWED)
    return _READERS[kind](path, progress)
