"""Who made what an emulated fleet leaves in the system, so that nothing outlives its owner.

Namespaces, links and folders carry a tag: the PID of the process that made them, and when that
process began, since PIDs are used again.  What a killed process left behind is found by its tag.
"""

import itertools
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from boards.emulation.system import called
from profiles.errors import BoardError

_TAG = re.compile(r"nonn-(?P<pid>\d+)-(?P<began>\d+)")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAMESPACES = Path("/run/netns")

_numbers = itertools.count()
_counting = threading.Lock()


def tag() -> str:
    """Return the tag of this process."""
    return f"nonn-{os.getpid()}-{_began(os.getpid())}"


def new_name() -> str:
    """Return a name, for a namespace or folder, that no other has and that begins with the tag."""
    return f"{tag()}-{_next()}"


def new_link() -> str:
    """Return a name for a link that no other has; the system allows it 15 letters."""
    return f"nn{_short(os.getpid())}x{_short(_next())}"


def remove_folders() -> None:
    """Remove the temporary folders of owners that are dead."""
    for folder in Path(tempfile.gettempdir()).glob("nonn-*-*"):
        if _orphaned(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def remove_networks() -> None:
    """Remove the namespaces, with the processes in them, and the links of owners that are dead."""
    for namespace in _namespaces():
        if _orphaned(namespace):
            remove_namespace(namespace)
    for link in json.loads(called(["ip", "-j", "link", "show"]) or "[]"):
        if _orphaned(link.get("ifalias", "")):
            remove_link(link["ifname"])


def remove_namespace(name: str) -> None:
    """End what runs in a namespace and remove it, if it is there."""
    with suppress(BoardError):
        for pid in called(["ip", "netns", "pids", name]).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with suppress(BoardError):
        called(["ip", "netns", "delete", name])


def remove_link(name: str) -> None:
    """Remove a link, if it is there."""
    with suppress(BoardError):
        called(["ip", "link", "delete", name])


def _namespaces() -> list[str]:
    try:
        return sorted(each.name for each in _NAMESPACES.iterdir())
    except OSError:
        return []


def _orphaned(name: str) -> bool:
    """Return whether `name` begins with the tag of a process that is dead."""
    match = _TAG.match(name)
    return match is not None and _began(int(match["pid"])) != int(match["began"])


def _began(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine did; None if it is no more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # What comes before is the name of the program, which may hold anything.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def _next() -> int:
    with _counting:
        return next(_numbers)


def _short(number: int) -> str:
    """Write a number in as few letters as there are."""
    text = ""
    while number or not text:
        number, digit = divmod(number, len(_LETTERS))
        text = _LETTERS[digit] + text
    return text
