import pytest

from profiles.device import DEVICES
from profiles.fleet import FLEETS


def test_devices_lists_the_library(nonn_plan):
    said = nonn_plan("devices")
    assert said.code == 0
    assert all(name in said.out for name in DEVICES.names())


def test_devices_as_json_are_one_of_each_board_by_core_and_clock(nonn_plan):
    found = nonn_plan("devices", "--json").document
    names = [device["name"] for device in found]
    assert set(DEVICES.names()) < set(names)
    assert {"rk3588", "snapdragon-888"} < set(names) and "rk3588-1t" not in names
    order = [(device["core"] or "", device["clock_hz"] or 0, device["name"]) for device in found]
    assert order == sorted(order)


def test_devices_are_found_by_words_of_their_names_descriptions_and_cores(nonn_plan):
    found = nonn_plan("devices", "--search", "broadcom A72 INT8", "--json").document
    assert [device["name"] for device in found] == ["rpi-4b-1t-int8", "rpi-4b-int8"]
    said = nonn_plan("devices", "--search", "rk3588")
    for name in ("rk3588-1t", "rk3588-little-4t", "orangepi-5-plus-int8", "1.8 GHz", "untold"):
        assert name in said.out


def test_a_list_of_devices_is_no_wider_than_a_terminal(nonn_plan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = nonn_plan("devices").out + nonn_plan("devices", "--search", "rk3399").out
    table = [line for line in said.splitlines() if line.startswith(" ")]
    assert len(table) > 75 and max(map(len, table)) <= 80


def test_words_that_no_device_has_are_bad_input(nonn_plan):
    said = nonn_plan("devices", "--search", "abacus")
    assert said.code == 2
    assert "abacus" in said.err and "nonn-plan devices" in said.err


def test_one_device_shows_where_its_figures_come_from(nonn_plan):
    said = nonn_plan("devices", "show", "rpi-3b")
    assert "fitted" in said.out
    assert "arXiv:1907.11804" in said.out
    assert "fp32 networks with 4 threads" in nonn_plan("devices", "show", "rpi-4b").out
    assert nonn_plan("devices", "show", "x86-host", "--json").document["hosting"] is not None


def test_fleets_lists_the_library(nonn_plan):
    assert all(name in nonn_plan("fleets").out for name in FLEETS.names())
    assert len(nonn_plan("fleets", "--json").document) == len(FLEETS.names())


def test_a_fleet_may_be_typed(nonn_plan):
    said = nonn_plan("fleets", "show", "rpi-3b*2,odroid-xu4s", "--json")
    boards = [board["name"] for board in said.document["boards"]]
    assert boards == ["rpi-3b-1", "rpi-3b-2", "odroid-xu4s-1"]


@pytest.mark.parametrize("group", ["devices", "fleets"])
def test_an_unknown_name_is_bad_input(nonn_plan, group):
    said = nonn_plan(group, "show", "rpi-3z")
    assert said.code == 2
    assert "rpi-3z" in said.err
    assert "rpi-3b" in said.err


@pytest.mark.parametrize(("group", "name"), [("devices", "rpi-3b"), ("fleets", "mixed")])
def test_json_may_stand_before_show(nonn_plan, group, name):
    assert nonn_plan(group, "--json", "show", name).document["name"] == name


def test_a_fleet_shows_what_its_links_do_to_messages(nonn_plan):
    said = nonn_plan("fleets", "show", "mixed-wifi")
    assert said.code == 0
    for part in ("40 Mbit/s", "half, shared", "1 %"):
        assert part in said.out


def test_a_device_shows_standard_errors(nonn_plan):
    assert "0.0013" in nonn_plan("devices", "show", "rpi-3b").out


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("", "", ""),
        ("link: slow", "link: slow, via: b", "in a loop"),
        ("device: rpi-3b,", "device: rpi-33,", "did you mean rpi-3b"),
        ("value: 250000", "value: -1", "bits_per_s.value"),
        ("value: 250000", "value: 250kbit/s", "bits_per_s.value"),
    ],
)
def test_a_wrong_fleet_file_is_one_error_and_exit_2(nonn_plan, tmp_path, old, new, part):
    path = tmp_path / "f.yaml"
    text = (
        "name: f\ntitle: F\nlinks:\n- name: slow\n  title: Slow\n"
        "  bits_per_s: {value: 250000, provenance: assumed, source: this test}\n"
        "boards:\n- {name: a, device: rpi-3b, link: slow}\n- {name: b, device: rpi-3b, via: a}\n"
    )
    path.write_text(text.replace(old, new) if old else text)
    said = nonn_plan("fleets", "show", path)
    assert said.code == (2 if part else 0)
    assert part in said.err
    assert "Traceback" not in said.err


def test_a_fleet_file_with_two_lists_of_boards_loses_none_in_silence(nonn_plan, tmp_path):
    path = tmp_path / "home.YAML"
    path.write_text(
        "name: home\ntitle: Home\n"
        "boards:\n- {name: a, device: rpi-3b}\n- {name: b, device: rpi-3b}\n"
        "boards:\n- {name: c, device: rpi-3b}\n"
    )
    said = nonn_plan("fleets", "show", path)
    assert said.code == 2
    assert f"{path}: key `boards` is given twice (lines 3, 6); keep one of them" in said.err


def test_a_device_of_a_fleets_own_may_say_each_figure_once(nonn_plan, tmp_path):
    (tmp_path / "own.yaml").write_text("name: own\nclock_hz: 1\ncores: 1\nclock_hz: 2\n")
    path = tmp_path / "home.yaml"
    path.write_text("name: home\ntitle: Home\ndevices: [own.yaml]\nboards: []\n")
    said = nonn_plan("fleets", "show", path)
    assert said.code == 2
    assert f"{tmp_path / 'own.yaml'}: key `clock_hz` is given twice (lines 2, 4)" in said.err
