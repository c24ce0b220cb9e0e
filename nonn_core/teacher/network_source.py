"""Sources of foreign networks: code that can be imported, and exported programs.

`package.module:callable` runs the user's own code, which is its purpose; a file from somebody else
that names code needs the user's trust.  A `.pt2` file holds a graph and weights: whatever in it
could run code is refused.
"""

import importlib
import logging
import operator
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from nonn_common.errors import InputError

PROGRAM_SUFFIX = ".pt2"
_PICKLED_PREFIX = "opaque_obj_"
"""Begins the names of constants of an exported program that Python's unpickler restores."""
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def import_network(reference: str) -> nn.Module:
    """Call `package.module:callable`, the current directory being looked in first."""
    name, _, attribute = reference.partition(":")
    with _current_folder_first():
        with as_input_error(reference, "cannot be imported"):
            module = importlib.import_module(name)
        with as_input_error(reference, "cannot be built"):
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
    """Read what `torch.export.save` wrote, weights and graph alone.

    Raises InputError that names the file, also where it holds objects that only code can restore.
    """
    if not path.is_file():
        raise InputError("no such teacher", where=str(path))
    with as_input_error(str(path), "is not a whole exported program"), _quiet("torch.export"):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        if any(name.startswith(_PICKLED_PREFIX) for name in names):
            raise InputError(
                "holds objects that only code can restore",
                where=str(path),
                fix="export the network without custom objects",
            )
        with _weights_only():
            return move_to_device_pass(torch.export.load(path), "cpu")


@contextmanager
def as_input_error(where: str, what: str) -> Iterator[None]:
    """Say of any error that somebody else's code made it; InputErrors are our own."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what}: {type(error).__name__}: {said}", where=where) from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch read weights alone, also where its reader of programs would take any pickle."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


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
