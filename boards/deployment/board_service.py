"""Services of a board: what starts its worker, keeps it up and ends it.

Sent with the agent, so that it needs the standard library alone.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

SYSTEMD = Path("/run/systemd/system")
"""Folder that is there where systemd has started the board (sd_booted(3))."""
PROCESS_FILES = ("worker.pid", "worker.ended", "worker.log", "worker.log.1")
"""Files of a worker without systemd."""
_UNITS = Path("/etc/systemd/system")
_STOP_S = 20.0
_STEP_S = 1800.0
"""Limit of one step, such as the unpacking of packages on a slow card."""


class RefusalError(Exception):
    """A request that cannot be carried out, with the parts of an error."""

    def __init__(self, what: str, found: object = "", allowed: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.parts = {"what": what, "found": str(found), "allowed": allowed, "fix": fix}


def run_step(command: Sequence[object], fix: str = "", *, for_host: bool = False) -> str:
    """Output of a command; raises RefusalError with its last words where it fails.

    One `for_host` is ended, and the process with it, when the host that asked for it is gone.
    """
    begun_s, words = time.monotonic(), list(map(str, command))
    try:
        process = subprocess.Popen(  # noqa: S603
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise RefusalError(f"{words[0]} could not be run", error, fix=fix) from None
    with process:
        while True:
            with suppress(subprocess.TimeoutExpired):
                said = process.communicate(timeout=0.5)[0]
                break
            late = time.monotonic() - begun_s > _STEP_S
            if late or (for_host and host_is_gone()):
                process.kill()
                if not late:
                    raise SystemExit(1)
    if process.returncode:
        last = " ".join(said.split())[-300:]
        raise RefusalError(f"`{' '.join(words[:3])} ...` failed on the board", last, fix=fix)
    return said


def host_is_gone() -> bool:
    """Whether nobody is at the other end of stdin any more."""
    waiting = select.poll()
    waiting.register(0, select.POLLRDHUP)
    return bool(waiting.poll(0))


class SystemdService:
    """A board's worker as a unit of systemd, which starts with the board."""

    kind = "systemd"

    def __init__(self, folder: Path, board: str) -> None:
        self._folder, self.name = folder, f"nonn-worker@{board}.service"
        self._unit = _UNITS / self.name

    def install(self) -> None:
        """Install the unit of the current release."""
        text = (self._folder / "current" / "worker.service").read_bytes()
        if self._unit.exists() and self._unit.read_bytes() == text:
            return
        new = self._unit.with_name(f".{self.name}.new")
        new.write_bytes(text)
        new.replace(self._unit)
        run_step(["systemctl", "daemon-reload"])
        run_step(["systemctl", "enable", self.name])

    def restart(self) -> None:
        """Start the current release in place of what runs."""
        run_step(["systemctl", "restart", self.name])

    def remove(self) -> None:
        """Stop the worker and remove its unit; settings beside it are the user's."""
        if self._unit.exists():
            run_step(["systemctl", "disable", "--now", self.name])
            self._unit.unlink()
            run_step(["systemctl", "daemon-reload"])

    def pids(self) -> tuple[int, ...]:
        """Processes of the worker."""
        shown = run_step(["systemctl", "show", "--property=MainPID", "--value", self.name])
        return tuple(int(text) for text in shown.split() if text.isdecimal() and int(text))

    def ended(self) -> bool:
        """Whether the worker has ended by itself since it was started."""
        shown = run_step(["systemctl", "show", "--property=NRestarts", "--value", self.name])
        return shown.strip() not in ("", "0")

    def log(self) -> str:
        """The last lines that the worker said."""
        lines = ["journalctl", "--unit", self.name, "--lines=5", "--no-pager", "--output=cat"]
        with suppress(RefusalError):
            return run_step(lines)
        return ""


class ProcessService:
    """A board's worker in a session of its own, kept up by the script `run`.

    For boards without systemd, and for users without root.
    """

    kind = "process"

    def __init__(self, folder: Path, board: str) -> None:
        del board
        self._folder, self._pid_file = folder, folder / "worker.pid"
        self._ended = folder / "worker.ended"

    def install(self) -> None:
        """Nothing to install: `run` is part of the release."""

    def restart(self) -> None:
        """Start the current release in place of what runs."""
        self._stop()
        self._ended.unlink(missing_ok=True)
        started = subprocess.Popen(  # noqa: S603
            [str(self._folder / "current" / "run")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._pid_file.write_text(str(started.pid))

    def remove(self) -> None:
        """Stop the worker."""
        self._stop()

    def pids(self) -> tuple[int, ...]:
        """Processes of the session that its file names, as far as they are ours."""
        with suppress(OSError, ValueError):
            session = int(self._pid_file.read_text())
            found = [path.name for path in Path("/proc").iterdir() if path.name.isdecimal()]
            return tuple(pid for pid in map(int, found) if self._owns(pid, session))
        return ()

    def ended(self) -> bool:
        """Whether the worker has ended by itself since it was started, as `run` notes."""
        return self._ended.exists()

    def log(self) -> str:
        """The last lines that the worker said."""
        with suppress(OSError):
            lines = (self._folder / "worker.log").read_text(errors="replace").splitlines()
            return "\n".join(lines[-5:])
        return ""

    def _owns(self, pid: int, session: int) -> bool:
        """Whether a process is of the session, and of this folder: PIDs are used again."""
        with suppress(OSError, IndexError):
            place = Path(f"/proc/{pid}")
            state, *rest = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
            ours = os.fsencode(self._folder) + b"/" in (place / "cmdline").read_bytes()
            return state not in "ZX" and int(rest[2]) == session and ours
        return False

    def _stop(self) -> None:
        """End the worker, politely first, and wait until it has ended."""
        for number, seconds in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
            until_s = time.monotonic() + seconds
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            while self.pids() and time.monotonic() < until_s:
                time.sleep(0.05)
        if left := self.pids():
            raise RefusalError("the worker before this one does not end", left)


def systemd_version() -> int:
    """Version of the systemd that runs this board; 0 where none does."""
    if not SYSTEMD.is_dir():
        return 0
    with suppress(RefusalError, IndexError, ValueError):
        return int(run_step(["systemctl", "--version"]).split()[1])
    return 0


def resident_bytes(pid: int) -> int:
    """Bytes of memory of a process, which is free when it has ended."""
    with suppress(OSError, IndexError, ValueError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0
