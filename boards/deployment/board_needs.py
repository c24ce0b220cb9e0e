"""Needs of a board: what must be there already, and packages that are brought.

Packages are downloaded here as wheels for its architecture and Python, so that boards need no
internet.  They are kept in the user's cache and taken again, so that a second deployment moves
nothing: newer versions come when the folder is removed.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncssh

from boards.deployment import PACKAGED, WORKER_BYTES, BoardFacts, BoardProbe, BoardShare
from boards.tls.credential import CERTIFICATE_FILE, parse_certificate
from nonn_common.errors import BoardError, InputError, NonnError
from nonn_common.units import format_bytes
from nonn_core.export.bundle import content_hash

LISTS = {"x86_64": "worker.txt", "aarch64": "worker.txt", "armv7l": "worker-32bit.txt"}
"""List of packages for each architecture that has wheels of all of them."""
LEAST_PYTHON = (3, 11)
OF_THE_SYSTEM = ("cffi", "numpy", "pyyaml")
"""Packages that a 32-bit board has from its system, as they have no wheels for it."""
_WITHOUT_NEEDS = ("cryptography", "ncnn")
"""Packages whose needs the system has."""
_OLDEST_GLIBC = 17
_LEAST_SYSTEMD = 250
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/")  # noqa: S108  (what the unit cannot see)
_LIMIT_S = 1800.0
_PROBE = (
    "uname -m; python3 -c 'import struct, sys; "
    'print(*sys.version_info[:2], 8 * struct.calcsize("P"))\' || echo 0 0 0'
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def cache_folder() -> Path:
    """Folder of all wheels that were downloaded."""
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return shared / "nonn-plan" / "wheels"


def wheelhouse(probe: BoardProbe, glibc: str) -> Path:
    """Folder of wheels for boards of this kind, whether they are there yet or not."""
    list_text = (PACKAGED / LISTS[probe.machine]).read_bytes()
    python = "{}{}".format(*probe.python)
    digest = content_hash(list_text)[:8]
    return cache_folder() / f"{probe.machine}-cp{python}-glibc{glibc}-{digest}"


def fetch_wheels(probe: BoardProbe, glibc: str) -> tuple[Path, ...]:
    """Wheels for boards of this kind, from the cache or else from the package index.

    Raises BoardError where pip finds none that fit, NonnError where the system refuses.
    """
    folder = wheelhouse(probe, glibc)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as place:
                new = Path(place) / "wheels"
                for wanted in _requirements(probe.machine):
                    _download(new, wanted, probe, glibc)
                new.rename(folder)
        except OSError as error:
            raise NonnError(
                f"{folder}: wheels cannot be kept here: {error.strerror or error}; make room, or "
                "name another folder in XDG_CACHE_HOME"
            ) from None
    return tuple(sorted(folder.glob("*.whl")))


async def probe_board(connected: asyncssh.SSHClientConnection) -> BoardProbe:
    """Architecture and Python of a board; raises InputError where there are no packages for it."""
    said = await connected.run(_PROBE, check=False)
    words = str(said.stdout or "").split()[-4:]
    if len(words) < 4:
        raise BoardError(f"the board's shell does not answer: {said.stderr or said.stdout!r}")
    machine, (major, minor, bits) = words[0], map(int, words[1:])
    if machine == "aarch64" and bits == 32:
        machine = "armv7l"
    require_kind(machine, (major, minor))
    return BoardProbe(machine=machine, python=(major, minor))


def require_kind(machine: str, python: Sequence[int]) -> None:
    """Refuse a board for which there are no wheels; raises InputError."""
    if machine not in LISTS:
        raise InputError(
            "no packages are built for this architecture",
            where="architecture",
            found=machine,
            allowed=", ".join(LISTS),
            fix="plan without this board, or put another system on its card",
        )
    if tuple(python) < LEAST_PYTHON:
        raise InputError(
            "too old, or not there",
            where="Python",
            found=".".join(map(str, python)) if any(python) else "none",
            allowed="{}.{} or newer".format(*LEAST_PYTHON),
            fix="sudo apt install python3, or a newer system",
        )


def board_faults(share: BoardShare, probe: BoardProbe, facts: BoardFacts) -> tuple[str, ...]:
    """Reasons why a board cannot take its share, but for room: found, allowed, next step."""
    needed = WORKER_BYTES + share.memory_bytes
    own = share.identity.folder / CERTIFICATE_FILE
    certificate = parse_certificate(share.identity.certificate, own)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = datetime.fromtimestamp(max(facts.time_s, 0), UTC)
    folder = share.access.folder
    found = [
        ("memory", format_bytes(facts.available_bytes), f"at least {format_bytes(needed)} free",
         "end other programs, or plan fewer students for this board",
         facts.available_bytes < needed),
        ("clock", f"{clock:%Y-%m-%d %H:%M} UTC", f"{begins:%Y-%m-%d} to {ends:%Y-%m-%d}, as its "
         "certificate", "let it reach a time server (timedatectl), or set it",
         not begins <= clock <= ends),
        ("C library", "no glibc, or an old one", "glibc 2.17 or newer", "another system on its "
         "card", not facts.glibc),
        ("systemd", facts.systemd, f"{_LEAST_SYSTEMD} or newer, or none", "a newer system, or "
         "`ssh: {sudo: false}`", facts.service == "systemd" and facts.systemd < _LEAST_SYSTEMD),
        ("folder", folder, "one that the unit can see, such as /opt/nonn-plan", "ssh.folder in "
         "boards.yaml", facts.service == "systemd" and f"{folder}/".startswith(_HIDDEN)),
        ("folder", facts.foreign, "an empty one, or a deployment's", "ssh.folder in boards.yaml",
         bool(facts.foreign)),
        ("packages of the system", f"no {', '.join(facts.lacks)}", ", ".join(OF_THE_SYSTEM),
         "sudo apt install python3-numpy python3-cffi python3-yaml",
         probe.machine == "armv7l" and bool(facts.lacks)),
    ]  # fmt: skip
    return tuple(
        f"{what}: found {seen}; allowed: {allowed}; {fix}"
        for what, seen, allowed, fix, bad in found
        if bad
    )


def platforms(machine: str, glibc: str) -> tuple[str, ...]:
    """Platform tags of wheels that run with this glibc (PEP 600), the newest first."""
    newest = int(glibc.split(".")[1])
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
    return (*tags, f"manylinux2014_{machine}", f"linux_{machine}")


def _requirements(machine: str) -> tuple[tuple[str, ...], ...]:
    """Arguments of each download: packages with their needs, and some without."""
    lines = (PACKAGED / LISTS[machine]).read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    named = {line: _name(line) for line in listed}
    if machine != "armv7l":
        return ((*listed, "pip"),)
    apart = {*OF_THE_SYSTEM, *_WITHOUT_NEEDS}
    return (
        (*(line for line in listed if named[line] not in apart), "pip"),
        ("--no-deps", *(line for line in listed if named[line] in _WITHOUT_NEEDS)),
    )


def _name(line: str) -> str:
    match = _NAME.match(line)
    return match[0].lower() if match else ""


def _download(folder: Path, wanted: Sequence[str], probe: BoardProbe, glibc: str) -> None:
    """Let pip download wheels; raises BoardError with its words."""
    tags = [word for tag in platforms(probe.machine, glibc) for word in ("--platform", tag)]
    python = "{}.{}".format(*probe.python)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    only = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *tags]
    command = [sys.executable, "-m", "pip", "download", *quiet, "--dest", str(folder), *only]
    try:
        done = subprocess.run(  # noqa: S603
            [*command, *wanted],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"pip could not download wheels: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BoardError(
            f"wheels for {probe.machine}, Python {python}, could not be downloaded: {said[0]}; "
            f"this machine must reach a package index once, or have the wheels in "
            f"{wheelhouse(probe, glibc)}"
        )
