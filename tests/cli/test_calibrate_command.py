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
one,my-pi,50000000,1,10000,100,20,14.04169,
two,my-pi,50000000,2,10000,100,20,24.84169,
big,my-pi,50000000,2,100000,100,20,168.84169,
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
    assert "errors are fitted less measured, in % of measured" in said.out
    assert f"Read {table} (delimiter: comma)" in said.out
    assert "Warning" not in said.out


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolon"), ("\t", "tab")])
def test_a_sheet_gives_the_same_profile_and_its_delimiter_is_named(
    nonn_plan, table, tmp_path, sign, name
):
    sheet = tmp_path / "SHEET.CSV"
    rows = TABLE.replace("\n", "\n,,,,,,,,\n").replace(",", sign)
    sheet.write_bytes(b"\xef\xbb\xbf" + rows.encode())
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    assert nonn_plan("calibrate", table, "--like", "rpi-4b", "-o", one).code == 0
    said = nonn_plan("calibrate", sheet, "--like", "rpi-4b", "-o", other, "--json")
    assert said.code == 0
    assert other.read_text() == one.read_text()
    assert said.document["delimiters"] == {str(sheet): name}
    assert f"Read {sheet} (delimiter: {name})" in said.err


def test_one_row_is_met_and_what_it_leaves_open_is_a_warning(nonn_plan, tmp_path):
    table, out = tmp_path / "one.csv", tmp_path / "d.yaml"
    table.write_text("row,device,macs,total_ms\none,my-pi,10000000,12.5\n")
    said = nonn_plan("calibrate", table, "--like", "rpi-4b", "-o", out, "--json")
    assert said.code == 0
    (row,) = said.document["rows"]
    assert row["fitted"] == pytest.approx(12.5, rel=1e-5)
    size, power = said.document["warnings"]
    assert size.startswith("rows of one size do not tell compute_fixed_ms and compute_ms_per_mmac")
    assert power.startswith("no row tells power_fixed_w and power_busy_w: those of rpi-4b")
    assert f"Warning: {size}" in said.err
    device = DeviceProfile.read(out)
    # 38.5543 ms + 0.0518919 ms per million MACs of rpi-4b, times 12.5 / 39.0732.
    assert device.compute_fixed_ms.value == pytest.approx(12.3340, abs=1e-4)
    assert device.compute_ms_per_mmac.value == pytest.approx(0.0166008, abs=1e-7)


def test_times_that_fall_are_bad_input_and_their_rows_are_named(nonn_plan, tmp_path):
    table, out = tmp_path / "t.csv", tmp_path / "d.yaml"
    table.write_text("row,device,macs,total_ms\nsmall,my-pi,10000000,30\nlarge,my-pi,40000000,10\n")
    said = nonn_plan("calibrate", table, "--like", "rpi-4b", "-o", out)
    assert said.code == 2
    assert "time does not grow with the MACs; in their order: small (30 ms), large (10" in said.err
    assert not out.exists()


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
    assert f"Read {table} (delimiter: comma) and {layers} (delimiter: comma)" in said.out
    assert "Warning: 2 measured fc layers for fixed_ms, ms_per_pointwise_mmac: nothing shows" in (
        said.out
    )


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
    nonn_plan, replaced, table, tmp_path, old, new, options, part
):
    table.write_text(table.read_text().replace(old, new) if old else table.read_text())
    out = tmp_path / "d.yaml"
    asked = ("calibrate", table, "--like", "rpi-4b", "-o", out)
    said = nonn_plan(*replaced(asked, *options))
    assert said.code == 2
    assert part in said.err
    assert not out.exists()


def test_a_few_measured_networks_become_a_board_with_rates_of_layers(nonn_plan, tmp_path):
    table = tmp_path / "ours.csv"
    table.write_text(
        "board,threads,network,min_ms\n"
        "Our board (Cortex-A53 1.2GHz x 4),4,resnet18,300\n"
        "Our board (Cortex-A53 1.2GHz x 4),4,mobilenet_v2,120\n"
        "Our board (Cortex-A53 1.2GHz x 4),4,squeezenet,110\n"
    )
    out = tmp_path / "ours.yaml"
    said = nonn_plan("calibrate", table, "--like", "rpi-3b-plus", "-o", out, "--json")
    assert said.code == 0, said.err
    device = DeviceProfile.read(out)
    assert said.document["device"] == device.model_dump(mode="json")
    assert (device.name, device.core, device.clock_hz) == ("ours", "A53", 1_200_000_000)
    assert (device.layer_rates.rows, device.cores) == (3, 4)
    assert device.message_ms.provenance == "assumed" and device.missing_as_board == ()
    assert "Nine of ten networks take" in said.err


def test_rows_that_contradict_each_other_are_named(nonn_plan, tmp_path):
    table, out = tmp_path / "ours.csv", tmp_path / "ours.yaml"
    board = "Our board (Cortex-A53 1.2GHz x 4),4"
    rows = [("resnet18", "300"), ("mobilenet_v2", "120"), ("squeezenet", "110000")]
    lines = [f"{board},{network},{ms}" for network, ms in rows]
    table.write_text("\n".join(["board,threads,network,min_ms", *lines, ""]))
    said = nonn_plan("calibrate", table, "--like", "rpi-3b-plus", "-o", out)
    assert said.code == 0, said.err
    assert "Warning: squeezenet: 110000 ms were measured, " in said.out
    table.write_text(table.read_text().replace("110000", "110"))
    again = nonn_plan("calibrate", table, "--like", "rpi-3b-plus", "-o", out)
    assert again.code == 0 and "were measured" not in again.out
