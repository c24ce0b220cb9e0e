import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_common import units
from nonn_common.errors import InputError

PARSERS = [
    units.parse_bytes,
    units.parse_macs,
    units.parse_hertz,
    units.parse_ms,
    units.parse_mj,
    units.parse_per_s,
]


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (units.parse_bytes, "500KB", 500_000),
        (units.parse_bytes, "512KiB", 524_288),
        (units.parse_bytes, "1.5 MB", 1_500_000),
        (units.parse_bytes, " 2000B ", 2_000),
        (units.parse_bytes, 2_000, 2_000),
        (units.parse_bytes, "1gib", 2**30),
        (units.parse_macs, "200M", 100_000_000),
        (units.parse_macs, "2.6GFLOPs", 1_300_000_000),
        (units.parse_macs, "3", 1),
        (units.parse_hertz, "400MHz", 400_000_000),
        (units.parse_hertz, "1.2GHz", 1_200_000_000),
        (units.parse_ms, "15ms", 15.0),
        (units.parse_ms, "1.5s", 1_500.0),
        (units.parse_ms, "250us", 0.25),
        (units.parse_ms, "1.5min", 90_000.0),
        (units.parse_ms, "2h", 7_200_000.0),
        (units.parse_mj, "250mJ", 250.0),
        (units.parse_mj, "0.3 J", 300.0),
        (units.parse_per_s, "20/s", 20.0),
    ],
)
def test_reads_what_people_type(parse, text, expected):
    assert parse(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "text",
    ["", "KB", "-5", "-1KB", "0", "five", "1 2", "nan", "inf", "1e999", "5 apples", "1e308T"],
)
def test_refuses_what_is_no_positive_quantity(parse, text):
    with pytest.raises(InputError) as caught:
        parse(text, where="--budget")
    assert str(caught.value).startswith("--budget: ")
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_bytes, "5ms"),
        (units.parse_ms, "5KB"),
        (units.parse_hertz, "400"),
        (units.parse_macs, "200MB"),
        (units.parse_mj, "250%"),
        (units.parse_per_s, "20%"),
    ],
)
def test_refuses_the_unit_of_something_else(parse, text):
    with pytest.raises(InputError, match="not a quantity of this kind"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_bytes, "250"),
        (units.parse_hertz, "400"),
        (units.parse_ms, "50"),
        (units.parse_mj, "250"),
        (units.parse_per_s, "20"),
    ],
)
def test_a_quantity_without_its_unit_is_refused(parse, text):
    with pytest.raises(InputError, match=f"it has no unit; found '{text}'; allowed: "):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("93%", 93), ("94.5", 94.5), (" 0.5 % ", 0.5), ("0", 0), ("1%", 1), ("100", 100), ("2", 2)],
)
def test_a_percentage_is_read_with_or_without_its_sign(text, value):
    assert units.parse_pct(text) == value


@pytest.mark.parametrize(
    ("text", "meant"), [("0.97", "97% or 0.97%"), ("1", "100% or 1%"), (".005", "0.5% or 0.005%")]
)
def test_what_may_be_a_fraction_is_no_percentage(text, meant):
    with pytest.raises(InputError) as caught:
        units.parse_pct(text, "--target")
    what = "--target: may be a fraction, or a percentage without its sign"
    assert str(caught.value) == f"{what}; found '{text}'; allowed: {meant}"


@pytest.mark.parametrize("text", ["", "%", "-1%", "101", "101%", "93/s", "half"])
def test_other_words_are_no_percentage(text):
    with pytest.raises(InputError, match="not a percentage"):
        units.parse_pct(text)


@pytest.mark.parametrize(("parse", "text"), [(units.parse_bytes, "0.4B"), (units.parse_macs, "1")])
def test_refuses_what_rounds_to_nothing(parse, text):
    with pytest.raises(InputError, match="at least"):
        parse(text)


@given(st.integers(min_value=1, max_value=10**15))
def test_plain_bytes_are_themselves(size_bytes):
    assert units.parse_bytes(f"{size_bytes}B") == units.parse_bytes(size_bytes) == size_bytes


@given(st.integers(min_value=1, max_value=10**9), st.sampled_from([("K", 10**3), ("M", 10**6)]))
def test_a_prefix_multiplies_exactly(number, prefix):
    letter, scale = prefix
    assert units.parse_bytes(f"{number}{letter}B") == number * scale
    assert units.parse_macs(f"{number}{letter}FLOPs") * units.FLOPS_PER_MAC == number * scale


@given(st.decimals(min_value="0.001", max_value="1000000", places=3))
def test_seconds_are_a_thousand_milliseconds(seconds):
    assert math.isclose(
        units.parse_ms(f"{seconds}s"), 1000 * units.parse_ms(f"{seconds}ms"), rel_tol=1e-12
    )


@given(st.integers(min_value=0, max_value=10**14))
def test_a_written_size_reads_back_within_its_rounding(size_bytes):
    size_bytes += 1
    shown = units.format_bytes(size_bytes)
    assert abs(units.parse_bytes(shown) - size_bytes) <= 0.0501 * max(size_bytes, 1)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_in_one_way(text):
    for parse in PARSERS:
        try:
            assert parse(text) > 0
        except InputError as error:
            assert "allowed" in str(error)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.format_bytes(430_000), "430.0 KB"),
        (units.format_bytes(12), "12 B"),
        (units.format_flops(83_500_000), "167.0 MFLOP"),
        (units.format_flops(1_301_400_000), "2.6 GFLOP"),
        (units.format_count(8_950_000), "8.95 M"),
        (units.format_count(7), "7"),
    ],
)
def test_writes_quantities_for_people(shown, expected):
    assert shown == expected
