"""Where networks that are not ours come from: a package that can be imported, or a file.

`package.module:callable` runs the user's own code, which is its purpose.  A `.pt2` file is read by
`torch.export.load`, which unpickles: like any pickle it may run whatever its author wants.  Both
are for networks whose author is trusted.
"""

import importlib
import logging
import operator
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from profiles.errors import InputError

PROGRAM_SUFFIX = ".pt2"


def import_network(reference: str) -> nn.Module:
    """Call `package.module:callable`, the current directory being looked in first."""
    name, _, attribute = reference.partition(":")
    with _current_folder_first():
        with blamed(reference, "cannot be imported"):
            module = importlib.import_module(name)
        with blamed(reference, "cannot be built"):
            network = operator.attrgetter(attribute)(module)()
    if not isinstance(network, nn.Module):
        raise InputError(
            "does not return a network",
            where=reference,
            found=type(network).__name__,
            allowed="a torch.nn.Module with its weights",
        )
    return network


def read_program(path: Path) -> ExportedProgram:
    """Read what `torch.export.save` wrote; raises InputError that names the file."""
    if not path.is_file():
        raise InputError("no such teacher", where=str(path))
    with blamed(str(path), "is not a whole exported program"), _quiet("torch.export"):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        return move_to_device_pass(torch.export.load(path), "cpu")


@contextmanager
def blamed(where: str, what: str) -> Iterator[None]:
    """Say of any error that somebody else's code made it; InputErrors are our own."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what}: {type(error).__name__}: {said}", where=where) from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Keep a library from printing the traceback of an error that it also raises."""
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
