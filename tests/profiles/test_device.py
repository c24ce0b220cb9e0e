import pytest
from pydantic import ValidationError

from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.device import DeviceProfile, compute_mj, compute_ms, quantity_value, slowdown
from profiles.link import LinkProfile, wire_ms


def figure(value):
    return Quantity(value=value, provenance="assumed", source="this test")


@pytest.fixture
def toy():
    return DeviceProfile(
        name="toy",
        title="Toy",
        clock_hz=1,
        cores=1,
        ram_bytes=1000,
        runtime="none",
        precision="fp32",
        compute_fixed_ms=figure(10),
        compute_ms_per_mmac=figure(2),
        power_fixed_w=figure(0.5),
        power_busy_w=figure(3),
        message_ms=figure(1),
        sharing_slowdown=figure(1.25),
    )


def test_compute_time_and_energy_are_affine_in_macs(toy):
    assert compute_ms(toy, 0) == 10
    assert compute_ms(toy, 5_000_000) == 20  # 10 + 2 * 5
    assert compute_mj(toy, 0) == 5  # 0.5 W * 10 ms
    assert compute_mj(toy, 5_000_000) == 35  # 5 + 3 W * 10 ms


@pytest.mark.parametrize(("students", "expected"), [(0, 1), (1, 1), (2, 1.25), (5, 1.25)])
def test_only_company_slows_down(toy, students, expected):
    assert slowdown(toy, students) == expected


def test_a_missing_figure_is_named(toy):
    bare = toy.model_copy(update={"power_busy_w": None, "message_ms": None})
    assert bare.missing_as_board == ("message_ms",)
    assert not bare.power_known
    assert toy.missing_as_board == ()
    with pytest.raises(ProfileError, match="device toy: this device has no message_ms"):
        quantity_value(bare, "message_ms")
    with pytest.raises(ProfileError, match="power_busy_w"):
        compute_mj(bare, 1)


@pytest.mark.parametrize(("budget", "usable"), [(None, 1000), (400, 400), (2000, 1000)])
def test_usable_memory_is_the_smaller_of_budget_and_ram(toy, budget, usable):
    assert toy.model_copy(update={"memory_budget_bytes": budget}).usable_bytes == usable


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": -1.0},
        {"value": float("nan")},
        {"provenance": "guessed"},
        {"source": ""},
        {"residual_pct": -1.0},
        {"unit": "ms"},
    ],
)
def test_a_figure_is_a_number_that_somebody_vouches_for(wrong):
    right = {"value": 1.0, "provenance": "assumed", "source": "this test"}
    with pytest.raises(ValidationError):
        Quantity.model_validate({**right, **wrong})


def test_a_malformed_device_file_is_a_profile_error(tmp_path, toy):
    path = tmp_path / "toy.yaml"
    toy.write(path)
    assert DeviceProfile.read(path) == toy
    path.write_text(path.read_text().replace("clock_hz: 1", "clock_hz: fast"))
    with pytest.raises(ProfileError, match="field clock_hz"):
        DeviceProfile.read(path)


def test_wire_time_is_bits_over_rate():
    link = LinkProfile(name="l", title="L", bits_per_s=figure(100e6))
    assert wire_ms(link, 12_288) == pytest.approx(0.98304)  # 98,304 bits at 100,000 per ms
    assert wire_ms(link, 0) == 0


def test_a_link_that_carries_nothing_is_refused():
    with pytest.raises(ProfileError, match=r"my\.yaml.*must be above 0 bit/s"):
        LinkProfile.check(
            {
                "name": "l",
                "title": "L",
                "bits_per_s": {"value": 0, "provenance": "assumed", "source": "t"},
            },
            where="my.yaml",
        )
