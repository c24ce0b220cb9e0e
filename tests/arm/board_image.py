"""An image of a 64-bit Arm board: Debian's kernel and systemd, and a worker's packages.

All of it comes through apt and pip, which check what they download, and stays in a folder.  The
image is an initial file system of the kernel: archives in cpio's form ("newc"), one after another.
No program of it is run as it is made, and nothing on this machine is installed or changed.
"""

import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
"""Programs that an emulated board needs on this machine, and Debian's packages of them."""

DEBIAN = (
    *("linux-image-arm64", "base-files", "base-passwd", "coreutils", "dash", "libnss-systemd"),
    *("systemd", "udev", "python3", "libstdc++6"),
)
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
LEFT_OUT = (
    *("boot", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man"),
    *("usr/lib/aarch64-linux-gnu/gconv", "usr/lib/klibc", "usr/lib/udev/hwdb.d"),
)
"""Folders that no worker needs: all of an image is in memory, and takes time to get there."""

MODULES = ("failover.ko", "net_failover.ko", "virtio_net.ko", "virtio_mmio.ko")
"""Modules of the kernel that are kept: those of the board's network."""

MERGED = ("bin", "lib", "sbin")
"""Folders that lie in /usr, to which Debian's packages still write without it."""

VENV, OWN = "opt/nonn", "opt/nonn/checkout"
WHEELS = ROOT / "docs" / "requirements" / "worker.txt"
PINS = ROOT / "constraints.txt"
UNIT = ROOT / "docs" / "systemd" / "nonn-worker@.service"
UNITS = "etc/systemd/system"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")

SCRIPT = f"#!/{VENV}/bin/python3\nfrom nonn_plan.__main__ import run\n\nrun()\n"
LIST_MODULES = """[Unit]
DefaultDependencies=no
Before=systemd-modules-load.service
[Service]
Type=oneshot
ExecStart=/usr/sbin/depmod -a
"""
LOOK_AT_NETWORK = """[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=net
"""
SHELL = """[Service]
ExecStart=/bin/sh -c "stty -echo -opost; echo ready; exec /bin/sh"
StandardInput=tty
StandardOutput=tty
StandardError=journal
TTYPath=/dev/ttyAMA0
"""
"""A shell on the serial line, without prompts, which says that it is there."""


def missing_tools() -> list[str]:
    """Name the packages of Debian that this machine lacks."""
    found = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return found if any(map(Path.is_file, SOURCES)) else [*found, "Debian's sources of apt"]


def found_tool(name: str) -> str:
    """Path of a program of this machine."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: apt-get install {TOOLS[name]}"
    return path


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a link or a folder of an image; `content` is a link's target."""

    path: str
    mode: int
    content: bytes = b""
    mtime: int = 0

    def packed(self, number: int) -> bytes:
        """Lay it out as cpio's newc form does, owned by root."""
        name = self.path.encode() + b"\0"
        sizes = len(self.content), 0, 0, 0, 0, len(name), 0
        fields = number, self.mode, 0, 0, 1, self.mtime, *sizes
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        return _padded(head) + _padded(self.content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def folder(path: str, mode: int = 0o755) -> Entry:
    """Make an entry of a folder."""
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, content: str | bytes, mode: int = 0o644) -> Entry:
    """Make an entry of a file."""
    held = content.encode() if isinstance(content, str) else content
    return Entry(path, stat.S_IFREG | mode, held)


def link(path: str, target: str) -> Entry:
    """Make an entry of a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def archive(entries: list[Entry]) -> bytes:
    """Pack entries, with the folders that they lie in, as one archive of cpio."""
    parents = {str(up): folder(str(up)) for each in entries for up in Path(each.path).parents}
    named = parents | {each.path: each for each in entries}
    named.pop(".", None)
    # A folder stands before what is in it.
    ordered = [named[path] for path in sorted(named)] + [Entry("TRAILER!!!", 0)]
    packed = b"".join(entry.packed(number) for number, entry in enumerate(ordered, 1))
    return packed + bytes(-len(packed) % 512)


def files_of(place: Path, path: str) -> Iterator[Entry]:
    """Take in every file below `place`, as `path` of the image; no tests."""
    for each in sorted(place.rglob("*")):
        name = each.relative_to(place)
        if each.is_file() and "tests" not in name.parts:
            executable = each.stat().st_mode & 0o111
            yield file(f"{path}/{name}", each.read_bytes(), 0o755 if executable else 0o644)


def make_image(cache: Path) -> tuple[Path, Path]:
    """Make the kernel and the initial file system, unless `cache` has them as they shall be."""
    told = repr((DEBIAN, MODULES, PLATFORMS)), WHEELS.read_text(), PINS.read_text()
    recipe = sha256("".join((*told, Path(__file__).read_text())).encode()).hexdigest()[:12]
    kernel, image = cache / f"kernel-{recipe}", cache / f"image-{recipe}.cpio"
    if not image.exists():
        for old in (*cache.glob("kernel-*"), *cache.glob("image-*")):
            old.unlink()
        packages = _download_packages(cache / "apt")
        debian = _debian_entries(packages, kernel)
        python = next(path for path in debian if path.startswith("usr/bin/python3."))
        entries = [*debian.values(), *_settings(debian), *_worker_entries(cache / "site", python)]
        entries += _compiled_library(debian, cache / "library")
        part = image.with_suffix(".part")
        part.write_bytes(archive(entries))
        part.rename(image)
    return kernel, image


def _apt(place: Path, *command: str) -> None:
    """Run apt-get for arm64 with a state of its own, from this machine's Debian sources."""
    for part in ("state/lists/partial", "cache/archives/partial", "log"):
        (place / part).mkdir(parents=True, exist_ok=True)
    (place / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "APT::Update::Post-Invoke::": "",
        "Acquire::Languages": "none",
        "Dir::State": f"{place}/state",
        "Dir::State::status": f"{place}/status",
        "Dir::Cache": f"{place}/cache",
        "Dir::Log": f"{place}/log",
        "Dir::Etc::sourcelist": str(next(filter(Path.is_file, SOURCES))),
        "Dir::Etc::sourceparts": "-",
    }
    options = [part for pair in settings.items() for part in ("-o", "=".join(pair))]
    _run(found_tool("apt-get"), "-qq", *options, *command)


def _download_packages(place: Path) -> list[Path]:
    """Download Debian's packages and all they depend on; their signatures are apt's to check."""
    shutil.rmtree(place / "cache", ignore_errors=True)
    _apt(place, "update")
    _apt(place, "install", "--yes", "--download-only", "--no-install-recommends", *DEBIAN)
    return sorted((place / "cache" / "archives").glob("*.deb"))


def _debian_entries(packages: list[Path], kernel: Path) -> dict[str, Entry]:
    """Unpack what a board needs of Debian's packages; the kernel goes to a file of its own."""
    found = {name: link(name, f"usr/{name}") for name in MERGED}
    for package in packages:
        command = [found_tool("dpkg-deb"), "--fsys-tarfile", str(package)]
        unpacked = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert unpacked.stdout is not None
        with unpacked, tarfile.open(fileobj=unpacked.stdout, mode="r|") as members:
            for member in members:
                path = member.name.removeprefix("./").rstrip("/")
                if path.startswith("boot/vmlinuz-"):
                    kernel.write_bytes(_content(members, member))
                if path.partition("/")[0] in MERGED:
                    path = f"usr/{path}"
                if _wanted(path):
                    found[path] = _entry(path, members, member, found)
        assert unpacked.returncode == 0, package
    return found


def _wanted(path: str) -> bool:
    if "/modules/" in path:
        return path.rpartition("/")[2] in MODULES or "/modules." in path
    within = any(path == each or path.startswith(f"{each}/") for each in LEFT_OUT)
    within |= path.startswith("usr/lib/linux-image-")
    return path not in ("", ".", *MERGED, *(f"usr/{each}" for each in MERGED)) and not within


def _content(members: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = members.extractfile(member)
    assert content is not None
    return content.read()


def _entry(
    path: str, members: tarfile.TarFile, member: tarfile.TarInfo, before: dict[str, Entry]
) -> Entry:
    if member.isdir():
        return folder(path, member.mode)
    if member.issym():
        return link(path, member.linkname)
    if member.islnk():
        linked = before[member.linkname.removeprefix("./")]
        return Entry(path, linked.mode, linked.content, linked.mtime)
    mode = stat.S_IFREG | member.mode
    return Entry(path, mode, _content(members, member), int(member.mtime))


def _worker_entries(place: Path, python: str) -> list[Entry]:
    """Install a worker's packages for the board's Python, in a virtual environment."""
    version = python.rpartition("python")[2]
    shutil.rmtree(place, ignore_errors=True)
    platforms = [part for each in PLATFORMS for part in ("--platform", each)]
    _run(
        *(sys.executable, "-m", "pip", "--quiet", "install", "--target", str(place)),
        *(*platforms, "--python-version", version, "--implementation", "cp"),
        *("--only-binary=:all:", "--no-compile", "--constraint", str(PINS), "-r", str(WHEELS)),
    )
    _compile(place)
    site = f"{VENV}/lib/{Path(python).name}/site-packages"
    return [
        link(f"{VENV}/bin/python3", f"/{python}"),
        file(f"{VENV}/pyvenv.cfg", f"home = /usr/bin\nversion = {version}\n"),
        file(f"{VENV}/bin/nonn-plan", SCRIPT, 0o755),
        file(f"{site}/checkout.pth", f"/{OWN}\n"),
        *files_of(place, site),
    ]


def checkout_entries(cache: Path) -> list[Entry]:
    """Build the wheel of this checkout, and take in its files and the unit of systemd."""
    place = cache / "checkout"
    shutil.rmtree(place, ignore_errors=True)
    command = sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir"
    _run(*command, str(place), str(ROOT))
    (wheel,) = place.glob("*.whl")
    shutil.unpack_archive(wheel, place / "site", "zip")
    _compile(place / "site")
    return [
        *files_of(place / "site", OWN),
        file(f"{UNITS}/{UNIT.name}", UNIT.read_bytes()),
    ]


def _compile(place: Path) -> None:
    """Compile packages here, which takes minutes on the board.

    A board's Python finds what is of its version, and must not look at times.
    """
    compiled = sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"
    _run(*compiled, str(place))


def _compiled_library(debian: dict[str, Entry], place: Path) -> list[Entry]:
    """Compile Python's own library, as the scripts of its packages do on a board."""
    shutil.rmtree(place, ignore_errors=True)
    for path, entry in debian.items():
        if re.match(r"usr/lib/python3.*\.py$", path) and stat.S_ISREG(entry.mode):
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(entry.content)
    _compile(place)
    return [each for each in files_of(place / "usr", "usr") if each.path.endswith(".pyc")]


def _settings(debian: dict[str, Entry]) -> list[Entry]:
    """Make what an installer and the scripts of Debian's packages would have set."""
    system, wants = "/usr/lib/systemd/system", f"{UNITS}/multi-user.target.wants"
    return [
        *(
            file(f"etc/{name}", debian[f"usr/share/base-passwd/{name}.master"].content)
            for name in ("passwd", "group")
        ),
        file("etc/hostname", "board\n"),
        # Or systemd takes this for a first start, and asks for a time zone.
        file("etc/machine-id", "0" * 31 + "1\n"),
        file("etc/systemd/network/board.network", "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n"),
        file(f"{UNITS}/modules.service", LIST_MODULES),
        file(f"{UNITS}/shell.service", SHELL),
        file("etc/modules-load.d/board.conf", "virtio_mmio\nvirtio_net\n"),
        # All devices of the machine: half a minute.
        file(f"{UNITS}/systemd-udev-trigger.service.d/network.conf", LOOK_AT_NETWORK),
        link(f"{UNITS}/default.target", f"{system}/multi-user.target"),
        *(
            link(f"{UNITS}/{unit}.service", "/dev/null")
            for unit in ("serial-getty@", "getty@", "getty-static")
        ),
        link(f"{UNITS}/sysinit.target.wants/modules.service", f"/{UNITS}/modules.service"),
        link(f"{wants}/shell.service", f"/{UNITS}/shell.service"),
        link(f"{wants}/systemd-networkd.service", f"{system}/systemd-networkd.service"),
        link(
            f"{UNITS}/network-online.target.wants/systemd-networkd-wait-online.service",
            f"{system}/systemd-networkd-wait-online.service",
        ),
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=900, stdin=subprocess.DEVNULL)
