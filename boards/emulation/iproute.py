"""Calls of `ip` and `tc`: resources with their owner's tag, rates and delays of links.

Namespaces, links and folders carry a tag: the PID of the process that made them, and when that
process began, since PIDs are used again.  What a killed process left behind is found by its tag.

A link becomes lines for `tc`: its rate by tbf, its latency and loss by netem.  A link's rate is
what a message sees, so tbf's is higher by what frames add to their content.  A frame is at most
1500 bytes, and less on slow links, so that it takes about a millisecond; tbf lets one through at
once.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from nonn_common.errors import BoardError
from profiles.link import LinkProfile

Tool = Literal["ip", "tc"]

TIMEOUT_S = 30.0
"""How long one call may take; it takes milliseconds."""

_TAG = re.compile(r"nonn-(?P<pid>\d+)-(?P<began>\d+)")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAMESPACES = Path("/run/netns")
MAX_PACKET_BYTES, MIN_PACKET_BYTES = 1500, 296
_ETHERNET_BYTES = 14
_HEADER_BYTES = 52
"""IPv4, TCP, and its time stamps."""
_FRAME_MS = 1.0
_KERNEL_LAG_MS = 0.1
"""How late the kernel may be without a loss of rate."""
_QUEUE_BYTES = 4_000_000
_QUEUE_PACKETS = 100_000


def configure(tool: Tool, lines: Sequence[str], namespace: str | None = None) -> None:
    """Run `lines` by `ip` or `tc` in order, in a network namespace if given.

    Raises BoardError with what the tool says about the first line that fails.
    """
    if lines:
        within = [] if namespace is None else ["-n", namespace]
        run_command([tool, *within, "-batch", "-"], text="\n".join(lines) + "\n")


def run_command(command: Sequence[str], text: str = "") -> str:
    """Run a system command and return its output; raises BoardError where it fails."""
    try:
        done = subprocess.run(  # noqa: S603
            command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"`{' '.join(command)}` could not be run: {error}") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise BoardError(f"`{' '.join(command)}` failed: {said}")
    return done.stdout


_numbers = itertools.count()
_counting = threading.Lock()


def owner_tag() -> str:
    """Return the tag of this process."""
    return f"nonn-{os.getpid()}-{_start_ticks(os.getpid())}"


def new_tagged_name() -> str:
    """Return a unique name for a namespace or folder; it begins with the tag."""
    return f"{owner_tag()}-{_next_number()}"


def new_link_name() -> str:
    """Return a unique name for a link, of at most 15 letters."""
    return f"nn{_base36(os.getpid())}x{_base36(_next_number())}"


def remove_folders() -> None:
    """Remove temporary folders of dead owners."""
    for folder in Path(tempfile.gettempdir()).glob("nonn-*-*"):
        if _orphaned(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def remove_networks() -> None:
    """Remove namespaces, their processes, and links of dead owners."""
    for namespace in _namespaces():
        if _orphaned(namespace):
            remove_namespace(namespace)
    for link in json.loads(run_command(["ip", "-j", "link", "show"]) or "[]"):
        if _orphaned(link.get("ifalias", "")):
            remove_link(link["ifname"])


def remove_namespace(name: str) -> None:
    """End what runs in a namespace and remove it, if it is there."""
    with suppress(BoardError):
        for pid in run_command(["ip", "netns", "pids", name]).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with suppress(BoardError):
        run_command(["ip", "netns", "delete", name])


def remove_link(name: str) -> None:
    """Remove a link, if it is there."""
    with suppress(BoardError):
        run_command(["ip", "link", "delete", name])


def _namespaces() -> list[str]:
    try:
        return sorted(each.name for each in _NAMESPACES.iterdir())
    except OSError:
        return []


def _orphaned(name: str) -> bool:
    """Return whether `name` begins with the tag of a process that is dead."""
    match = _TAG.match(name)
    return match is not None and _start_ticks(int(match["pid"])) != int(match["began"])


def _start_ticks(pid: int) -> int | None:
    """Start time of a process, in ticks since boot; None if it is gone.

    psutil's create_time() is seconds since the epoch, which move when the clock is set: a living
    owner would seem dead.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # What comes before is the name of the program, which may hold anything.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def _next_number() -> int:
    with _counting:
        return next(_numbers)


def _base36(number: int) -> str:
    """Write a number in as few letters as there are."""
    text = ""
    while number or not text:
        number, digit = divmod(number, len(_LETTERS))
        text = _LETTERS[digit] + text
    return text


def packet_bytes(bits_per_s: float) -> int:
    """Return the largest packet, in bytes, of a link with this rate."""
    return max(MIN_PACKET_BYTES, min(MAX_PACKET_BYTES, int(bits_per_s * _FRAME_MS / 8000)))


def rate_line(device: str, bits_per_s: float, parent: str = "root") -> str:
    """Return the line that gives `device` a link's rate, in bit/s of content."""
    packet = packet_bytes(bits_per_s)
    frame = packet + _ETHERNET_BYTES
    raw = bits_per_s * frame / (packet - _HEADER_BYTES)
    burst = max(frame + 64, int(raw / 8000 * _KERNEL_LAG_MS))
    return (
        f"qdisc add dev {device} {parent} tbf rate {raw:.0f}bit burst {burst} limit {_QUEUE_BYTES}"
    )


def link_lines(device: str, link: LinkProfile, *, rate: bool, delays: bool) -> tuple[str, ...]:
    """`tc` lines that give what `device` sends the rate and delays of `link`."""
    bits_per_s = link.bits_per_s.value
    latency_ms, loss_pct = link.latency_ms.value, link.loss_pct.value
    if not delays or not (latency_ms or loss_pct):
        return (rate_line(device, bits_per_s),) if rate else ()
    netem = (
        f"qdisc add dev {device} root handle 1: netem limit {_QUEUE_PACKETS} "
        f"delay {latency_ms}ms loss {loss_pct}%"
    )
    return (netem, rate_line(device, bits_per_s, "parent 1:1")) if rate else (netem,)
