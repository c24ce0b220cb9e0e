"""Deployment: releases of boards, made of files that are known by their digests."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field

from boards.host.connection import BoardTask, board_tasks
from boards.protocol.address import BoardAddress, BoardAddresses, SshAccess
from boards.tls.credential import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    REVOKED_FILE,
    board_subject,
    parse_certificate,
)
from boards.tls.identity import Identity
from boards.worker.model_runtime import onnx_file
from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.export.bundle import (
    MANIFEST,
    BundledFile,
    BundledModel,
    Manifest,
    content_hash,
    read_bundled,
)
from planner.plan_file.plan_document import PlanDocument

ROOMS = ("nonn_common", "profiles", "nonn_core", "simulator", "planner", "boards", "nonn_plan")
"""Packages of nonn-plan: the board runs the version that deploys."""
PACKAGED = Path(str(files("boards.deployment")))
"""Folder of the unit and the lists of packages, which docs/ links to."""
WORKER_BYTES = 115_000_000
"""Memory of a worker without its students, measured on aarch64."""
UNPACKED = 3.2
"""Room that packages take on a card, in sizes of their wheels (165 MB of 54 MB)."""

_ANY = {4: "0.0.0.0", 6: "[::]"}  # noqa: S104  (a board answers on all of its addresses)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNIT = "nonn-worker@.service"
_PLAIN, _SECRET, _PROGRAM = 0o644, 0o600, 0o755
_RUN = """#!/bin/sh
# Keeps the worker of {board} up where there is no systemd; for the start of the board:
#   setsid {folder}/current/run &
cd /
echo $$ > {folder}/worker.pid
log={folder}/worker.log
trap 'ending=1; kill "$child"' TERM INT
export PYTHONPATH={folder}/current/code
while [ -z "$ending" ]; do
    : >> "$log"
    [ "$(wc -c < "$log")" -gt 1000000 ] && mv "$log" "$log.1"
    {worker} {options} >> "$log" 2>&1 &
    child=$!
    wait "$child" || [ -n "$ending" ] || {{ echo $? > {folder}/worker.ended; sleep 5; }}
done
wait
"""


class ReleaseFile(Record):
    """A file of a release, or a wheel of its packages."""

    path: str = Field(description="Path in the release's folder; name of a wheel.")
    sha256: str = Field(description="SHA-256 of its content.")
    size_bytes: int = Field(ge=0, description="Its size.")
    mode: int = Field(default=_PLAIN, description="Its rights.")


class Release(Record):
    """All that a board runs for one plan; equal content has equal names."""

    name: str = Field(default="", description="First digits of the SHA-256 of all the rest.")
    board: str = Field(description="Name of the board.")
    students: tuple[str, ...] = Field(description="Names of its students, or of G0.")
    port: int = Field(description="Port of the standard protocol.")
    environment: str = Field(description="Digest of its packages and its Python.")
    system_packages: bool = Field(description="Whether packages of the system are used, too.")
    files: tuple[ReleaseFile, ...] = Field(description="Its files.")
    wheels: tuple[ReleaseFile, ...] = Field(description="Its packages.")

    def missing(self, facts: "BoardFacts") -> tuple[ReleaseFile, ...]:
        """Files, and packages, that the board does not have; equal content comes once."""
        installed = self.environment in facts.environments
        needed = {one.sha256: one for one in (*self.files, *(() if installed else self.wheels))}
        return tuple(one for digest, one in needed.items() if digest not in facts.store)

    def room_bytes(self, facts: "BoardFacts") -> int:
        """Room on the card that it takes beside what is there."""
        installed = self.environment in facts.environments
        wheels = 0 if installed else sum(one.size_bytes for one in self.wheels)
        moved = sum(one.size_bytes for one in self.missing(facts))
        # Code is unpacked and compiled for each release.
        code = 8 * next(one.size_bytes for one in self.files if one.path == "code.zip")
        return moved + int(UNPACKED * wheels) + code


class BoardFacts(Record):
    """Facts that an agent reports of its board."""

    time_s: float = Field(description="Its clock, in seconds since 1970.")
    available_bytes: int = Field(description="Memory that is free without its worker.")
    free_bytes: int = Field(description="Room on its card.")
    glibc: str = Field(description="Version of glibc; nothing where another library is there.")
    lacks: tuple[str, ...] = Field(description="Packages of its Python that a 32-bit board needs.")
    service: Literal["systemd", "process"] = Field(description="What keeps its worker up.")
    systemd: int = Field(description="Version of systemd; 0 where it does not run.")
    foreign: str = Field(description="Something in the folder that is no deployment's.")
    current: Release | None = Field(description="Release that runs.")
    previous: Release | None = Field(description="Release before it.")
    running: bool = Field(description="Whether the worker of that release is a process now.")
    store: tuple[str, ...] = Field(description="Digests of the files that are there, and whole.")
    environments: tuple[str, ...] = Field(description="Digests of the packages that are there.")


class BoardProbe(Record):
    """Facts of a board that decide whether an agent can run there."""

    machine: str = Field(description="Its architecture, of programs, not of the kernel.")
    python: tuple[int, int] = Field(description="Version of its Python.")


BoardState = Literal[
    "deployed", "unchanged", "planned", "rolled back", "removed", "serving", "silent", "stopped",
    "absent", "failed",
]  # fmt: skip


class BoardOutcome(Record):
    """Outcome of a command on one board."""

    board: str = Field(description="Name of the board.")
    state: BoardState = Field(description="planned: of --dry-run; silent: runs, no answer.")
    students: tuple[str, ...] = Field(default=(), description="Students of the release.")
    release: str | None = Field(default=None, description="Release that this is about.")
    previous: str | None = Field(default=None, description="Release to roll back to.")
    service: str | None = Field(default=None, description="systemd, or process.")
    moved: tuple[str, ...] = Field(default=(), description="Files that went there, or would.")
    moved_bytes: int = Field(default=0, ge=0, description="Bytes of them.")
    reasons: tuple[str, ...] = Field(default=(), description="Reasons of a failure.")
    notes: tuple[str, ...] = Field(default=(), description="What else is to be known.")

    @property
    def good(self) -> bool:
        """Whether the board is as it was asked to be."""
        return self.state not in ("failed", "silent", "stopped", "absent")


@dataclass(frozen=True)
class BoardShare:
    """A board's share of a plan: students, their memory in bytes, its keys."""

    task: BoardTask
    memory_bytes: int
    identity: Identity

    @property
    def board(self) -> BoardAddress:
        """Its address."""
        return self.task.board

    @property
    def access(self) -> SshAccess:
        """How it is reached."""
        return self.board.ssh or SshAccess()

    @property
    def students(self) -> tuple[str, ...]:
        """Names of its students, or of G0."""
        return tuple(model.name for model in self.task.models)

    def notes(self, facts: BoardFacts) -> tuple[str, ...]:
        """Sentences that a person must know of a board that works."""
        found = self.identity.expiry_warnings()
        if facts.service == "systemd":
            return found
        own = "no systemd here, or no root: the worker is not started with the board; let the "
        return (*found, f"{own}board's start run `setsid {self.access.folder}/current/run &`")


def board_shares(
    plan: PlanDocument, manifest: Manifest, addresses: BoardAddresses, keys: Path, where: str
) -> tuple[BoardShare, ...]:
    """Shares of a plan's boards; `keys` is the keyring, `where` names the file of addresses.

    Raises InputError, before any board is asked, for a bundle of another plan, a board without an
    address, and keys that are missing, revoked, or not good for what the plan asks.
    """
    found = []
    for task in board_tasks(plan, manifest, addresses, where):
        board_subject(task.name, where=where)
        if unfit := [each.name for each in task.models if not _NAME.fullmatch(each.name)]:
            raise InputError(
                "no name of a student that a unit can hold",
                where="bundle",
                found=unfit[0],
                allowed="letters, digits and . _ -",
            )
        identity = Identity.read(keys / task.name)
        identity.server_context()
        if task.receivers:
            identity.sender_context()
        own = keys / task.name / CERTIFICATE_FILE
        if identity.has_revoked(parse_certificate(identity.certificate, own)):
            raise InputError(
                "this board's certificate was taken back",
                where=str(own),
                fix=f"plan without {task.name}, or move the folder away and run `keys init`",
            )
        models = plan.decision.on(task.name)
        found.append(BoardShare(task, sum(one.memory_bytes for one in models), identity))
    return tuple(found)


@dataclass(frozen=True)
class Payload:
    """A release, and the content of its files by digest."""

    release: Release
    contents: Mapping[str, bytes | Path]

    def content(self, digest: str) -> bytes:
        """Content of one file."""
        found = self.contents[digest]
        return found if isinstance(found, bytes) else found.read_bytes()


def make_payload(
    share: BoardShare, bundle: Path, probe: BoardProbe, wheels: Sequence[Path]
) -> Payload:
    """Release of a board's share for its architecture and Python, with these wheels.

    Raises InputError where the bundle lacks a model in the form that the board needs.
    """
    made: list[ReleaseFile] = []
    contents: dict[str, bytes | Path] = {}

    def add(path: str, content: bytes, mode: int = _PLAIN) -> None:
        digest = content_hash(content)
        contents[digest] = content
        size = len(content)
        made.append(ReleaseFile(path=path, sha256=digest, size_bytes=size, mode=mode))

    short = probe.machine == "armv7l"
    add(f"bundle/{MANIFEST}", (bundle / MANIFEST).read_bytes())
    for one in _model_files(share, bundle, short):
        add(f"bundle/{one.file}", read_bundled(bundle, one))
    for name, content in _key_files(share.identity).items():
        add(f"keys/{name}", content, _SECRET)
    add("code.zip", packed_code())
    for name, text, mode in _service_files(share):
        add(name, text.encode(), mode)
    packages = [_wheel(path) for path in wheels]
    contents |= {one.sha256: path for one, path in zip(packages, wheels, strict=True)}
    python = "{}.{}".format(*probe.python)
    used = json.dumps([python, short, sorted(one.sha256 for one in packages)])
    unnamed = Release(
        board=share.task.name,
        students=share.students,
        port=share.board.endpoint.port,
        environment=content_hash(used.encode())[:16],
        system_packages=short,
        files=tuple(made),
        wheels=tuple(packages),
    )
    name = content_hash(unnamed.model_dump_json().encode())[:12]
    return Payload(unnamed.model_copy(update={"name": name}), contents)


def _model_files(share: BoardShare, bundle: Path, short: bool) -> list[BundledFile]:
    """Files of the models that a board runs, as its worker will choose them."""
    joint = {name: model for model in share.task.joint for name in model.members}
    models: dict[str, BundledModel] = {}
    for model in share.task.models:
        chosen = joint.get(model.name, model)
        models[chosen.name] = chosen
    found: list[BundledFile] = []
    for model in models.values():
        if not short:
            found.append(onnx_file(bundle, model, None))
        elif model.ncnn is not None:
            found += [model.ncnn.param, model.ncnn.weights]
        else:
            raise InputError(
                f"the bundle has no ncnn model of {model.name}, which a 32-bit board needs",
                where=str(bundle / MANIFEST),
                fix="nonn-plan export --ncnn",
            )
    return found


def _key_files(identity: Identity) -> dict[str, bytes]:
    """Keys of one process, with the list of those that were revoked."""
    found = {
        AUTHORITY_FILE: identity.authority,
        CERTIFICATE_FILE: identity.certificate,
        KEY_FILE: identity.key,
    }
    if identity.revoked is not None:
        found[REVOKED_FILE] = (identity.folder / REVOKED_FILE).read_bytes()
    return found


def _service_files(share: BoardShare) -> list[tuple[str, str, int]]:
    """Name, text and rights of what starts a board's worker."""
    folder, address = share.access.folder, share.board.endpoint
    listen = f"{_ANY[6 if ':' in address.host else 4]}:{address.port}"
    words = [word for name in share.students for word in ("--student", name)]
    options = " ".join([*words, "--listen", listen])
    worker = f"{folder}/current/environment/bin/python -m nonn_plan worker {folder}/current/bundle"
    unit = (PACKAGED / _UNIT).read_text()
    for here, there in (
        ("EnvironmentFile=/etc/nonn/%i.env", f"EnvironmentFile={folder}/current/worker.env"),
        ("/etc/nonn/keys/%i/", f"{folder}/current/keys/"),
        (
            "ExecStart=/opt/nonn/bin/nonn-plan worker /var/lib/nonn/bundle",
            f"Environment=PYTHONPATH={folder}/current/code\nExecStart={worker}",
        ),
    ):
        unit = unit.replace(here, there)
    described = [line for line in unit.splitlines() if not line.startswith("#")]
    run = _RUN.format(
        board=share.task.name,
        folder=folder,
        worker=worker,
        options=f"{options} --keys {folder}/current/keys",
    )
    return [
        ("worker.env", f"WORKER={options}\n", _PLAIN),
        ("worker.service", "\n".join(described).strip() + "\n", _PLAIN),
        ("run", run, _PROGRAM),
    ]


@cache
def packed_code() -> bytes:
    """This version of nonn-plan as a ZIP archive, the same bytes for the same files."""
    own, stream = distribution("nonn-plan"), io.BytesIO()
    root = PACKAGED.parents[1]
    found = {
        str(path.relative_to(root)): path.read_bytes()
        for room in ROOMS
        for path in sorted((root / room).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    found[f"nonn_plan-{own.version}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: nonn-plan\nVersion: {own.version}\n".encode()
    )
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in found.items():
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _wheel(path: Path) -> ReleaseFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ReleaseFile(path=path.name, sha256=digest, size_bytes=path.stat().st_size)
