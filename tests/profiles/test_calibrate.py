import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import calibrate
from profiles.calibrate import calibrated_devices, relative_fit, write_devices
from profiles.device import DEVICES, compute_mj, compute_ms
from profiles.errors import ProfileError
from profiles.published import Deployment, PublishedFacts, published_facts

STUDENT_MACS = 83_500_000


@pytest.fixture(scope="module")
def devices():
    return calibrated_devices()


def test_the_shipped_files_are_the_output_of_the_fit(tmp_path):
    written = write_devices(tmp_path)
    assert {path.stem for path in written} == set(DEVICES.names())
    for path in written:
        assert path.read_text() == (calibrate.DEVICES_FOLDER / path.name).read_text()


@given(
    fixed=st.floats(0.1, 100),
    slope=st.floats(0.01, 10),
    mmac=st.lists(st.integers(1, 2000), min_size=3, max_size=6, unique=True),
)
def test_an_exact_line_is_found_again(fixed, slope, mmac):
    fit = relative_fit([[1.0] * len(mmac), mmac], [fixed + slope * each for each in mmac])
    for each in mmac:
        found = fit.coefficients[0] + fit.coefficients[1] * each
        assert found == pytest.approx(fixed + slope * each, rel=1e-4)
    assert fit.residual_pct <= 0.01


def test_no_figure_is_negative():
    fit = relative_fit(
        [[1.0, 1.0], [1.0, 10.0]], [1.0, 20.0]
    )  # the line through both: -1.1 + 2.1 x
    assert fit.coefficients[0] == pytest.approx(0.0, abs=1e-6)
    assert fit.coefficients[1] > 0


def test_residual_is_the_largest_relative_error():
    # One constant for 90 and 110: minimise (c/90 - 1)^2 + (c/110 - 1)^2 by hand.
    best = (1 / 90 + 1 / 110) / (1 / 90**2 + 1 / 110**2)
    fit = relative_fit([[1.0, 1.0]], [90.0, 110.0])
    assert fit.coefficients[0] == pytest.approx(best, rel=1e-5)
    assert fit.residual_pct == pytest.approx(100 * (1 - best / 110), abs=0.01)


def test_what_is_known_is_not_fitted():
    fit = relative_fit([[1.0, 2.0]], [5.0, 7.0], known=[3.0, 3.0])
    assert fit.coefficients == pytest.approx((2.0,))


def test_raspberry_pi_computing_is_the_best_line_through_three_rows(devices):
    pi = devices["rpi-3b"]
    # The teacher stands alone at its size, so the line meets it; the two student rows share one.
    shared = (1 / 101.91 + 1 / 106.24) / (1 / 101.91**2 + 1 / 106.24**2)
    assert compute_ms(pi, STUDENT_MACS) == pytest.approx(shared, rel=1e-5)
    assert compute_ms(pi, 1_301_400_000) == pytest.approx(1405, rel=1e-5)
    shared = (1 / 238.98 + 1 / 249.15) / (1 / 238.98**2 + 1 / 249.15**2)
    assert compute_mj(pi, STUDENT_MACS) == pytest.approx(shared, rel=1e-5)
    assert pi.compute_fixed_ms.residual_pct == pytest.approx(2.12, abs=0.01)


def test_odroid_computing_is_the_line_through_two_rows(devices):
    odroid = devices["odroid-xu4s"]
    slope = (224 - 19.01) / (1301.4 - 83.5)
    assert odroid.compute_ms_per_mmac.value == pytest.approx(slope, rel=1e-5)
    assert odroid.compute_fixed_ms.value == pytest.approx(224 - slope * 1301.4, rel=1e-4)
    assert odroid.power_busy_w.value * slope == pytest.approx(
        (3084.08 - 219.07) / (1301.4 - 83.5), rel=1e-5
    )


def test_communication_solves_the_three_published_rows(devices):
    image_ms, reply_ms, fc_ms = 0.98304, 0.01472, 0.1
    per_message = (43.76 - 13.10) / 6
    join = 13.10 - 2 * per_message - reply_ms - fc_ms
    assert devices["rpi-3b"].message_ms.value == pytest.approx(per_message - image_ms, rel=1e-5)
    assert devices["x86-host"].hosting.join_fixed_ms.value == pytest.approx(join, rel=1e-5)
    odroid = (6.00 - join - reply_ms - fc_ms) / 2 - image_ms
    assert devices["odroid-xu4s"].message_ms.value == pytest.approx(odroid, rel=1e-5)


def test_four_students_on_the_odroid_take_as_long_as_one_on_the_raspberry_pi(devices):
    pi, odroid = devices["rpi-3b"], devices["odroid-xu4s"]
    four_ms = odroid.sharing_slowdown.value * 4 * compute_ms(odroid, STUDENT_MACS)
    assert four_ms == pytest.approx(compute_ms(pi, STUDENT_MACS), rel=1e-5)
    assert pi.sharing_slowdown.value == odroid.sharing_slowdown.value
    assert pi.sharing_slowdown.provenance == "assumed"


def test_microcontroller_repeats_its_benchmark(devices):
    chip = devices["mcu-500kb"]
    assert compute_ms(chip, 12_500_000) == pytest.approx(1000 / 4.673, rel=1e-5)
    assert compute_mj(chip, 12_500_000) == pytest.approx(7.056, rel=1e-5)
    assert chip.usable_bytes == 500_000


def test_host_repeats_its_one_model_and_runs_no_students(devices):
    host = devices["x86-host"]
    assert compute_ms(host, 1_301_400_000) == pytest.approx(86, rel=1e-5)
    assert host.missing_as_board
    assert host.hosting.fc_ms.value == 0.1


def test_other_facts_give_other_figures():
    content = published_facts().model_dump()
    for row in content["deployments"]:
        row["energy_per_node_mj"] *= 2
    doubled = calibrated_devices(PublishedFacts.check(content, where="doubled"))
    for name in ("rpi-3b", "odroid-xu4s"):
        assert doubled[name].power_busy_w.value == pytest.approx(
            2 * DEVICES.get(name).power_busy_w.value, rel=1e-5
        )


def test_facts_on_an_unknown_device_are_refused():
    with pytest.raises(ProfileError, match="no published facts"):
        published_facts().device("abacus")


def test_a_teacher_has_no_communication():
    row = published_facts().deployments[0].model_dump()
    with pytest.raises(ValueError, match="rows with students"):
        Deployment.model_validate({**row, "communication_ms": 1.0})
