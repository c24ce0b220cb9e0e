"""Links in a row, against what each of them does alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_common.errors import ProfileError
from profiles import Quantity
from profiles.device import DEVICES
from profiles.fleet import route_order
from profiles.link import LINKS, LinkProfile, chained_link, wire_ms


def link(name, rate, loss, jitter):
    def figure(value):
        return Quantity(value=value, provenance="assumed", source="this test")

    return LinkProfile(
        name=name,
        title=name,
        bits_per_s=figure(rate),
        loss_pct=figure(loss),
        jitter_ms=figure(jitter),
    )


links = st.builds(link, st.just("l"), st.floats(1e3, 1e9), st.floats(0, 99), st.floats(0, 100))


@given(links, links, st.integers(1, 10**6))
def test_times_and_delays_add_up_and_arrivals_multiply(first, last, size):
    row = chained_link(first, DEVICES.get("rpi-3b"), last)
    assert wire_ms(row, size) == pytest.approx(wire_ms(first, size) + wire_ms(last, size))
    assert row.jitter_ms.value == first.jitter_ms.value + last.jitter_ms.value
    arrives = (100 - first.loss_pct.value) * (100 - last.loss_pct.value) / 100
    assert 100 - row.loss_pct.value == pytest.approx(arrives)


@pytest.mark.parametrize(("first", "last"), [("wifi", "wired-1gbit"), ("wired-1gbit", "wifi")])
def test_a_row_with_a_shared_medium_shares_it(first, last):
    row = chained_link(LINKS.get(first), DEVICES.get("rpi-4b"), LINKS.get(last))
    assert (row.name, row.shared, row.duplex) == ("wifi", True, "half")


@given(st.permutations(range(6)), st.data())
def test_every_board_comes_after_the_one_in_between(order, data):
    via = {
        f"b{board}": data.draw(st.sampled_from([None, *(f"b{b}" for b in order[:place])]))
        for place, board in enumerate(order)
    }
    shuffled = dict(data.draw(st.permutations(list(via.items()))))
    found = route_order(shuffled, "here")
    assert sorted(found) == sorted(via)
    for board, between in via.items():
        assert between is None or found.index(between) < found.index(board)


def test_a_loop_beside_a_straight_route_is_found():
    with pytest.raises(ProfileError, match="in a loop; found 'b via c via b'"):
        route_order({"a": None, "b": "c", "c": "b"}, "here")
