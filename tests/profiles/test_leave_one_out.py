"""Leave-one-out errors and devices of one's own, against truths that were put in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_common.errors import ProfileError
from profiles.calibration import calibrate
from profiles.calibration_data import Measurement, own_facts, published_facts
from profiles.device import DEVICES
from profiles.leave_one_out import doubts, fitted_rows

LIKE, HOST = DEVICES.get("rpi-4b"), DEVICES.get("x86-host")


def measured(**fields):
    return Measurement(device="my-pi", **fields)


def own(rows):
    return own_facts(rows, LIKE, HOST)


def test_three_rows_on_two_coefficients_by_hand():
    # Without one row a line goes through the other two.
    points = ((100, 140.0), (300, 330.0), (900, 940.0))
    rows = [measured(row=str(x), macs=x * 10**6, total_ms=y) for x, y in points]
    found = {row.row: row for row in fitted_rows(*own(rows))}
    for left, (x, y) in enumerate(points):
        (x1, y1), (x2, y2) = (point for i, point in enumerate(points) if i != left)
        slope = (y2 - y1) / (x2 - x1)
        predicted = y1 + slope * (x - x1)
        row = found[str(x)]
        assert row.reason is None
        assert row.loo_error_pct == pytest.approx(100 * (predicted / y - 1), abs=0.02)


def test_the_only_row_that_tells_a_coefficient_has_a_reason_instead():
    rows = [measured(row=str(x), macs=x * 10**6, total_ms=x + 10.0) for x in (100, 300)]
    for row in fitted_rows(*own(rows)):
        assert row.error_pct == pytest.approx(0.0, abs=1e-3)
        assert row.loo_error_pct is None
        assert "my-pi" in row.reason and "compute_fixed_ms" in row.reason


def alike_ms(mmac):
    return LIKE.compute_fixed_ms.value + LIKE.compute_ms_per_mmac.value * mmac


@pytest.mark.parametrize(("mmac", "ms"), [(10, 12.5), (400, 100.0)])
def test_one_row_is_met_by_scaling_both_parts_of_the_device_it_is_like(mmac, ms):
    row = measured(row="one", macs=mmac * 10**6, total_ms=ms)
    device = calibrate(*own([row])).devices["my-pi"]
    factor = ms / alike_ms(mmac)
    for name in ("compute_fixed_ms", "compute_ms_per_mmac"):
        found = getattr(device, name)
        assert found.value == pytest.approx(factor * getattr(LIKE, name).value, rel=1e-5)
        assert (found.provenance, found.residual_pct, found.standard_error) == ("assumed", 0, None)
        assert found.source == f"that of rpi-4b times {factor:.4g}, to meet measured: my-pi one"
    (fitted,) = fitted_rows(*own([row]))
    assert fitted.fitted == pytest.approx(ms, rel=1e-5)
    assert fitted.loo_error_pct is None and "no other row tells it" in fitted.reason


def test_three_repeats_of_one_network_are_met_in_the_mean():
    times = (12.4, 12.5, 12.6)
    rows = [measured(row=str(ms), macs=10**7, total_ms=ms) for ms in times]
    # One time c for all: the sum of (c / y - 1)^2 is least.
    mean = sum(1 / y for y in times) / sum(1 / y**2 for y in times)
    deviation = (sum((mean / y - 1) ** 2 for y in times) / 2 / sum(1 / y**2 for y in times)) ** 0.5
    device = calibrate(*own(rows)).devices["my-pi"]
    fixed = device.compute_fixed_ms
    assert fixed.value == pytest.approx(LIKE.compute_fixed_ms.value * mean / alike_ms(10), rel=1e-5)
    assert fixed.standard_error == pytest.approx(fixed.value * deviation / mean, rel=1e-4)
    for row in fitted_rows(*own(rows)):
        assert row.fitted == pytest.approx(mean, rel=1e-5)
        others = [y for y in times if y != row.published]
        left = sum(1 / y for y in others) / sum(1 / y**2 for y in others)
        assert row.loo_error_pct == pytest.approx(100 * (left / row.published - 1), abs=0.01)


def test_one_energy_is_met_by_scaling_both_powers():
    row = measured(row="one", macs=10**7, total_ms=12.5, energy_per_node_mj=25.0)
    device = calibrate(*own([row])).devices["my-pi"]
    # The device that it is like draws 7.2 W in both parts; 25 mJ in 12.5 ms are 2 W.
    for power in (device.power_fixed_w, device.power_busy_w):
        assert power.value == pytest.approx(2.0, rel=1e-5)
        assert power.provenance == "assumed"


def test_one_row_of_several_boards_is_scaled_less_its_communication():
    row = measured(
        row="two", macs=10**7, boards=2, image_bytes=12_288, reply_bytes=184,
        link="wired-100mbit", communication_ms=10.0, total_ms=30.0,
    )  # fmt: skip
    device = calibrate(*own([row])).devices["my-pi"]
    assert device.compute_fixed_ms.value == pytest.approx(
        20 * LIKE.compute_fixed_ms.value / alike_ms(10), rel=1e-5
    )


def test_times_that_fall_are_refused_with_the_rows_that_cause_it():
    rows = [
        measured(row=name, macs=mmac * 10**6, total_ms=ms)
        for name, mmac, ms in (("large", 40, 10.0), ("small", 10, 30.0), ("middle", 20, 20.0))
    ]
    with pytest.raises(ProfileError) as caught:
        calibrate(*own(rows))
    assert str(caught.value) == (
        "device my-pi: time does not grow with the MACs; in their order: small (30 ms), middle "
        "(20 ms), large (10 ms); measure these rows again, or leave out what is wrong"
    )


def test_rows_that_fit_together_are_not_named_beside_those_that_fall():
    rows = [
        measured(row=name, macs=mmac * 10**6, total_ms=ms)
        for name, mmac, ms in (("a", 10, 30.0), ("b", 20, 20.0), ("c", 40, 10.0), ("d", 50, 31.0))
    ]
    with pytest.raises(ProfileError, match=r"order: a \(30 ms\), b \(20 ms\), c \(10 ms\);"):
        calibrate(*own(rows))


def test_energies_that_fall_are_refused_with_their_rows():
    rows = [
        measured(row=str(mmac), macs=mmac * 10**6, total_ms=10.0 + mmac, energy_per_node_mj=mj)
        for mmac, mj in ((10, 90.0), (20, 60.0), (40, 30.0))
    ]
    with pytest.raises(ProfileError, match=r"energy does not grow .*: 10 \(90 mJ\), 20 \(60 mJ\)"):
        calibrate(*own(rows))


def test_a_row_left_out_may_leave_rows_that_fall():
    rows = [
        measured(row=str(mmac), macs=mmac * 10**6, total_ms=ms)
        for mmac, ms in ((10, 12.5), (11, 12.4), (100, 60.0))
    ]
    found = {row.row: row for row in fitted_rows(*own(rows))}
    assert found["10"].loo_error_pct is not None
    assert found["100"].loo_error_pct is None
    assert "without it, device my-pi: time does not grow" in found["100"].reason


def test_a_row_that_measures_nothing_is_refused():
    with pytest.raises(ProfileError, match="row b: nothing was measured; allowed: one of compute_"):
        own([measured(row="a", macs=1, total_ms=1.0), measured(row="b", macs=1)])


def said(points, **fields):
    rows = [
        measured(row=str(i), macs=mmac * 10**6, total_ms=ms, **fields)
        for i, (mmac, ms) in enumerate(points)
    ]
    facts, library = own(rows)
    device = calibrate(facts, library).devices["my-pi"]
    return doubts(device, fitted_rows(facts, library), LIKE.name)


LINE = tuple((mmac, 10.0 + 0.2 * mmac) for mmac in (50, 100, 400))


def test_rows_that_are_enough_are_not_doubted():
    rows = [
        measured(row=str(mmac), macs=mmac * 10**6, total_ms=ms, energy_per_node_mj=3 * ms)
        for mmac, ms in LINE
    ]
    facts, library = own(rows)
    assert (
        doubts(calibrate(facts, library).devices["my-pi"], fitted_rows(facts, library), "x") == ()
    )


@pytest.mark.parametrize(
    ("points", "told"),
    [
        (((10, 12.5),), "rows of one size do not tell compute_fixed_ms and compute_ms_per_mmac"),
        (LINE[:2], "compute_fixed_ms and compute_ms_per_mmac rest on as many rows as they are"),
        (((10, 10.0), (10, 30.0)), "row 1: total_ms is 30 as measured, 12 as fitted (-60 %)"),
        (((10, 1.0), (20, 9.0), (30, 16.0)), "compute_fixed_ms is 0: without a bound"),
        (
            ((10, 10.0), (20, 16.0), (30, 13.0)),
            "compute_ms_per_mmac is 0.174 with a standard error of 0.2",
        ),
        (LINE, "no row tells power_fixed_w and power_busy_w: those of rpi-4b"),
    ],
)
def test_what_few_or_contradictory_rows_leave_open_is_said(points, told):
    assert [sentence for sentence in said(points) if sentence.startswith(told)]


def test_published_rows_that_alone_tell_a_figure_say_so():
    rows = {(row.device, row.row, row.quantity): row for row in fitted_rows()}
    alone = rows["rpi-3b", "teacher", "total_ms"]
    assert alone.loo_error_pct is None
    assert "compute_fixed_ms" in alone.reason
    shared = rows["rpi-3b", "nonn_2s", "compute_ms"]
    # Without it the line meets the other student row: 106.24 for 101.91.
    assert shared.loo_error_pct == pytest.approx(100 * (106.24 / 101.91 - 1), abs=0.01)
    assert shared.used_for_fit and shared.reason is None
    hidden = rows["odroid-xu4s", "nonn_8s", "total_ms"]
    assert (hidden.published, hidden.error_pct, hidden.used_for_fit) == (None, None, False)
    noisy = rows["rpi-5", "mobilenet_v1", "total_ms"]
    assert not noisy.used_for_fit and "noisy" in noisy.reason


def test_leaving_out_a_row_leaves_the_others():
    facts = published_facts()
    fewer = facts.without(facts.measurements[3])
    assert fewer.measurements == facts.measurements[:3] + facts.measurements[4:]


@given(
    fixed=st.floats(1, 50),
    per_mmac=st.floats(0.05, 5),
    slowdown=st.floats(1, 3),
    message=st.floats(0.5, 20),
    rate=st.floats(1e6, 1e9),
    watts=st.floats(0.5, 15),
)
def test_a_device_that_was_put_in_is_found_again(fixed, per_mmac, slowdown, message, rate, watts):
    host_ms = HOST.hosting.join_fixed_ms.value + HOST.hosting.fc_ms.value
    rows = []
    for x in (50, 200, 800):
        ms = fixed + per_mmac * x
        rows.append(
            measured(row=f"alone {x}", macs=x * 10**6, total_ms=ms, energy_per_node_mj=watts * ms)
        )
    rows.append(
        measured(
            row="three at once",
            macs=50 * 10**6,
            models_per_board=3,
            compute_ms=slowdown * 3 * (fixed + per_mmac * 50),
        )
    )
    for boards, image in ((1, 3072), (2, 12_288), (4, 150_528), (4, 600_000)):
        wires = 8000 * (boards * image + 40) / rate
        rows.append(
            measured(
                row=f"{boards} boards {image}",
                macs=50 * 10**6,
                boards=boards,
                image_bytes=image,
                reply_bytes=40,
                compute_ms=fixed + per_mmac * 50,
                communication_ms=boards * message + wires + host_ms,
            )
        )
    result = calibrate(*own(rows))
    device = result.devices["my-pi"]
    for name, truth in (
        ("compute_fixed_ms", fixed),
        ("compute_ms_per_mmac", per_mmac),
        ("sharing_slowdown", slowdown),
        ("message_ms", message),
        ("power_busy_w", watts),
        ("power_fixed_w", watts),
    ):
        figure = getattr(device, name)
        assert figure.value == pytest.approx(truth, rel=1e-3), name
        assert figure.provenance == "fitted"
    assert result.links[None].bits_per_s.value == pytest.approx(rate, rel=1e-3)
    assert device.idle_w is None and device.radio_w.source == "that of rpi-4b"


def test_one_row_does_not_tell_a_message_from_its_bytes():
    row = measured(
        row="two",
        macs=10**6,
        boards=2,
        image_bytes=1000,
        reply_bytes=40,
        compute_ms=5.0,
        communication_ms=12.0,
    )
    with pytest.raises(ProfileError, match="row two: the rate of its link is not told"):
        fitted_rows(*own([row]))
    named = row.model_copy(update={"link": "wired-1gbit"})
    assert fitted_rows(*own([named]))[1].error_pct == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "host", "part"),
    [
        ([measured(row="a", macs=1), Measurement(row="b", device="other", macs=1)], HOST, "one"),
        ([Measurement(row="b", device="rpi-4b", macs=1)], HOST, "a name of its own"),
        ([measured(row="a", macs=1)], LIKE, "cannot be the host"),
    ],
)
def test_a_table_is_for_one_device_with_a_name_of_its_own(rows, host, part):
    with pytest.raises(ProfileError, match=part):
        own_facts(rows, LIKE, host)
