"""Tensors on disk: safetensors, written atomically, read with errors that name the tensor."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from profiles.document import write_atomic
from profiles.errors import InputError

_NOTE = "nonn_plan"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: object = None) -> None:
    """Write tensors and a JSON-able note to one file, atomically; raises NonnError."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(content, metadata={_NOTE: json.dumps(note)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read tensors and the note; raises InputError that names the file."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            note = json.loads((file.metadata() or {}).get(_NOTE, "null"))
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"is not a whole safetensors file: {error}",
            where=str(path),
            fix="remove the file to start anew",
        ) from None
    return tensors, note


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
