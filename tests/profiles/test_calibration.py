import math

import pytest

from nonn_common.errors import ProfileError
from profiles import calibration
from profiles.calibration import calibrate, write_devices
from profiles.calibration_data import Measurement, PublishedFacts, own_facts, published_facts
from profiles.device import DEVICES, DeviceProfile, compute_mj, compute_ms
from profiles.time_spread import slowest_factor

STUDENT_MACS = 83_500_000


@pytest.fixture(scope="module")
def devices():
    return calibrate().devices


def test_the_shipped_files_are_the_output_of_the_fit(tmp_path):
    written = write_devices(tmp_path)
    assert {path.stem for path in written} == set(DEVICES.names())
    for path in written:
        new, shipped = map(DeviceProfile.read, (path, calibration.DEVICES_FOLDER / path.name))
        # Rates of layers are a fit stopped early: their last digits depend on the processor.
        assert rates(new) == pytest.approx(rates(shipped), rel=0.02)
        assert without_rates(new) == without_rates(shipped)


def rates(device):
    return {} if device.layer_rates is None else device.layer_rates.ms_per_unit


def without_rates(device):
    plain = device.model_dump()
    (plain["layer_rates"] or {}).pop("ms_per_unit", None)
    return plain


# Largest of K Gumbel draws: mean + scale ln K; the published rows have 2 and 8 boards.
PI_SCALE_MS = (106.24 - 101.91) / math.log(4)
PI_MEAN_MS = 101.91 - PI_SCALE_MS * math.log(2)
PI_CV = math.pi / math.sqrt(6) * PI_SCALE_MS / PI_MEAN_MS
TWO_BOARDS = 1 + PI_SCALE_MS / PI_MEAN_MS * math.log(2)


def test_raspberry_pis_spread_as_their_two_rows_say(devices):
    pi = devices["rpi-3b"]
    assert pi.compute_cv.value == pytest.approx(PI_CV, rel=1e-5)
    assert (pi.compute_cv.provenance, pi.compute_cv.residual_pct) == ("fitted", 0)
    assert "nonn_2s, rpi-3b nonn_8s, by their numbers of boards" in pi.compute_cv.source
    for name in ("odroid-xu4s", "rpi-3b-1200mhz"):
        assert devices[name].compute_cv.provenance == "assumed"
        assert devices[name].compute_cv.value == pi.compute_cv.value
    assert devices["rpi-4b"].compute_cv is None


def test_raspberry_pi_computing_is_the_line_through_its_means(devices):
    pi = devices["rpi-3b"]
    assert compute_ms(pi, STUDENT_MACS) == pytest.approx(PI_MEAN_MS, rel=1e-5)
    assert compute_ms(pi, 1_301_400_000) == pytest.approx(1405, rel=1e-5)
    # Of energy a row is to spare: what the two rows of students share, at the expected maximum.
    per_mean = [238.98 / TWO_BOARDS, 249.15 / (106.24 / PI_MEAN_MS)]
    shared = sum(1 / each for each in per_mean) / sum(1 / each**2 for each in per_mean)
    assert compute_mj(pi, STUDENT_MACS) == pytest.approx(shared, rel=1e-5)
    assert pi.power_busy_w.residual_pct < 0.01
    assert pi.compute_fixed_ms.residual_pct == 0


def test_odroid_computing_is_the_line_through_two_rows(devices):
    odroid = devices["odroid-xu4s"]
    slope = (224 - 19.01 / TWO_BOARDS) / (1301.4 - 83.5)
    assert odroid.compute_ms_per_mmac.value == pytest.approx(slope, rel=1e-5)
    assert odroid.compute_fixed_ms.value == pytest.approx(224 - slope * 1301.4, rel=1e-4)
    assert odroid.power_busy_w.value * slope == pytest.approx(
        (3084.08 - 219.07 / TWO_BOARDS) / (1301.4 - 83.5), rel=1e-5
    )


def test_communication_solves_the_three_published_rows(devices):
    """The slowest of all hides part of the sends, unless it was the last to be sent to."""
    image_ms, rest_ms = 0.98304, 0.01472 + 0.1 + devices["x86-host"].hosting.join_fixed_ms.value
    for name, boards, published_ms, scale_ms in (
        ("rpi-3b", 2, 13.10, PI_SCALE_MS),
        ("rpi-3b", 8, 43.76, PI_SCALE_MS),
        ("odroid-xu4s", 2, 6.00, PI_SCALE_MS / PI_MEAN_MS * 19.01 / TWO_BOARDS),
    ):
        step_ms = devices[name].message_ms.value + image_ms
        ends = [math.exp(-step_ms * b / scale_ms) for b in range(boards)]
        last_ms = step_ms * boards + scale_ms * math.log(sum(ends))
        found_ms = last_ms - scale_ms * math.log(boards) + rest_ms
        assert found_ms == pytest.approx(published_ms, rel=1e-5)


def test_rows_of_ones_own_tell_their_spread():
    rows = {
        boards: Measurement(
            row=f"{boards}", device="pi", macs=10**7, boards=boards, image_bytes=9, reply_bytes=9,
            link="wired-100mbit", compute_ms=20 * slowest_factor(0.1, boards),
        )
        for boards in (1, 3, 12)
    }  # fmt: skip

    def fitted(*boards):
        asked = own_facts(
            [rows[each] for each in boards], DEVICES.get("rpi-4b"), DEVICES.get("x86-host")
        )
        return calibrate(*asked).devices["pi"].compute_cv

    assert fitted(1, 3, 12).value == pytest.approx(0.1, rel=1e-5)
    assert fitted(3) is None
    wild = rows[12].model_copy(update={"compute_ms": 90.0})
    asked = own_facts([rows[1], wild], DEVICES.get("rpi-4b"), DEVICES.get("x86-host"))
    with pytest.raises(ProfileError, match="spread by more than"):
        calibrate(*asked)


def test_four_students_on_the_odroid_take_as_long_as_one_on_the_raspberry_pi(devices):
    pi, odroid = devices["rpi-3b"], devices["odroid-xu4s"]
    four_ms = odroid.sharing_slowdown.value * 4 * compute_ms(odroid, STUDENT_MACS)
    assert four_ms == pytest.approx(compute_ms(pi, STUDENT_MACS), rel=1e-5)
    assert pi.sharing_slowdown.value == odroid.sharing_slowdown.value
    assert pi.sharing_slowdown.provenance == "assumed"


@pytest.mark.parametrize(
    ("name", "per_s", "mj"),
    [
        ("stm32l4r5zi", 4.673, 7.056),
        ("mcu-500kb", 4.673, 7.056),
        ("stm32h7a3zi", 19.25, 6.309),
        ("stm32u575zi", 7.80, 3.383),
    ],
)
def test_a_microcontroller_repeats_its_benchmark(devices, name, per_s, mj):
    chip = devices[name]
    assert compute_ms(chip, 12_500_000) == pytest.approx(1000 / per_s, rel=1e-5)
    assert compute_mj(chip, 12_500_000) == pytest.approx(mj, rel=1e-5)


def test_the_published_target_leaves_500_kb_for_a_model(devices):
    assert devices["mcu-500kb"].usable_bytes == 500_000


def test_host_repeats_its_one_model_and_runs_no_students(devices):
    host = devices["x86-host"]
    assert compute_ms(host, 1_301_400_000) == pytest.approx(86, rel=1e-5)
    assert host.missing_as_board
    assert host.hosting.fc_ms.value == 0.1


def test_other_facts_give_other_figures():
    facts = published_facts()
    rows = [
        row.model_copy(
            update={
                "energy_per_node_mj": row.energy_per_node_mj and 2 * row.energy_per_node_mj,
            }
        )
        for row in facts.measurements
    ]
    doubled = calibrate(facts.model_copy(update={"measurements": tuple(rows)})).devices
    for name in ("rpi-3b", "odroid-xu4s", "stm32h7a3zi"):
        assert doubled[name].power_busy_w.value == pytest.approx(
            2 * DEVICES.get(name).power_busy_w.value, rel=1e-5
        )


def test_table_8_is_solved_by_hand(devices):
    pi = devices["rpi-3b-pytorch"]
    sending = 8 * (pi.message_ms.value + 0.98304) + 0.01472
    hosting = devices["x86-host"].hosting
    per_mmac = (850 - sending - hosting.join_fixed_ms.value - 0.1) / 83.5
    assert pi.compute_ms_per_mmac.value == pytest.approx(per_mmac, rel=1e-5)
    # Less computing and the wire, per each of 40 exchanges, with 3 and with 7 peers.
    software = {}
    for boards, total_ms in ((4, 23_000), (8, 28_500)):
        wire = (boards - 1) * 8 * (4 * 761_856 / boards) / 100e3
        software[boards] = (total_ms - per_mmac * 329.016576 / boards - wire) / 40
    peer = (software[8] - software[4]) / 4
    assert pi.peer_message_ms.value == pytest.approx(peer, rel=1e-4)
    assert pi.exchange_ms.value == pytest.approx(software[4] - 3 * peer, rel=1e-4)


def test_standard_errors_are_given_where_a_row_is_to_spare(devices):
    assert devices["rpi-3b"].power_busy_w.standard_error > 0
    # Of three rows one is spent on the spread.
    assert devices["rpi-3b"].compute_ms_per_mmac.standard_error is None
    assert devices["rpi-4b"].compute_fixed_ms.standard_error > 0
    assert devices["odroid-xu4s"].compute_ms_per_mmac.standard_error is None


def test_a_clock_shortens_software_only(devices):
    slow, fast = devices["rpi-3b"], devices["rpi-3b-1200mhz"]
    for name in ("compute_fixed_ms", "compute_ms_per_mmac", "message_ms"):
        assert getattr(fast, name).value == pytest.approx(getattr(slow, name).value / 3, rel=1e-5)
        assert getattr(fast, name).provenance == "assumed"
    assert fast.sharing_slowdown.value == slow.sharing_slowdown.value


def test_where_no_exchange_was_measured_it_costs_its_messages(devices):
    assert devices["rpi-3b"].peer_message_ms.value == devices["rpi-3b"].message_ms.value
    assert devices["rpi-3b"].exchange_ms.provenance == "assumed"
    assert devices["rpi-3b-pytorch"].exchange_ms.provenance == "fitted"


def test_facts_on_an_unknown_device_are_refused():
    with pytest.raises(ProfileError, match="no published facts"):
        published_facts().device("abacus")
    facts = published_facts()
    stray = facts.measurements[0].model_copy(update={"device": "abacus"})
    with pytest.raises(ProfileError, match="unknown device; found 'abacus'"):
        calibrate(facts.model_copy(update={"measurements": (stray,)}))


def test_two_profiles_of_one_key_are_refused():
    content = published_facts().model_dump()
    content["devices"] = (*content["devices"], {**content["devices"][0], "name": "again"})
    with pytest.raises(ValueError, match="raspberry-pi-3b"):
        PublishedFacts.model_validate(content)
