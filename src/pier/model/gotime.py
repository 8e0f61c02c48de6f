"""Times and durations as Go writes and reads them, which is how the Engine API speaks of both.

A time is RFC 3339 in UTC with up to nine digits of nanoseconds, trailing zeros left out (Go's
`time.RFC3339Nano`); inside Pier it is an integer of nanoseconds since the epoch. A duration is Go's
`time.Duration` text ("1h2m3.5s"); inside Pier an integer of nanoseconds.
"""

import re
import time
from calendar import timegm
from datetime import datetime

from pier.errors import InvalidParameter

SECOND = 1_000_000_000
ZERO_TIME = "0001-01-01T00:00:00Z"
ZERO_TIME_NS = -62_135_596_800 * SECOND

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = re.compile(r"(-?\d+)(?:\.(\d{1,9})\d*)?")
_DATE = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:T(\d{2})(?::(\d{2})(?::(\d{2})(?:[.,](\d{1,9})\d*)?)?)?)?"
    r"(Z|[+-]\d{2}:\d{2})?"
)


def now_ns() -> int:
    """Return the current time in nanoseconds since the epoch."""
    return time.time_ns()


def now() -> str:
    """Return the current time as RFC 3339 with nanoseconds."""
    return format_ns(time.time_ns())


def format_ns(ns: int) -> str:
    """Return nanoseconds since the epoch as Go's RFC3339Nano in UTC."""
    seconds, fraction = divmod(ns, SECOND)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    return f"{text}.{fraction:09}".rstrip("0") + "Z" if fraction else text + "Z"


def format_ns_padded(ns: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 with always nine digits of fraction.

    Docker's log time stamps have this form (`jsonmessage.RFC3339NanoFixed`).
    """
    seconds, fraction = divmod(ns, SECOND)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z"


def parse_rfc3339(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time, or of a shortened one.

    As in Docker's `--since`: the time of day may stop after hours or minutes or be left out, and
    without a zone the time is local. Raises ValueError.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f'cannot parse "{text}" as a time')
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    fields = (int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    when = datetime(*fields)  # noqa: DTZ001 - only checks the ranges; the zone is added below
    if zone is None:
        seconds = int(time.mktime((*when.timetuple()[:8], -1)))
    else:
        seconds = timegm(when.timetuple()) - _zone_offset_s(zone)
    return seconds * SECOND + int((fraction or "").ljust(9, "0"))


def _zone_offset_s(zone: str) -> int:
    if zone == "Z":
        return 0
    seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return -seconds if zone[0] == "-" else seconds


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration such as "1h2m3.5s", "-5m" or "0". Raises ValueError."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total = 0
    end = 0
    for part in _DURATION_PART.finditer(rest):
        if part.start() != end:
            break
        end = part.end()
        whole, _, fraction = part[1].partition(".")
        unit = _UNITS_NS[part[2]]
        total += int(whole or 0) * unit + (int(fraction or 0) * unit) // 10 ** len(fraction)
    if not rest or end != len(rest):
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total


def parse_timestamp(text: str, *, now_ns: int) -> int:
    """Return the nanoseconds since the epoch that a query's `since` or `until` means.

    Unix seconds with an optional fraction of up to nine digits, RFC 3339 (see `parse_rfc3339`), or
    a Go duration before `now_ns`. Raises InvalidParameter.
    """
    if match := _SECONDS.fullmatch(text):
        fraction = int((match[2] or "").ljust(9, "0"))
        return int(match[1]) * SECOND + fraction
    try:
        return now_ns - parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None
