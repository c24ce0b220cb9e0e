"""Links: what a message meets on its way, and values that no link can have."""

import pytest

from nonn_common.errors import ProfileError
from profiles.link import LinkProfile, wire_ms


def plain(**fields):
    rate = {"value": 1e6, "provenance": "assumed", "source": "this test"}
    return {"name": "l", "title": "L", "bits_per_s": rate, **fields}


def figure(value):
    return {"value": value, "provenance": "assumed", "source": "this test"}


def test_a_link_of_a_rate_alone_is_full_duplex_lossless_and_private():
    link = LinkProfile.check(plain(), where="l.yaml")
    assert (link.duplex, link.shared) == ("full", False)
    for name in ("latency_ms", "loss_pct", "retransmit_ms", "jitter_ms"):
        assert getattr(link, name).value == 0


def test_wire_time_of_a_serial_line():
    link = LinkProfile.check(plain(bits_per_s=figure(92_160)), where="l.yaml")
    assert wire_ms(link, 11_520) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"bits_per_s": figure(0)}, "must be above 0 bit/s"),
        ({"bits_per_s": figure(-1e6)}, "field bits_per_s.value"),
        ({"bits_per_s": "100Mbit/s"}, "field bits_per_s"),
        ({"mbit_per_s": figure(100)}, "field mbit_per_s: is not a field of this file"),
        ({"latency_ms": figure(-1)}, "field latency_ms.value"),
        ({"latency_s": figure(0.1)}, "field latency_s: is not a field of this file"),
        ({"loss_pct": figure(100)}, "from 0 to below 100 %; found 100"),
        ({"loss_pct": figure(-1)}, "field loss_pct.value"),
        ({"jitter_ms": figure("3 s")}, "field jitter_ms.value"),
        ({"retransmit_ms": figure(float("inf"))}, "field retransmit_ms.value"),
        ({"duplex": "both"}, "field duplex"),
        ({"shared": True}, "a shared medium is half duplex"),
    ],
)
def test_a_value_that_no_link_can_have_is_one_sentence(wrong, part):
    with pytest.raises(ProfileError) as caught:
        LinkProfile.check(plain(**wrong), where="my.yaml")
    assert "my.yaml" in str(caught.value)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [True, "100Mbit/s", "", None, [1]])
def test_a_figure_is_a_plain_number(value):
    content = plain()
    content["bits_per_s"]["value"] = value
    with pytest.raises(ProfileError, match="plain number, in the unit that ends the field's name"):
        LinkProfile.check(content, "a test")


def test_yaml_s_exponents_are_numbers():
    content = plain()
    content["bits_per_s"]["value"] = "1e8"
    assert LinkProfile.check(content, "a test").bits_per_s.value == 1e8
