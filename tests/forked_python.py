"""Python processes that start in milliseconds: forks of one that has imported what they need.

A template imports modules once, and then does what `python -c` or `python -m` would, in a fork for
each start. Its forks have memory, files, signals and exit codes of their own; what they share is
that their imports are done. A start by `subprocess` costs seconds of importing each time.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

TRAINING = ("nonn_core.distillation.run", "nonn_core.data.dataset", "torch._dynamo")
"""What a process imports that trains, the last one by the first step of a torch optimiser."""
LARGEST = 1 << 17
"""Bytes of a request: arguments and environment of a process."""


class ForkedProcess:
    """A started process, with what tests need of `subprocess.Popen`."""

    def __init__(self, pid, status, stdout, stderr, text):
        mode = {"mode": "r", "encoding": "utf-8"} if text else {"mode": "rb"}
        self.pid, self._status, self.returncode = pid, status, None
        self.stdout, self.stderr = os.fdopen(stdout, **mode), os.fdopen(stderr, **mode)

    def poll(self):
        return self._ended(0)

    def wait(self, timeout=None):
        if self._ended(None if timeout is None else 1000 * timeout) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Read all that it still says, and wait for its end."""
        said = []
        reader = threading.Thread(target=lambda: said.append(self.stderr.read()))
        guard = threading.Timer(timeout or 600, self.kill)
        reader.start()
        guard.start()
        out = self.stdout.read()
        reader.join()
        self.stdout.close()
        self.stderr.close()
        try:
            self.wait(timeout)
        finally:
            guard.cancel()
            guard.join()
        return out, said[0]

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout_ms):
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._status, select.POLLIN)
            if waiting.poll(timeout_ms):
                self.returncode = int(os.read(self._status, 16))
                os.close(self._status)
        return self.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stdout.close()
        self.stderr.close()
        self.wait()


class Template:
    """A process that has run the code `before`, has imported `modules`, and forks."""

    def __init__(self, modules, before):
        self._control, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one = threading.Lock()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(there.fileno()), before, *modules],
                pass_fds=[there.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def start(self, *line, env=None, cwd=None, text=True, stdin=b""):
        """Start what `python *line` starts: `-c CODE ...` or `-m MODULE ...`."""
        asked = {
            "line": list(map(str, line)),
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
        }
        (out, out_end), (err, err_end), (status, status_end) = (os.pipe() for _ in range(3))
        with tempfile.TemporaryFile() as said:
            said.write(stdin)
            said.seek(0)
            theirs = [said.fileno(), out_end, err_end, status_end]
            with self._one:
                socket.send_fds(self._control, [json.dumps(asked).encode()], theirs)
                pid = int(self._control.recv(16) or b"-1")
        for end in theirs[1:]:
            os.close(end)
        if pid < 0:
            raise AssertionError("the template has ended: see its own words above")
        return ForkedProcess(pid, status, out, err, text)

    def end(self):
        self._control.close()
        self._process.wait()


_templates = []


@functools.cache
def template(*modules, before=""):
    """The template that has run the code, then imported these; it lasts until the tests end."""
    _templates.append(Template(modules, before))
    return _templates[-1]


def run_forked(made, *line, timeout=120, **more):
    """Run `python *line` as `subprocess.run` does, its output captured."""
    process = made.start(*line, **more)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def end_templates():
    template.cache_clear()
    while _templates:
        _templates.pop().end()


def _serve(control):
    """Fork for each request; return it in the fork, and nothing when nobody asks any more."""
    statuses = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting = select.poll()
    for each in (control.fileno(), woken):
        waiting.register(each, select.POLLIN)
    while True:
        ready = [found for found, _ in waiting.poll()]
        if woken in ready:
            os.read(woken, 64)
            _reap(statuses)
        if control.fileno() not in ready:
            continue
        content, files, *_ = socket.recv_fds(control, LARGEST, 4)
        if not content:
            return None
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)
            for each in (woken, wake, files[3], *statuses.values()):
                os.close(each)
            control.close()
            return json.loads(content), files[:3]
        statuses[pid] = files[3]
        for each in files[:3]:
            os.close(each)
        control.send(str(pid).encode())


def _reap(statuses):
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        os.write(statuses[pid], str(os.waitstatus_to_exitcode(status)).encode())
        os.close(statuses.pop(pid))


def _become(asked, files):
    """Be the process that was asked for, up to its code."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])


def _main():
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.path[0] = ""
    exec(sys.argv[2], {})  # noqa: S102  (code of a test)
    for name in sys.argv[3:]:
        importlib.import_module(name)
    gc.freeze()
    served = _serve(control)
    if served is None:
        return
    asked, files = served
    _become(asked, files)
    kind, what, *arguments = asked["line"]
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        own = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), own.__dict__)  # noqa: S102  (code of a test)


if __name__ == "__main__":
    _main()
