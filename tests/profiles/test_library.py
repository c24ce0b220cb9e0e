import subprocess
import sys

import pytest

from profiles.device import DEVICES
from profiles.errors import ProfileError
from profiles.fleet import FLEETS, resolve
from profiles.link import LINKS


def test_the_library_has_what_the_documentation_names():
    assert set(DEVICES.names()) == {"rpi-3b", "odroid-xu4s", "x86-host", "mcu-500kb"}
    assert set(LINKS.names()) == {"wired-100mbit", "wired-1gbit"}
    assert {name: len(FLEETS.get(name).boards) for name in FLEETS.names()} == {
        "rpi3x2": 2,
        "rpi3x8": 8,
        "odroidx2": 2,
        "odroidx8": 8,
        "rpi7-odroid1": 8,
        "mixed": 3,
        "mcu8": 8,
    }


@pytest.mark.parametrize(
    "shelf",
    [
        DEVICES,
        LINKS,
        FLEETS,
    ],
)
def test_every_profile_is_valid_and_called_like_its_file(shelf):
    for name in shelf.names():
        assert shelf.get(name).name == name


@pytest.mark.parametrize("name", FLEETS.names())
def test_every_fleet_has_boards_that_run_students(name):
    host, boards = resolve(FLEETS.get(name))
    assert host.hosting is not None
    assert all(board.device.missing_as_board == () for board in boards)


@pytest.mark.parametrize(
    ("shelf", "name", "part"),
    [
        (DEVICES, "rpi-3", "unknown device; found 'rpi-3'; allowed: mcu-500kb"),
        (DEVICES, "rpi-3", "did you mean rpi-3b?"),
        (LINKS, "wired", "unknown link"),
        (FLEETS, "../devices/rpi-3b", "unknown fleet"),
    ],
)
def test_an_unknown_name_gets_the_known_and_the_close_ones(shelf, name, part):
    with pytest.raises(ProfileError) as caught:
        shelf.get(name)
    assert part in str(caught.value)


def test_reading_the_library_loads_nothing_heavy():
    script = (
        "import sys; from profiles.fleet import parse_fleet; parse_fleet('mixed'); "
        "print(sorted({'torch', 'ortools', 'scipy', 'simpy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
