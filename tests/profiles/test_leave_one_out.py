"""Leave-one-out errors and devices of one's own, against truths that were put in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_common.errors import ProfileError
from profiles.calibration import calibrate
from profiles.calibration_data import Measurement, own_facts, published_facts
from profiles.device import DEVICES
from profiles.leave_one_out import fitted_rows

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


def test_one_row_tells_the_time_per_mac_once_the_fixed_part_is_assumed():
    row = measured(row="one", macs=400 * 10**6, total_ms=100.0)
    device = calibrate(*own([row])).devices["my-pi"]
    fixed = LIKE.compute_fixed_ms.value
    assert device.compute_fixed_ms.value == fixed
    assert device.compute_fixed_ms.provenance == "assumed"
    assert device.compute_ms_per_mmac.value == pytest.approx((100 - fixed) / 400, rel=1e-5)
    assert device.compute_ms_per_mmac.provenance == "fitted"


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
