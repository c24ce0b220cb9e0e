"""What computes results: this machine, and the versions of what runs on it."""

import platform
from importlib import metadata
from pathlib import Path

import torch

from nonn_core.tables.results import Machine


def machine(device: str) -> Machine:
    """Describe this machine."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if on_gpu else None,
    )


def versions() -> dict[str, str]:
    """Return the versions of what computes results."""
    names = ("nonn-plan", "torch", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
