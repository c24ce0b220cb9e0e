import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.tls.credential import board_subject
from nonn_common.errors import InputError, ProfileError
from profiles.device import DEVICES
from profiles.fleet import (
    FLEETS,
    MOST_BOARDS,
    Fleet,
    FleetBoard,
    RelayBoard,
    noisy_links,
    parse_fleet,
    resolve,
)
from profiles.link import LINKS, wire_ms

HOME = """\
name: home
title: What is on the shelf
boards:
- {name: left, device: rpi-3b, link: wired-1gbit}
- {name: right, device: odroid-xu4s}
"""


def test_a_library_fleet_by_name():
    host, boards = resolve(parse_fleet("mixed"))
    assert host.name == "x86-host"
    assert [board.device.name for board in boards] == ["rpi-3b", "rpi-3b", "odroid-xu4s"]


def test_a_file(tmp_path):
    path = tmp_path / "home.yaml"
    path.write_text(HOME)
    fleet = parse_fleet(str(path))
    host, boards = resolve(fleet)
    assert host.hosting is not None
    assert [(b.name, b.device.name, b.link.name) for b in boards] == [
        ("left", "rpi-3b", "wired-1gbit"),
        ("right", "odroid-xu4s", "wired-100mbit"),
    ]
    fleet.write(tmp_path / "home.json")
    assert parse_fleet(str(tmp_path / "home.json")) == fleet


def test_a_typed_list():
    fleet = parse_fleet(" rpi-3b*2, odroid-xu4s ,rpi-3b * 1")
    assert [(board.name, board.device) for board in fleet.boards] == [
        ("rpi-3b-1", "rpi-3b"),
        ("rpi-3b-2", "rpi-3b"),
        ("rpi-3b-3", "rpi-3b"),
        ("odroid-xu4s-1", "odroid-xu4s"),
    ]
    assert fleet.host == "x86-host"
    assert {board.link for board in fleet.boards} == {"wired-100mbit"}


def links_of(fleet):
    return {board.name: board.link.name for board in resolve(fleet)[1]}


def test_a_board_without_ethernet_gets_the_link_that_it_has(tmp_path):
    """A Zero 2 W has Wi-Fi alone, an STM32 its serial line; all others have a port."""
    typed = parse_fleet("rpi-zero-2w*2,rpi-4b,stm32l4r5zi")
    assert links_of(typed) == {
        "rpi-zero-2w-1": "wifi",
        "rpi-zero-2w-2": "wifi",
        "rpi-4b-1": "wired-100mbit",
        "stm32l4r5zi-1": "serial-115200",
    }
    (tmp_path / "home.yaml").write_text(HOME.replace("odroid-xu4s", "rpi-zero-2w"))
    assert links_of(parse_fleet(str(tmp_path / "home.yaml")))["right"] == "wifi"
    built = Fleet(name="f", title="F", boards=(FleetBoard(name="a", device="rpi-zero-2w"),))
    assert links_of(built) == {"a": "wifi"}


def test_a_fleet_may_put_such_a_board_on_another_link(tmp_path):
    wired = HOME.replace("device: rpi-3b, link", "device: rpi-zero-2w, link")
    (tmp_path / "home.yaml").write_text(wired)
    assert links_of(parse_fleet(str(tmp_path / "home.yaml")))["left"] == "wired-1gbit"


def test_a_device_of_a_fleet_s_own_has_its_default_link(tmp_path):
    here = DEVICES.get("rpi-3b").model_copy(update={"name": "here", "default_link": "wifi-5"})
    here.write(tmp_path / "here.yaml")
    (tmp_path / "home.yaml").write_text(
        "name: home\ntitle: Home\ndevices: [here.yaml]\nboards: [{name: a, device: here}]\n"
    )
    assert links_of(parse_fleet(str(tmp_path / "home.yaml"))) == {"a": "wifi-5"}


def test_a_typed_list_names_links_of_boards():
    fleet = parse_fleet("rpi-4b@wifi-5*3, rpi-4b * 2, rpi-4b @ wifi")
    assert links_of(fleet) == {
        "rpi-4b-1": "wifi-5",
        "rpi-4b-2": "wifi-5",
        "rpi-4b-3": "wifi-5",
        "rpi-4b-4": "wired-100mbit",
        "rpi-4b-5": "wired-100mbit",
        "rpi-4b-6": "wifi",
    }
    assert fleet.title == "3 x rpi-4b on wifi-5 + 2 x rpi-4b + 1 x rpi-4b on wifi"


def test_loss_and_jitter_of_links_are_said_with_the_boards_on_them():
    _, boards = resolve(parse_fleet("rpi-zero-2w*2,rpi-4b@wifi-5,rpi-3b"))
    lost = "% of transmissions are lost and repeated after 200 ms, jitter is"
    assert noisy_links(boards) == (
        f"wifi: 1 {lost} 1 ms on average (rpi-zero-2w-1, rpi-zero-2w-2)",
        f"wifi-5: 0.5 {lost} 0.5 ms on average (rpi-4b-1)",
    )
    assert noisy_links(resolve(parse_fleet("mixed"))[1]) == ()


@given(
    st.lists(
        st.tuples(st.sampled_from(["rpi-3b", "odroid-xu4s", "mcu-500kb"]), st.integers(1, 9)),
        min_size=1,
        max_size=5,
    )
)
def test_a_typed_list_has_as_many_boards_as_it_says(items):
    fleet = parse_fleet(",".join(f"{device}*{count}" for device, count in items))
    assert len(fleet.boards) == sum(count for _, count in items)
    for device in {device for device, _ in items}:
        wanted = sum(count for each, count in items if each == device)
        assert sum(board.device == device for board in fleet.boards) == wanted


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rpi3x9", ["unknown fleet or device", "'rpi3x9'", "did you mean rpi3x"]),
        ("rpi-3c*2", ["unknown fleet or device", "did you mean rpi-3b"]),
        ("rpi-3b*0", ["found '0'", "from 1 to 1000"]),
        ("rpi-3b*-1", ["found '-1'"]),
        ("rpi-3b*1.5", ["found '1.5'"]),
        ("rpi-3b*99999999999", ["from 1 to 1000"]),
        ("rpi-3b*900,odroid-xu4s*900", ["too many boards", "found 1800"]),
        ("rpi-3b**2", ["not a fleet"]),
        ("rpi-3b@", ["not a fleet", "rpi-4b@wifi"]),
        ("rpi-3b*2@wifi", ["not a fleet"]),
        ("rpi-3b@wi-fi*2", ["unknown link; found 'wi-fi'", "did you mean wifi"]),
        ("rpi-3b,,", ["not a fleet"]),
        ("rpi3x2:some", ["not a fleet", "`:any` behind a device or a fleet"]),
        ("rpi-3b:any:any", ["not a fleet", "`:any` behind a device or a fleet"]),
        ("rpi-3b*2:any", ["not a fleet", "rpi-3b:any*2"]),
        ("", ["not a fleet", "library fleets: mcu8"]),
        ("x86-host*2", ["cannot run students", "message_ms"]),
    ],
)
def test_a_wrong_fleet_is_one_sentence(text, parts):
    with pytest.raises(ProfileError) as caught:
        parse_fleet(text)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("device: rpi-3b", "device: rpi-3", "boards.0.device: unknown device; found 'rpi-3'"),
        ("link: wired-1gbit", "link: wi-fi", "boards.0.link: unknown link; found 'wi-fi'"),
        ("name: right", "name: left", "repeated: left"),
        ("name: right", "name: host", "none may be authority or host; repeated: host"),
        ("name: right", "name: authority", "authority or host; repeated: authority"),
        ("boards:", "host: rpi-3b\nboards:", "field host: this device cannot be the host"),
        ("boards:", "host: nobody\nboards:", "field host: unknown device"),
        ("boards:", "rooms: 2\nboards:", "field rooms: is not a field of this file"),
        ("device: rpi-3b", "device: x86-host", "boards.0.device: this device cannot run students"),
    ],
)
def test_a_wrong_fleet_file_names_file_and_field(tmp_path, old, new, part):
    path = tmp_path / "home.yaml"
    path.write_text(HOME.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        parse_fleet(str(path))
    assert str(path) in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("c.cpu/1", "c-cpu-1"),
        ("medium:wifi", "medium-wifi"),
        ("a,b", "a-b"),
        ("a=b", "a-b"),
        ("a@2s", "a-2s"),
        ("pi_1", "pi-1"),
        ("living room", "living-room"),
        ("-pi", "pi"),
        ("pi-", "pi"),
        ("A", "a"),
        ("Küche", "k-che"),
        ("pi\n", "pi"),
        ("p" * 64, "p" * 63),
    ],
)
def test_a_name_that_no_certificate_can_hold_is_refused(name, alike):
    boards = [{"name": each, "device": "rpi-3b"} for each in ("a", name)]
    with pytest.raises(ProfileError) as caught:
        Fleet.check({"name": "f", "title": "F", "boards": boards}, "a test")
    told = str(caught.value)
    assert "field boards.1.name: no certificate can hold this name of a board; found" in told
    assert told.endswith(
        f"; rename it everywhere in the file, also in an old plan, such as {alike}"
    )


@pytest.mark.parametrize("name", ["pi-1", "1", "p" * 63, "a--b"])
def test_a_name_that_a_certificate_can_hold_is_a_board_s(name):
    content = {"name": "f", "title": "F", "boards": [{"name": name, "device": "rpi-3b"}]}
    assert Fleet.check(content, "a test").boards[0].name == name


def test_boards_of_every_fleet_of_the_library_can_have_keys():
    for fleet in map(FLEETS.get, FLEETS.names()):
        assert all(board_subject(board.name) for board in fleet.boards)
    longest = max(DEVICES.names(), key=len)
    typed = parse_fleet(",".join(f"{each}*1" for each in DEVICES.names() if each != "x86-host"))
    assert all(board_subject(board.name) for board in (*typed.boards, *_many(longest)))


def _many(device):
    return parse_fleet(f"{device}*{MOST_BOARDS}").boards


def test_a_fleet_needs_a_board():
    with pytest.raises(ProfileError, match="field boards"):
        Fleet.check({"name": "n", "title": "t", "boards": []}, where="none.yaml")


def test_a_missing_file_is_bad_input():
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        parse_fleet("nowhere.yaml")


def test_a_fleet_built_in_code_is_checked_when_resolved():
    fleet = Fleet(name="f", title="F", boards=(FleetBoard(name="a", device="abacus"),))
    with pytest.raises(ProfileError, match=r"fleet f: field boards\.0\.device: unknown"):
        resolve(fleet)


OWN = """\
name: own
title: With a board and a radio of its own
devices:
- shelf/my-pi.yaml
links:
- name: radio
  title: Radio
  bits_per_s: {value: 250000, provenance: measured, source: this test}
  duplex: half
boards:
- {name: left, device: my-pi, link: radio}
- {name: right, device: rpi-3b}
"""


@pytest.fixture
def own_fleet(tmp_path):
    device = DEVICES.get("rpi-3b").model_copy(update={"name": "my-pi", "board": "my-pi"})
    device.write(tmp_path / "shelf" / "my-pi.yaml")
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def test_a_fleet_brings_devices_and_links_of_its_own(own_fleet, tmp_path):
    fleet = parse_fleet(str(own_fleet))
    _, (left, right) = resolve(fleet)
    assert (left.device.name, left.link.duplex) == ("my-pi", "half")
    assert right.device == DEVICES.get("rpi-3b")
    # Written again it holds the profiles themselves, so that it can be moved.
    fleet.write(tmp_path / "elsewhere" / "own.json")
    assert parse_fleet(str(tmp_path / "elsewhere" / "own.json")) == fleet


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("shelf/my-pi.yaml", "shelf/your-pi.yaml", "your-pi.yaml: no such file"),
        ("name: radio", "name: wifi", "repeated: wifi"),
        ("value: 250000", "value: -250000", "field links.0.bits_per_s.value"),
        ("value: 250000", "value: 250 kbit/s", "field links.0.bits_per_s.value"),
        ("bits_per_s", "bytes_per_s", "field links.0.bits_per_s: is required and missing"),
        ("device: my-pi", "device: my-py", "did you mean my-pi"),
        ("link: radio", "link: radia", "did you mean radio?"),
        ("- shelf/my-pi.yaml", "- 7", "field devices.0: must be a mapping of fields"),
    ],
)
def test_what_is_wrong_with_a_fleets_own_profiles_is_one_sentence(own_fleet, old, new, part):
    own_fleet.write_text(OWN.replace(old, new))
    with pytest.raises(InputError) as caught:
        parse_fleet(str(own_fleet))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


CHAIN = """\
name: chain
title: Two boards behind another
boards:
- {name: far, device: rpi-3b, link: serial-921600, via: near}
- {name: near, device: odroid-xu4s, link: wired-1gbit}
- {name: farther, device: rpi-3b, link: serial-115200, via: far}
"""


def test_links_in_a_row_take_the_sum_of_their_times(tmp_path):
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN)
    _, (far, near, farther) = resolve(parse_fleet(str(path)))
    assert near.link == LINKS.get("wired-1gbit")
    wires = [wire_ms(LINKS.get(n), 1000) for n in ("wired-1gbit", "serial-921600", "serial-115200")]
    assert wire_ms(far.link, 1000) == pytest.approx(sum(wires[:2]))
    assert wire_ms(farther.link, 1000) == pytest.approx(sum(wires))
    assert far.link.latency_ms.value == DEVICES.get("odroid-xu4s").message_ms.value
    assert far.link.duplex == "half"


def test_a_board_knows_the_boards_in_between_nearest_to_the_host_first(tmp_path):
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN)
    _, (far, near, farther) = resolve(parse_fleet(str(path)))
    assert near.via == ()
    assert far.via == (RelayBoard("near", near.device, near.link),)
    assert farther.via == (*far.via, RelayBoard("far", far.device, far.link))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("via: near", "via: nobody", ["does not have", "found 'nobody'", "farther, near"]),
        ("via: near", "via: far", ["in a loop", "'far via far'"]),
        ("via: near", "via: farther", ["in a loop", "far via farther via far"]),
        (
            "link: wired-1gbit",
            "link: wired-1gbit, via: farther",
            ["in a loop", "far via near via farther via far", "reached from the host"],
        ),
    ],
)
def test_a_loop_in_links_is_one_sentence(tmp_path, old, new, parts):
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        parse_fleet(str(path))
    for part in [str(path), *parts]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
