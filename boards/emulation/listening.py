"""The TCP ports on which a process listens, as the kernel knows them (Linux)."""

from contextlib import suppress
from pathlib import Path

from profiles.errors import BoardError

_LISTENS = "0A"


def listening_ports(pid: int) -> tuple[int, ...]:
    """Return the ports on which process `pid` listens; raises BoardError if it is no more.

    A socket of IPv6 may listen on an address of IPv4.
    """
    try:
        lines = [
            line
            for table in ("tcp", "tcp6")
            if (path := Path(f"/proc/{pid}/net/{table}")).exists()
            for line in path.read_text(encoding="ascii").splitlines()[1:]
        ]
        own = _sockets(pid)
    except OSError as error:
        raise BoardError(f"process {pid}: its sockets cannot be read: {error.strerror}") from None
    rows = (line.split() for line in lines)
    listening = (row for row in rows if row[3] == _LISTENS and row[9] in own)
    return tuple(sorted({int(row[1].rpartition(":")[2], 16) for row in listening}))


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may have been closed meanwhile.
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found
