"""The kinds of values that flags take, each with the grammar and the errors of Docker's client.

Sizes and throttles follow docker/go-units, numbers Go's strconv (base prefixes `0x`, `0o`, `0b` and
underscores are allowed), durations Go's time.ParseDuration. Mounts and networks, which are small
languages of their own, are in `pier.cli.mounts` and `pier.cli.networks`.
"""

from pier.cli.flags import Kind

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def _bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_integer(text: str, *, bits: int = 64, signed: bool = True) -> int:
    """Read an integer as Go's strconv does with base 0; ValueError carries Go's message."""
    name = "ParseInt" if signed else "ParseUint"
    digits = text.lower().lstrip("+-")
    try:
        if len(digits) > 1 and digits[0] == "0" and digits[1:].isdigit():
            value = int(text.replace("0", "0o", 1), 0)  # Go reads a leading 0 as octal
        else:
            value = int(text if text.strip() == text else "", 0)
    except ValueError:
        raise ValueError(f'strconv.{name}: parsing "{text}": invalid syntax') from None
    if not signed and text[0] in "+-":
        raise ValueError(f'strconv.{name}: parsing "{text}": invalid syntax')
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise ValueError(f'strconv.{name}: parsing "{text}": value out of range')
    return value


def parse_bytes(text: str) -> int:
    """Read a size with a binary suffix ("64m", "1.5 GiB"), as go-units' RAMInBytes."""
    end = len(text)
    while end and not (text[end - 1].isdigit() or text[end - 1] == "."):
        end -= 1
    number, suffix = text[:end], text[end:].strip()
    number = number.removesuffix(" ")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    unit = suffix.lower()
    for power, letter in enumerate("kmgtp", 1):
        if unit in (letter, letter + "b", letter + "ib"):
            return int(value * 1024**power)
    if unit in ("", "b"):
        return int(value)
    raise ValueError(f"invalid suffix: '{suffix}'")


def _swap(text: str) -> int:
    return -1 if text == "-1" else parse_bytes(text)


def parse_nano_cpus(text: str) -> int:
    """Read a number of CPUs ("1.5", "1/2") as billionths; ValueError when finer than that."""
    from fractions import Fraction

    try:
        cpus = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    nano = cpus * 1_000_000_000
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


def parse_duration(text: str) -> int:
    """Read a Go duration ("1m30s", "1.5h") as nanoseconds."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total = 0.0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        letters = next((i for i, c in enumerate(rest) if c in "0123456789."), len(rest))
        unit, rest = rest[:letters], rest[letters:]
        if not number.strip(".") or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _NANOSECONDS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += float(number) * _NANOSECONDS[unit]
    return -int(total) if text[0] == "-" else int(total)


def _attach(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _env(text: str) -> str:
    import os

    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if not equals and name in os.environ:
        return f"{name}={os.environ[name]}"
    return text


def _label(text: str) -> str:
    if not text.partition("=")[0]:
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def _extra_host(text: str) -> str:
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address[:1] == "[" and address[-1:] == "]":
        address = address[1:-1]
    if address != "host-gateway" and not is_address(address):
        raise ValueError(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _address(text: str) -> str:
    if not is_address(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text.strip()


def _search_domain(text: str) -> str:
    import re

    text = text.strip()
    label = r"[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?"
    if text != "." and not re.fullmatch(rf"{label}(\.{label})*\.?", text):
        raise ValueError(f"{text} is not a valid domain")
    return text


def _sysctl(text: str) -> str:
    namespaced = (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
    key, equals, _ = text.partition("=")
    if not equals or not (key in namespaced or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


_RLIMITS = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def _ulimit(text: str) -> "dict[str, str | int]":
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _RLIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft_text, colon, hard_text = limits.partition(":")
    soft = parse_integer(soft_text)
    hard = parse_integer(hard_text) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return {"Name": name, "Hard": hard, "Soft": soft}


def _device_rule(text: str) -> str:
    import re

    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _device_and_value(text: str) -> "tuple[str, str]":
    path, colon, value = text.partition(":")
    if not colon or not path:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def _device_weight(text: str) -> "dict[str, str | int]":
    path, value = _device_and_value(text)
    if not value.isdigit() or not (value == "0" or 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(value)}


def _device_bps(text: str) -> "dict[str, str | int]":
    path, value = _device_and_value(text)
    try:
        rate = parse_bytes(value)
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>[<unit>]. Number must be a positive integer. "
            "Unit is optional and can be kb, mb, or gb"
        ) from None
    return {"Path": path, "Rate": rate}


def _device_iops(text: str) -> "dict[str, str | int]":
    path, value = _device_and_value(text)
    if not value.isdigit():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(value)}


def _filter(text: str) -> "tuple[str, str]":
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def _unsigned16(text: str) -> int:
    return parse_integer(text, bits=16, signed=False)


BOOL = Kind("", _bool, default=False)
STRING = Kind("string", str, default="")
INT = Kind("int", parse_integer, default=0)
UINT16 = Kind("uint16", _unsigned16, default=0)
BYTES = Kind("bytes", parse_bytes, default=0)
SWAP = Kind("bytes", _swap, default=0)
DECIMAL = Kind("decimal", parse_nano_cpus, default=0)
DURATION = Kind("duration", parse_duration, default=0)
LIST = Kind("list", str, repeated=True)
STRINGS = Kind("strings", str, repeated=True)
MAP = Kind("map", str, repeated=True)
ATTACH = Kind("list", _attach, repeated=True)
ENV = Kind("list", _env, repeated=True)
LABEL = Kind("list", _label, repeated=True)
EXTRA_HOST = Kind("list", _extra_host, repeated=True)
ADDRESSES = Kind("list", _address, repeated=True)
SEARCH_DOMAIN = Kind("list", _search_domain, repeated=True)
SYSCTL = Kind("map", _sysctl, repeated=True)
ULIMIT = Kind("ulimit", _ulimit, repeated=True)
DEVICE_RULE = Kind("list", _device_rule, repeated=True)
DEVICE_WEIGHT = Kind("list", _device_weight, repeated=True)
DEVICE_BPS = Kind("list", _device_bps, repeated=True)
DEVICE_IOPS = Kind("list", _device_iops, repeated=True)
FILTER = Kind("filter", _filter, repeated=True)
