"""Rates as users write them."""

import struct

import pytest

from pier.errors import InvalidParameter
from pier.kernel import tc
from pier.network.shaping import Shape, parse_shape


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10mbit", 10_000_000),
        ("1.5G", 1_500_000_000),
        ("500kbit", 500_000),
        ("8000", 8000),
        ("0", 0),
    ],
)
def test_rates(text, rate):
    assert parse_shape({"pier.net-rate-in": text}) == Shape(rate_in=rate)
    assert parse_shape({"pier.net-rate-out": text}) == Shape(rate_out=rate)


def test_bursts():
    assert parse_shape({"pier.net-burst": "128k"}).burst == 131072
    assert parse_shape({}) == Shape()


@pytest.mark.parametrize(
    ("text", "delay", "jitter"),
    [("100ms", 100_000, 0), ("1.5s,20", 1_500_000, 20_000), ("7us,1us", 7, 1), ("0", 0, 0)],
)
def test_delays(text, delay, jitter):
    assert parse_shape({"pier.net-delay": text}) == Shape(delay_us=delay, jitter_us=jitter)


def test_losses():
    assert parse_shape({"pier.net-loss": "0.5%"}).loss == 0.005
    assert parse_shape({"pier.net-loss": "100"}).loss == 1


def test_emulation_as_tc_says_it():
    """The message of `tc qdisc replace dev … parent 1:1 handle 10: netem delay 10ms 2ms loss 50%`."""
    message = tc.emulated(7, 10_000, 2_000, 0.5, in_bucket=True)
    assert message[16:36] == struct.pack("=BxxxiIII", 0, 7, 0x100000, 0x10001, 0)
    options = message[message.index(b"netem") + 8 :]
    assert struct.unpack_from("=HH", options) == (52, 2)
    assert struct.unpack_from("=IIIIII", options, 4) == (0, 10_000, 1 << 31, 0, 0, 0)
    assert struct.unpack_from("=HHq", options, 28) == (12, 10, 10_000_000)
    assert struct.unpack_from("=HHq", options, 40) == (12, 11, 2_000_000)


@pytest.mark.parametrize(
    "annotations",
    [
        {"pier.net-rate-in": "fast"},
        {"pier.net-rate-in": "-1"},
        {"pier.net-rate-out": "1kbit"},
        {"pier.net-burst": "10"},
        {"pier.net-burst": "much"},
        {"pier.net-delay": "soon"},
        {"pier.net-delay": "61s"},
        {"pier.net-loss": "101%"},
    ],
)
def test_what_is_no_rate(annotations):
    with pytest.raises(InvalidParameter, match="invalid pier"):
        parse_shape(annotations)
