"""`calibrate`: from a table of measurements to a board of a fleet."""

import pytest

from profiles.device import DeviceProfile
from profiles.fleet import parse_fleet, resolve
from profiles.link import LinkProfile

TABLE = """\
row,device,macs,boards,image_bytes,reply_bytes,compute_ms,communication_ms,energy_per_node_mj
small,my-pi,50000000,,,,20,,60
middle,my-pi,100000000,,,,30,,90
large,my-pi,400000000,,,,90,,270
one,my-pi,50000000,1,10000,100,20,13.74528,
two,my-pi,50000000,2,10000,100,20,24.54528,
big,my-pi,50000000,2,100000,100,20,168.54528,
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def test_a_table_becomes_a_board_of_a_fleet(nonn_plan, table, tmp_path):
    device, link = tmp_path / "my-pi.yaml", tmp_path / "my-link.yaml"
    said = nonn_plan(
        "calibrate", table, "--like", "rpi-4b", "-o", device, "--link-output", link, "--json"
    )
    assert said.code == 0
    found = DeviceProfile.read(device)
    assert said.document["device"] == found.model_dump(mode="json")
    assert found.compute_fixed_ms.value == pytest.approx(10)
    assert found.compute_ms_per_mmac.value == pytest.approx(0.2)
    assert found.power_busy_w.value == pytest.approx(3)
    assert found.clock_hz == 1_800_000_000
    # 90 kB more on each of two boards take 144 ms more: 10 Mbit/s.
    assert LinkProfile.read(link).bits_per_s.value == pytest.approx(10e6, rel=1e-3)
    assert found.message_ms.value == pytest.approx(2.8, rel=1e-2)
    rows = {(row["row"], row["quantity"]): row for row in said.document["rows"]}
    assert rows["middle", "compute_ms"]["loo_error_pct"] == pytest.approx(0, abs=0.01)
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "name: mine\ntitle: Mine\ndevices: [my-pi.yaml]\nlinks: [my-link.yaml]\n"
        "boards: [{name: a, device: my-pi, link: fitted}]\n"
    )
    _, (board,) = resolve(parse_fleet(str(fleet)))
    assert (board.device, board.link) == (found, LinkProfile.read(link))


def test_people_see_each_row_beside_the_fit(nonn_plan, table, tmp_path):
    said = nonn_plan("calibrate", table, "--like", "rpi-4b", "-o", tmp_path / "d.yaml")
    assert said.code == 0
    for part in ("my-pi: fitted to 6 rows", "large", "left out %", "10 Mbit/s; --link-output"):
        assert part in said.out


def test_measured_layers_go_into_the_profile(nonn_plan, table, tmp_path):
    layers = tmp_path / "layers.csv"
    layers.write_text(
        "name,kind,macs,weights,in_channels,in_height,in_width,out_channels,out_height,out_width,ms\n"
        "a,fc,640,640,64,1,1,10,1,1,0.1\n"
        "b,fc,5120,5120,512,1,1,10,1,1,0.2\n"
    )
    out = tmp_path / "d.yaml"
    said = nonn_plan("calibrate", table, "--like", "rpi-4b", "-o", out, "--layers", layers)
    assert said.code == 0
    assert DeviceProfile.read(out).layers.layers == 2


@pytest.mark.parametrize(
    ("old", "new", "options", "part"),
    [
        ("large,my-pi", "large,your-pi", (), "must measure one device"),
        (",20,,60", ",20ms,,60", (), "row 1 (Measurement): field compute_ms"),
        ("", "", ("--like", "rpi-9"), "--like: unknown device; found 'rpi-9'"),
        ("", "", ("--host", "rpi-4b"), "cannot be the host"),
    ],
)
def test_a_wrong_table_is_bad_input_and_writes_nothing(
    nonn_plan, table, tmp_path, old, new, options, part
):
    table.write_text(table.read_text().replace(old, new) if old else table.read_text())
    out = tmp_path / "d.yaml"
    said = nonn_plan("calibrate", table, "--like", "rpi-4b", "-o", out, *options)
    assert said.code == 2
    assert part in said.err
    assert not out.exists()
