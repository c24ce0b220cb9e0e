"""Boards with a real sshd, each in a network namespace and with a file system of its own.

What a board would keep lies in memory: its folder of deployments, its units, /run.  Its programs
are this machine's; those in `bin` come first.  (SHLVL: bash reads no ~/.bashrc, whose PATH would be
before it.)
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from emulated_plans import made_fleet

from boards.emulation.namespace import board_namespaces, detect
from profiles.fleet import resolve

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
MOUNTED = ("/run", "/srv", "/etc/systemd")
UNSHARE = shutil.which("unshare")
TRIAL = f"set -e; for each in {' '.join(MOUNTED)}; do mount -t tmpfs tmpfs $each; done"
MOUNTS = UNSHARE is not None and not subprocess.call(
    [UNSHARE, "-m", "sh", "-c", TRIAL], stderr=subprocess.DEVNULL
)
CAN = detect() if SSHD and os.geteuid() == 0 else None
MISSING = next(
    (
        why
        for why, bad in (
            ("no sshd here", SSHD is None),
            ("not root", os.geteuid() != 0),
            ("no network namespaces here", CAN is None or not CAN.namespaces),
            ("no file systems of one's own here", not MOUNTS),
        )
        if bad
    ),
    "",
)
FOLDER = "/srv/nonn-plan"
_MOUNTS = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size={room} tmpfs /srv
mount -t tmpfs tmpfs /etc/systemd
mkdir -p /run/sshd /etc/systemd/system {systemd}
exec {sshd} -D -e -f {config}
"""
_CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
SetEnv PATH={folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin SHLVL=2
"""


def make_key(path):
    """A pair of keys of ssh, in a moment."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
    subprocess.run(command, check=True, capture_output=True)
    return path.with_suffix(".pub").read_text().strip()


class SshBoard:
    """A board that can be logged in to, and looked into by its path `root`."""

    def __init__(self, folder, endpoint, authorized, room="200m", systemd=False):
        self.folder, self.address, self._endpoint = folder, endpoint.board, endpoint
        (folder / "bin").mkdir(parents=True)
        self.host_key = make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(authorized + "\n")
        (folder / "sshd_config").write_text(_CONFIG.format(folder=folder))
        self.program("python3", f'exec {sys._base_executable} "$@"')
        script = _MOUNTS.format(
            room=room,
            systemd="/run/systemd/system" if systemd else "",
            sshd=SSHD,
            config=folder / "sshd_config",
        )
        command = ["ip", "netns", "exec", endpoint.namespace, "unshare", "-m", "sh", "-c", script]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_listening()

    def wait_listening(self):
        log, until_s = self.folder / "log", time.monotonic() + 20
        while "Server listening" not in log.read_text():
            assert time.monotonic() < until_s, log.read_text()
            time.sleep(0.02)

    def program(self, name, script):
        """Put a shell script first among the board's programs."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    @property
    def root(self):
        """The folder of deployments as this process sees it."""
        return Path(f"/proc/{self.process.pid}/root{FOLDER}")

    @property
    def units(self):
        return Path(f"/proc/{self.process.pid}/root/etc/systemd/system")

    def end(self):
        self.process.kill()
        self.process.wait()


@contextmanager
def ssh_boards(folder, **asked):
    """Boards of these names by `SshBoard`'s arguments; None is one that nobody answers for.

    Gives them, all addresses, and makes `folder` a home with a key and the boards' host keys.
    """
    _, boards = resolve(made_fleet([{"name": "wired", "bits_per_s": 1e9}] * len(asked)))
    ssh = folder / ".ssh"
    ssh.mkdir(parents=True)
    authorized, made = make_key(ssh / "id_ed25519"), {}
    with board_namespaces(boards, CAN) as endpoints, ExitStack() as stack:
        places = dict(zip(asked, endpoints.values(), strict=True))
        for name, options in asked.items():
            if options is not None:
                made[name] = SshBoard(folder / name, places[name], authorized, **options)
                stack.callback(made[name].end)
        known = [f"{each.address} {each.host_key}" for each in made.values()]
        (ssh / "known_hosts").write_text("\n".join(known) + "\n")
        yield made, {name: place.board for name, place in places.items()}


UNPACKING = """
import sys, sysconfig, zipfile
for word in sys.argv:
    if word.endswith(".whl"):
        zipfile.ZipFile(word).extractall(sysconfig.get_path("purelib"))
"""
"""A stand-in for pip, which takes two seconds a time."""


def write_wheels(folder, real_pip=False):
    """Packages that install in a moment: pip, and one that borrows those of this process."""
    import pip

    folder.mkdir(parents=True)
    code = Path(pip.__file__).parent
    path = folder / f"pip-{pip.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for each in code.rglob("*") if real_pip else ():
            if each.suffix != ".pyc" and each.is_file():
                packed.write(each, each.relative_to(code.parent))
        if not real_pip:
            packed.writestr("pip/__main__.py", UNPACKING)
    info = "borrowed-1.0.dist-info"
    content = {
        "borrowed.pth": f"{sysconfig.get_path('purelib')}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: borrowed\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    rows = []
    for name, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        rows.append(f"{name},sha256={digest.decode()},{len(text)}")
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / "borrowed-1.0-py3-none-any.whl", "w") as packed:
        for name, text in content.items():
            packed.writestr(name, text)
