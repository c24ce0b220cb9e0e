"""Tensors on disk: safetensors, written atomically, read with errors that name the tensor.

The format says where each tensor lies but not whether it is still what was written, so that a
digest of all of them goes along.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from profiles.document import write_atomic
from profiles.errors import InputError

_SEAL = "nonn_plan"
"""The one entry beside the tensors: safetensors writes several in any order."""
_START_ANEW = "remove the file to start anew"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: object = None) -> None:
    """Write tensors and a JSON-able note to one file, atomically; raises NonnError."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seal = json.dumps({"note": note, "sha256": _digest(content, note)})
    write_atomic(path, save(content, metadata={_SEAL: seal}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read tensors and the note; raises InputError that names the file if it is damaged.

    A file of somebody else has neither note nor digest, and is taken as it is.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"is not a whole safetensors file: {error}",
            where=str(path),
            fix=_START_ANEW,
        ) from None
    if _SEAL not in metadata:
        return tensors, None
    try:
        seal = json.loads(metadata[_SEAL])
        whole = seal["sha256"] == _digest(tensors, seal["note"])
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(
            "is damaged: it does not hold what was written", where=str(path), fix=_START_ANEW
        )
    return tensors, seal["note"]


def fingerprint(module: nn.Module) -> str:
    """Return a digest of a module's weights; other weights under the same name have another one."""
    digest = hashlib.blake2b(digest_size=16)
    for value in module.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a module; raises InputError unless names and shapes are the module's."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        allowed = tuple(wanted[name].shape) if name in wanted else "nothing"
        if found != allowed:
            raise InputError(
                f"weights of another network: tensor {name}",
                where=str(path),
                found=found,
                allowed=str(allowed),
            )
    module.load_state_dict(dict(tensors))


def _digest(tensors: Mapping[str, Tensor], note: object) -> str:
    digest = hashlib.sha256(json.dumps(note).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
