"""A 64-bit Arm board in QEMU: a whole machine, with the units and the network of a real one."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from board_image import Entry, archive, found_tool

MEMORY = "1G"
KERNEL_LINE = (
    # Not tmpfs, which would take half of the memory at most.
    "console=ttyAMA0 rdinit=/lib/systemd/systemd rootfstype=ramfs quiet systemd.show_status=0"
)
MARK = "---done---"


class EmulatedBoard:
    """A machine that starts when this is made, runs commands as root, and ends with `end`.

    Raises TimeoutError where it says nothing for longer than a start takes.
    """

    def __init__(
        self, kernel: Path, image: Path, own: list[Entry], ports: range, place: Path
    ) -> None:
        whole, line = place / "initial.cpio", place / "serial"
        with whole.open("wb") as target, image.open("rb") as source:
            shutil.copyfileobj(source, target)
            target.write(archive(own))
        # Numbered as on the board: a worker says which port its frames have.
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{each}-:{each}" for each in ports)
        self._machine = subprocess.Popen(
            [
                *(
                    found_tool("qemu-system-aarch64"),
                    "-M",
                    "virt",
                    "-cpu",
                    "cortex-a53",
                    "-m",
                    MEMORY,
                ),
                *("-nodefaults", "-display", "none", "-no-reboot"),
                *("-kernel", str(kernel), "-initrd", str(whole), "-append", KERNEL_LINE),
                *("-chardev", f"socket,id=line,path={line},server=on,wait=off"),
                *("-serial", "chardev:line"),
                *("-netdev", f"user,id=net,restrict=on,{forwards}"),
                *("-device", "virtio-net-device,netdev=net"),
            ],
            stdin=subprocess.DEVNULL,
        )
        self._line = socket.socket(socket.AF_UNIX)
        while not line.exists():
            assert self._machine.poll() is None
            time.sleep(0.02)
        self._line.connect(str(line))

    def wait_for_shell(self, timeout_s: float = 300.0) -> None:
        """Wait until commands are taken."""
        self._read_until(b"ready\n", timeout_s)

    def run(self, command: str, timeout_s: float = 120.0) -> str:
        """Run a command of the shell; what it wrote.  Raises AssertionError where it fails."""
        self._line.sendall(f"{command}\necho {MARK} $?.\n".encode())
        text, _, status = self._read_until(b".\n", timeout_s, MARK.encode()).partition(MARK)
        if status != " 0":
            raise AssertionError(f"{command}: {status}: {text}")
        return text

    def _read_until(self, end: bytes, timeout_s: float, after: bytes = b"") -> str:
        """Read up to `end`, once `after` was read."""
        self._line.settimeout(timeout_s)
        said = b""
        while (place := said.find(end, max(0, said.find(after)))) < 0 or after not in said:
            piece = self._line.recv(65536)
            if not piece:
                raise AssertionError(f"the machine ended: {said!r}")
            said += piece
        return said[:place].decode(errors="replace")

    def processor_s(self) -> float:
        """Processor time that the machine has taken of this one, in seconds."""
        fields = Path(f"/proc/{self._machine.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Take the machine's power away."""
        self._line.close()
        self._machine.send_signal(signal.SIGKILL)
        self._machine.wait()


def free_ports(count: int) -> range:
    """Find ports of this machine that follow each other and are free now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            first = int(listener.getsockname()[1])
        ports = range(first, first + count)
        with ExitStack() as stack, suppress(OSError, OverflowError):
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports
