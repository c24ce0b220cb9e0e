"""The machine that is measured: its name, clock, cores and memory, as the system tells them."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from boards.profiling.condition import clock_hz
from profiles.errors import InputError

_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a profile says of the hardware.  `cores` are those that this process may use."""

    name: str
    title: str
    board: str
    clock_hz: int
    cores: int
    ram_bytes: int


def this_machine(asked_hz: int | None = None, root: Path = Path("/")) -> Machine:
    """Describe this machine; `asked_hz` is its clock where a person knows better.

    Raises InputError where neither a person nor the system says the clock.
    """
    found_hz = asked_hz or clock_hz(root)
    if found_hz is None:
        raise InputError("the system does not say its clock", where="--clock", fix="--clock 1.2GHz")
    title = _title(root)
    return Machine(
        name=_plain(platform.node().partition(".")[0]) or "this-machine",
        title=title,
        board=_plain(title) or "unknown",
        clock_hz=found_hz,
        cores=len(os.sched_getaffinity(0)),
        ram_bytes=_ram_bytes(root),
    )


def _title(root: Path) -> str:
    """Return the model of a board, or of a processor."""
    try:
        model = (root / "proc/device-tree/model").read_text(errors="replace").strip("\0\n ")
    except OSError:
        model = ""
    if model:
        return model
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named and named[0] else platform.machine()


def _ram_bytes(root: Path) -> int:
    """Return the memory of the machine, or of this process's control group if that is less."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMITS:
        try:
            ram = min(ram, int((root / name).read_text()))
        except (OSError, ValueError):
            continue  # `max`, or another version of control groups.
    return ram


def _plain(text: str) -> str:
    """Return a name that commands and fleets take as it is."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
