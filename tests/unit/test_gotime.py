import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.errors import InvalidParameter
from pier.model import gotime
from pier.model.gotime import SECOND


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_700_000_000 * SECOND + 120_000_000, "2023-11-14T22:13:20.12Z"),
        (gotime.ZERO_TIME_NS, gotime.ZERO_TIME),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_times_are_written_as_by_go(ns, text):
    assert gotime.format_ns(ns) == text
    assert gotime.parse_rfc3339(text) == ns


def test_padded_times_have_nine_digits():
    assert gotime.format_ns_padded(1_700_000_000 * SECOND) == "2023-11-14T22:13:20.000000000Z"


@given(st.integers(gotime.ZERO_TIME_NS, 253402300799 * SECOND))
def test_times_survive_a_round_trip(ns):
    assert gotime.parse_rfc3339(gotime.format_ns(ns)) == ns
    assert gotime.parse_rfc3339(gotime.format_ns_padded(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("300ms", 300_000_000),
        ("-1.5h", -5400 * SECOND),
        ("1h2m3.5s", 3723 * SECOND + SECOND // 2),
        ("1us", 1000),
        ("1µs", 1000),
        (".5s", SECOND // 2),
        ("+10m", 600 * SECOND),
    ],
)
def test_durations_are_read_as_by_go(text, ns):
    assert gotime.parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "-", "1", "s", "1x", "1h 2m", "h1", "1.s.", "1h2"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match="invalid duration"):
        gotime.parse_duration(text)


NOW = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000", 1_700_000_000 * SECOND),
        ("1700000000.5", 1_700_000_000 * SECOND + SECOND // 2),
        ("1700000000.000000001", 1_700_000_000 * SECOND + 1),
        ("10m", NOW - 600 * SECOND),
        ("-1s", NOW + SECOND),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
        ("2023-11-14T23:13:20.25+01:00", 1_700_000_000 * SECOND + SECOND // 4),
    ],
)
def test_query_times(text, ns):
    assert gotime.parse_timestamp(text, now_ns=NOW) == ns


@pytest.mark.parametrize(
    "text", ["2023-11-14", "2023-11-14T22", "2023-11-14T22:13", "2023-11-14T22:13:20"]
)
def test_query_times_without_a_zone_are_local(text):
    layout = "%Y-%m-%dT%H:%M:%S"[: {10: 8, 13: 11, 16: 14, 19: 17}[len(text)]]
    expected = int(time.mktime(time.strptime(text, layout)))
    assert gotime.parse_timestamp(text, now_ns=NOW) == expected * SECOND


@pytest.mark.parametrize("text", ["yesterday", "2023-13-01", "2023-11-14T25:00:00Z", "1_0", " 1"])
def test_other_query_times_are_refused(text):
    with pytest.raises(InvalidParameter, match="failed to parse value"):
        gotime.parse_timestamp(text, now_ns=NOW)
