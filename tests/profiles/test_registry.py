import subprocess
import sys

import pytest

from nonn_common.errors import ProfileError
from profiles.device import DEVICES
from profiles.fleet import FLEETS, resolve
from profiles.link import LINKS


def test_the_library_has_what_the_documentation_names():
    assert set(DEVICES.names()) == {
        "rpi-3b",
        "rpi-3b-1200mhz",
        "rpi-3b-pytorch",
        "rpi-3b-plus",
        "rpi-4b",
        "rpi-5",
        "rpi-zero-2w",
        "odroid-xu4s",
        "odroid-xu4s-1400mhz",
        "odroid-xu4s-1000mhz",
        "jetson-nano",
        "stm32l4r5zi",
        "stm32h7a3zi",
        "stm32u575zi",
        "mcu-500kb",
        "x86-host",
    }
    assert set(LINKS.names()) == {
        "wired-100mbit",
        "wired-1gbit",
        "wifi",
        "wifi-5",
        "serial-921600",
        "serial-115200",
    }
    assert {name: len(FLEETS.get(name).boards) for name in FLEETS.names()} == {
        "rpi3x2": 2,
        "rpi3x8": 8,
        "odroidx2": 2,
        "odroidx8": 8,
        "rpi7-odroid1": 8,
        "mixed": 3,
        "mixed-wifi": 4,
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


def test_a_key_is_board_runtime_precision_clock_and_cores_and_each_is_unique():
    names = (*DEVICES.names(), *DEVICES.further_names())
    devices = {name: DEVICES.get(name) for name in names}
    assert len({device.key for device in devices.values()}) == len(devices)
    assert devices["rpi-3b"].key == ("raspberry-pi-3b", "tvm", "fp32", 400_000_000, 4)
    pis = [name for name, device in devices.items() if device.board == "raspberry-pi-3b"]
    assert pis == ["rpi-3b", "rpi-3b-1200mhz", "rpi-3b-pytorch"]


@pytest.mark.parametrize("name", DEVICES.names())
def test_all_devices_but_the_host_run_students_and_exchange(name):
    device = DEVICES.get(name)
    if device.hosting is None:
        assert device.missing_as_board == ()
        assert device.missing("exchange_ms", "peer_message_ms") == ()


def test_the_wi_fi_is_a_lossy_shared_medium_and_the_wires_are_not():
    for wifi in map(LINKS.get, ("wifi", "wifi-5")):
        assert wifi.shared and wifi.duplex == "half"
        assert 0 < wifi.loss_pct.value < 100 and wifi.jitter_ms.value > 0
    assert LINKS.get("serial-115200").duplex == "half"
    assert LINKS.get("serial-115200").bits_per_s.value == 92_160
    for name in ("wired-100mbit", "wired-1gbit"):
        assert LINKS.get(name).duplex == "full" and LINKS.get(name).loss_pct.value == 0


@pytest.mark.parametrize("name", FLEETS.names())
def test_every_fleet_has_boards_that_run_students(name):
    host, boards = resolve(FLEETS.get(name))
    assert host.hosting is not None
    assert all(board.device.missing_as_board == () for board in boards)


@pytest.mark.parametrize(
    ("shelf", "name", "part"),
    [
        (DEVICES, "rpi-3", "unknown device; found 'rpi-3'; allowed: jetson-nano, mcu-500kb"),
        (DEVICES, "rpi-3", "did you mean rpi-3b"),
        (DEVICES, "rk3589", "did you mean rk3588"),
        (DEVICES, "rk3589", "x86-host and 213 more (nonn-plan devices)"),
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
