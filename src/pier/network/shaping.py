"""How fast a container's interfaces receive and send, which Docker has no option for (moby#26767).

Rates are bits per second with the suffixes of tc(8): "10mbit", "1.5gbit", or short "10m"; "0" for no
limit. Both directions are token buckets: what it receives on the host's end of its pair, what it
sends on its own. Delay (with jitter, "100ms,10ms") and loss ("0.5%") of what it sends are for trying
out bad networks.
"""

import errno
import math
import re

from msgspec import Struct

from pier.errors import InvalidParameter
from pier.kernel import rtnetlink as rt
from pier.kernel import tc
from pier.kernel.netlink import Netlink

RATE_IN = "pier.net-rate-in"
RATE_OUT = "pier.net-rate-out"
BURST = "pier.net-burst"
DELAY = "pier.net-delay"
LOSS = "pier.net-loss"
KEYS = (RATE_IN, RATE_OUT, BURST, DELAY, LOSS)

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g|t)?(?:bit|bps)?", re.IGNORECASE)
_SIZE = re.compile(r"(\d+)\s*(k|m|g)?b?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)?", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%?")
_MICROSECONDS = {"": 1000, "us": 1, "ms": 1000, "s": 1_000_000}
_LONGEST_US = 60_000_000
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
# A segment of 64 KiB, which veth pairs pass on whole, has to fit.
_LEAST_BURST = 1 << 16
_BURST_S = 0.01
_QUEUE_S = 0.1
_LEAST_RATE = 8000


class Shape(Struct, frozen=True):
    """Bits per second, 0 for no limit; `burst` in bytes, 0 for what suits the rate; `loss` 0 to 1."""

    rate_in: int = 0
    rate_out: int = 0
    burst: int = 0
    delay_us: int = 0
    jitter_us: int = 0
    loss: float = 0.0


def parse_shape(annotations: dict[str, str]) -> Shape:
    """What a container's annotations ask for. Raises InvalidParameter."""
    burst = annotations.get(BURST, "0")
    match = _SIZE.fullmatch(burst.strip())
    if match is None:
        raise InvalidParameter(f"invalid {BURST}: {burst!r} is not a size in bytes")
    size = int(match[1]) << (10 * _POWERS[(match[2] or "").lower()])
    if size and size < 2048:
        raise InvalidParameter(f"invalid {BURST}: {burst} is less than a packet")
    delay, _, jitter = annotations.get(DELAY, "0").partition(",")
    return Shape(
        _rate(RATE_IN, annotations.get(RATE_IN, "0")),
        _rate(RATE_OUT, annotations.get(RATE_OUT, "0")),
        size,
        _microseconds(delay),
        _microseconds(jitter or "0"),
        _share(annotations.get(LOSS, "0")),
    )


def apply_in(netlink: Netlink, name: str, shape: Shape) -> None:
    """Limit what the container receives, on the host's end. Raises OSError."""
    _apply(netlink, name, Shape(rate_out=shape.rate_in, burst=shape.burst))


def apply_out(netlink: Netlink, name: str, shape: Shape) -> None:
    """Limit, delay and lose what the container sends, on its own end.

    Raises OSError; EOPNOTSUPP, with words, where the kernel has no netem.
    """
    _apply(netlink, name, shape)


def _apply(netlink: Netlink, name: str, shape: Shape) -> None:
    index = rt.read_link(netlink.get(rt.get_link(name))).index
    try:
        netlink.request(tc.no_queue(index))
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.EINVAL):
            raise
    if shape.rate_out:
        octets = math.ceil(shape.rate_out / 8)
        size = shape.burst or max(_LEAST_BURST, int(octets * _BURST_S))
        netlink.request(tc.token_bucket(index, octets, size, size + int(octets * _QUEUE_S)))
    if shape.delay_us or shape.jitter_us or shape.loss:
        bucket = bool(shape.rate_out)
        try:
            netlink.request(
                tc.emulated(index, shape.delay_us, shape.jitter_us, shape.loss, in_bucket=bucket)
            )
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
            raise OSError(
                errno.EOPNOTSUPP,
                f"{DELAY} and {LOSS} need netem, which this kernel has not (CONFIG_NET_SCH_NETEM)",
            ) from exc


def _rate(key: str, value: str) -> int:
    match = _RATE.fullmatch(value.strip())
    if match is None:
        raise InvalidParameter(f"invalid {key}: {value!r} is not a rate in bits per second")
    rate = int(float(match[1]) * 1000 ** _POWERS[(match[2] or "").lower()])
    if rate and rate < _LEAST_RATE:
        raise InvalidParameter(f"invalid {key}: {value} is less than 8kbit")
    return rate


def _microseconds(value: str) -> int:
    match = _TIME.fullmatch(value.strip())
    found = int(float(match[1]) * _MICROSECONDS[(match[2] or "").lower()]) if match else -1
    if not 0 <= found <= _LONGEST_US:
        raise InvalidParameter(f"invalid {DELAY}: {value!r} is not a time up to 60s")
    return found


def _share(value: str) -> float:
    match = _PERCENT.fullmatch(value.strip())
    found = float(match[1]) / 100 if match else -1.0
    if not 0 <= found <= 1:
        raise InvalidParameter(f"invalid {LOSS}: {value!r} is not a percentage")
    return found
