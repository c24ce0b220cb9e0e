"""Agent of a deployment: runs on a board while `deploy` works there.

It needs the standard library alone, is sent over ssh each time and is not installed.  Requests and
answers are lines of JSON; the bytes of a file follow its request.

::

    FOLDER/releases/NAME/      bundle/, keys/, code/, worker.env, run, environment -> its packages
    FOLDER/environments/HASH/  packages that several releases share
    FOLDER/store/SHA256        files of releases, each once, linked from there
    FOLDER/current, previous   releases: the one that runs, and the one before it

A release is made under another name and renamed; `current` is replaced in one step.  Whatever ends
in between, the release that runs stays whole.
"""

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from boards.deployment.board_service import (
    PROCESS_FILES,
    ProcessService,
    RefusalError,
    SystemdService,
    resident_bytes,
    run_step,
    systemd_version,
)

READY = "nonn-plan agent is ready"
MARKER = ".nonn-plan"
"""File by which a folder is known to be a deployment's; it names the parents that were made."""
STARTED = "started"
"""File that names the release that was started last, if that was done to the end."""
CODE = "code.zip"
_LOCK_S = 10.0
_PIECE = 1 << 16


class Agent:
    """One deployment's work on a board, in its folder."""

    def __init__(self, folder: Path, board: str) -> None:
        self.folder = folder
        self._systemd = systemd_version()
        root = os.geteuid() == 0
        kind = SystemdService if self._systemd and root else ProcessService
        self.service: SystemdService | ProcessService = kind(folder, board)
        self._lock: IO[str] | None = None

    def handle(self, request: Mapping[str, Any], reader: IO[bytes]) -> Any:
        """Carry out one request; raises RefusalError and OSError."""
        if request["do"] == "put":
            return self._put(request, reader)
        steps: dict[str, Callable[..., Any]] = {
            "facts": self.facts,
            "prepare": self.prepare,
            "activate": self.activate,
            "prune": self.prune,
            "remove": self.remove,
            "log": self.service.log,
            "ended": self.service.ended,
        }
        return steps[request["do"]](*request.get("with", ()))

    def close(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()

    def facts(self) -> dict[str, Any]:
        """Facts that decide what the board needs, and whether it can take it."""
        memory = _memory()
        return {
            "time_s": time.time(),
            "available_bytes": memory["MemAvailable"]
            + sum(map(resident_bytes, self.service.pids())),
            "free_bytes": shutil.disk_usage(self._nearest()).free,
            "glibc": platform.libc_ver()[1] if platform.libc_ver()[0] == "glibc" else "",
            "lacks": [name for name in ("numpy", "cffi", "yaml") if not _importable(name)],
            "service": self.service.kind,
            "systemd": self._systemd,
            "foreign": self._foreign(),
            "current": self._release("current"),
            "previous": self._release("previous"),
            "running": bool(self.service.pids()) and self._is_started(),
            "store": self._whole(),
            "environments": [path.parent.name for path in self._in("environments/*/complete")],
        }

    def prepare(self, release: Mapping[str, Any]) -> None:
        """Make a release of files that are in the store; what runs is not touched."""
        self._own()
        new = self.folder / "releases" / ".new"
        environment = self.folder / "environments" / release["environment"]
        try:
            self._make_environment(release, environment)
            target = self.folder / "releases" / release["name"]
            if not target.exists():
                self._make_release(release, environment, new)
                os.sync()
                new.rename(target)
            self._link(release, target)
            os.sync()
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if not (environment / "complete").exists():
                shutil.rmtree(environment, ignore_errors=True)

    def activate(self, name: str, before: str | None = None) -> None:
        """Make a release the current one, and restart the worker.

        The previous one is to be `before`, or else the one that was current until now.
        """
        self._own()
        replaced = self._release_name("current")
        if before is None and replaced != name:
            before = replaced
        if before is not None:
            self._point("previous", before)
        started = self.folder / STARTED
        started.unlink(missing_ok=True)
        self._point("current", name)
        self.service.install()
        self.service.restart()
        started.write_text(name)

    def prune(self) -> None:
        """Remove what neither the current nor the previous release needs."""
        self._own()
        kept = [self._release(each) for each in ("current", "previous")]
        known = [each for each in kept if each]
        files = {one["sha256"] for each in known for one in each["files"]}
        for path in self._in("store/*"):
            if path.name not in files:
                path.unlink()
        for folder, field in (("releases", "name"), ("environments", "environment")):
            names = {each[field] for each in known}
            for path in self._in(f"{folder}/*"):
                if path.name not in names:
                    shutil.rmtree(path)

    def remove(self) -> list[str]:
        """Remove all that deployments made; gives the names of what is left in the folder."""
        if not (self.folder / MARKER).exists():
            return self._names()
        self._own()
        parents = json.loads((self.folder / MARKER).read_text())
        self.service.remove()
        for name in ("releases", "environments", "store"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        links = ("current", "previous", ".current.new", ".previous.new")
        for name in (*links, *PROCESS_FILES, STARTED, ".lock", MARKER):
            (self.folder / name).unlink(missing_ok=True)
        left = self._names()
        with suppress(OSError):
            for path in (self.folder, *map(Path, parents)):
                path.rmdir()
        return left

    def _put(self, request: Mapping[str, Any], reader: IO[bytes]) -> None:
        """Take a file into the store, whole or not at all."""
        left, digest, refusal = int(request["size"]), hashlib.sha256(), None
        part = self.folder / "store" / f".part-{request['sha256'][:8]}"
        try:
            self._own()
            stream: IO[bytes] | None = part.open("wb")
        except (OSError, RefusalError) as error:
            refusal, stream = error, None
        while left:
            piece = reader.read(min(left, _PIECE))
            if not piece:
                part.unlink(missing_ok=True)
                raise SystemExit(1)
            left -= len(piece)
            digest.update(piece)
            try:
                if stream is not None and refusal is None:
                    stream.write(piece)
            except OSError as error:
                refusal = error
        try:
            if refusal is not None or stream is None:
                raise refusal or RefusalError("no room")
            with stream:
                stream.flush()
                os.fsync(stream.fileno())
            if digest.hexdigest() != request["sha256"]:
                raise RefusalError("a file came damaged", request["sha256"], fix="deploy again")
            part.chmod(request["mode"])
            part.replace(part.with_name(request["sha256"]))
        except BaseException:
            with suppress(OSError):
                if stream is not None:
                    stream.close()
            part.unlink(missing_ok=True)
            raise

    def _make_environment(self, release: Mapping[str, Any], target: Path) -> None:
        """Install a release's packages, unless that was done before."""
        if (target / "complete").exists():
            return
        shutil.rmtree(target, ignore_errors=True)
        shown = ["--system-site-packages"] * bool(release["system_packages"])
        fix = "sudo apt install python3-venv"
        run_step(
            [sys.executable, "-m", "venv", "--without-pip", *shown, target], fix, for_host=True
        )
        named = target / "wheels"
        named.mkdir()
        for wheel in release["wheels"]:
            os.link(self.folder / "store" / wheel["sha256"], named / wheel["path"])
        pip = next(named.glob("pip-*.whl"))
        others = [path for path in sorted(named.iterdir()) if path != pip]
        quiet = ["--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
        root = ["--root-user-action=ignore", "--no-warn-script-location", "--no-input"]
        python = target / "bin" / "python"
        install = [python, "-I", pip / "pip", "install", "--quiet", *quiet, *root, *others]
        run_step(install, for_host=True)
        shutil.rmtree(named)
        os.sync()
        (target / "complete").touch()

    def _make_release(self, release: Mapping[str, Any], environment: Path, new: Path) -> None:
        """Make a release's folder, but for the files that it links."""
        shutil.rmtree(new, ignore_errors=True)
        (new / "keys").mkdir(parents=True, mode=0o700)
        (new / "environment").symlink_to(f"../../environments/{release['environment']}")
        self._make_code(release, environment, new / "code")
        (new / "release.json").write_text(json.dumps(release))

    def _make_code(self, release: Mapping[str, Any], environment: Path, target: Path) -> None:
        """Unpack and compile a release's code, or link that of a release like it."""
        digest, packages = _code_digest(release), release["environment"]
        for link in ("current", "previous"):
            known = self._release(link)
            if known and (_code_digest(known), known["environment"]) == (digest, packages):
                shutil.copytree(self.folder / link / "code", target, copy_function=os.link)
                return
        with zipfile.ZipFile(self.folder / "store" / digest) as packed:
            packed.extractall(target)
        # The service may write nothing, so that Python could not keep what it compiles.
        python = environment / "bin" / "python"
        options = ["-I", "-m", "compileall", "-q", "-s", target.parent, "-p", ""]
        run_step([python, *options, target], for_host=True)

    def _link(self, release: Mapping[str, Any], target: Path) -> None:
        """Link a release's files to those of the store, which are known to be whole."""
        for one in release["files"]:
            path, stored = target / one["path"], self.folder / "store" / one["sha256"]
            if path.exists() and path.samefile(stored):
                continue
            path.parent.mkdir(exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.unlink(missing_ok=True)
            os.link(stored, new)
            new.replace(path)

    def _own(self) -> None:
        """Make the folder, or make sure that it is a deployment's, and keep others out."""
        if self._lock is not None:
            return
        if found := self._foreign():
            raise RefusalError(
                f"{self.folder} holds something else than a deployment",
                found,
                "an empty folder, or none",
                "name another under ssh.folder in boards.yaml",
            )
        made = [str(path) for path in self.folder.parents if not path.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / ".lock").open("w")
        until_s = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    self._lock.close()
                    self._lock = None
                    raise RefusalError(
                        "another deployment works on this board", fix="wait until it has ended"
                    ) from None
                time.sleep(0.2)
        if not (self.folder / MARKER).exists():
            (self.folder / MARKER).write_text(json.dumps(made))
        for name in ("releases", "environments", "store"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "store").chmod(0o700)
        for path in self._in("store/.part-*"):
            path.unlink()

    def _foreign(self) -> str:
        """Name of something in the folder where that is no deployment's; else nothing."""
        found = {*self._names()} - {".lock"}
        return "" if MARKER in found else min(found, default="")

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def _nearest(self) -> Path:
        return next(path for path in (self.folder, *self.folder.parents) if path.exists())

    def _in(self, pattern: str) -> Iterable[Path]:
        return list(self.folder.glob(pattern))

    def _whole(self) -> list[str]:
        """Digests of stored files that are still what they were."""
        return [path.name for path in self._in("store/*") if _digest(path) == path.name]

    def _point(self, link: str, name: str) -> None:
        """Let a link name a release, in one step."""
        new = self.folder / f".{link}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(f"releases/{name}")
        new.replace(self.folder / link)
        if not name:
            (self.folder / link).unlink()
        os.sync()

    def _release_name(self, link: str) -> str:
        with suppress(OSError):
            return (self.folder / link).readlink().name
        return ""

    def _is_started(self) -> bool:
        with suppress(OSError):
            return (self.folder / STARTED).read_text() == self._release_name("current")
        return False

    def _release(self, link: str) -> Any:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / link / "release.json").read_text())
        return None


def _code_digest(release: Mapping[str, Any]) -> str:
    return next(str(one["sha256"]) for one in release["files"] if one["path"] == CODE)


def _memory() -> dict[str, int]:
    """Lines of /proc/meminfo, in bytes."""
    rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def _importable(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def serve(reader: IO[bytes], writer: IO[bytes]) -> None:
    """Answer requests until there are no more; the first names the folder and the board."""
    agent: Agent | None = None
    writer.write(f"{READY}\n".encode())
    writer.flush()
    for line in reader:
        request = json.loads(line)
        if agent is None:
            agent = Agent(Path(request["folder"]), request["board"])
        try:
            answer = {"answer": agent.handle(request, reader)}
        except RefusalError as error:
            answer = {"refused": error.parts}
        except OSError as error:
            if error.errno == errno.ENOSPC:
                # What came is of no use, and the board needs its room.
                with suppress(OSError, RefusalError):
                    agent.prune()
            what = error.strerror or type(error).__name__
            answer = {"refused": RefusalError(what, error.filename or "").parts}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.flush()
    if agent is not None:
        agent.close()


def main() -> None:
    """Serve the end of an ssh connection."""
    os.umask(0o022)
    serve(sys.stdin.buffer, sys.stdout.buffer)
