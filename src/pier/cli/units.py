"""Sizes, ages and times in the words of docker/go-units and Go's time package."""

import time


def _four_digits(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if value < 10**digits else str(int(value))


def human_size(size_bytes: float, digits: int = 3) -> str:
    """Decimal units: 1.23kB, 5.68MB."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    index = 0
    while size_bytes >= 1000 and index < len(units) - 1:
        size_bytes /= 1000
        index += 1
    return _four_digits(size_bytes, digits) + units[index]


def binary_size(size_bytes: float) -> str:
    """Binary units with four digits: 3.84GiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    index = 0
    while size_bytes >= 1024 and index < len(units) - 1:
        size_bytes /= 1024
        index += 1
    return _four_digits(size_bytes, 4) + units[index]


def human_duration(seconds: float) -> str:
    """About how long: "5 seconds", "About an hour", "3 weeks"."""
    whole = int(seconds)
    hours = int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if whole < 120:
        return "About a minute"
    if whole < 3600:
        return f"{whole // 60} minutes"
    if hours == 1:
        return "About an hour"
    for limit, hours_each, name in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // hours_each} {name}"
    return f"{whole // 3600 // 24 // 365} years"


def ago(created: int) -> str:
    """The age of a time in seconds since the epoch."""
    return human_duration(time.time() - created) + " ago"


def local_time(created: int) -> str:
    """A time as Go prints it: `2026-11-23 20:49:04 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created))


def nano_time(nanoseconds: int) -> str:
    """RFC 3339 with nine digits in the local zone, as events are stamped."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{fraction:09d}" + _zone(local)


def second_time(seconds: int) -> str:
    """RFC 3339 in whole seconds in the local zone."""
    local = time.localtime(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + _zone(local)


def _zone(local: time.struct_time) -> str:
    zone = time.strftime("%z", local)
    return "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"


def query_time(text: str) -> str:
    """What a user gives to --since and --until, as seconds since the epoch for the API.

    A Go duration is an age, digits (with a fraction) are passed on, and a date of RFC 3339 may lack
    its zone (the local one is meant), its seconds or its time. Raises ValueError for other text.
    """
    from pier.cli.kinds import parse_duration

    try:
        return str(int(time.time() - parse_duration(text) / 1e9))
    except ValueError:
        pass
    if text.replace(".", "", 1).isdigit():
        return text
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ValueError(f'failed to parse value as time or duration: "{text}"') from None
    digits = text.partition(".")[2]
    fraction = digits[: len(digits) - len(digits.lstrip("0123456789"))]
    return f"{int(moment.timestamp())}.{fraction[:9]:0<9}"
