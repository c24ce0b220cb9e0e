import subprocess
import sys

import pytest

from profiles import library
from profiles.errors import ProfileError
from profiles.fleet import resolve


def test_the_library_has_what_the_documentation_names():
    assert set(library.device_names()) == {"rpi-3b", "odroid-xu4s", "x86-host", "mcu-500kb"}
    assert set(library.link_names()) == {"wired-100mbit", "wired-1gbit"}
    assert {name: len(library.fleet(name).boards) for name in library.fleet_names()} == {
        "rpi3x2": 2,
        "rpi3x8": 8,
        "odroidx2": 2,
        "odroidx8": 8,
        "rpi7-odroid1": 8,
        "mixed": 3,
        "mcu8": 8,
    }


@pytest.mark.parametrize(
    ("names", "get"),
    [
        (library.device_names, library.device),
        (library.link_names, library.link),
        (library.fleet_names, library.fleet),
    ],
)
def test_every_profile_is_valid_and_called_like_its_file(names, get):
    for name in names():
        assert get(name).name == name


@pytest.mark.parametrize("name", library.fleet_names())
def test_every_fleet_has_boards_that_run_students(name):
    host, boards = resolve(library.fleet(name))
    assert host.hosting is not None
    assert all(board.device.missing_as_board == () for board in boards)


@pytest.mark.parametrize(
    ("get", "name", "part"),
    [
        (library.device, "rpi-3", "unknown device; found 'rpi-3'; allowed: mcu-500kb"),
        (library.device, "rpi-3", "did you mean rpi-3b?"),
        (library.link, "wired", "unknown link"),
        (library.fleet, "../devices/rpi-3b", "unknown fleet"),
    ],
)
def test_an_unknown_name_gets_the_known_and_the_close_ones(get, name, part):
    with pytest.raises(ProfileError) as caught:
        get(name)
    assert part in str(caught.value)


def test_reading_the_library_loads_nothing_heavy():
    script = (
        "import sys; from profiles import library; library.fleet('mixed'); "
        "print(sorted({'torch', 'ortools', 'scipy', 'simpy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
