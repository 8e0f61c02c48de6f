"""Signals as users write them: "SIGTERM", "term", "15", "RTMIN+3"."""

import signal

from pier.errors import InvalidParameter

SIGRTMIN = 34  # what glibc calls SIGRTMIN; it keeps 32 and 33 to itself
SIGRTMAX = 64

_BY_NAME: dict[str, int] = {
    member.name.removeprefix("SIG"): int(member)
    for member in signal.Signals
    if not member.name.startswith("SIGRT")
} | {"CLD": int(signal.SIGCHLD), "IOT": int(signal.SIGABRT), "UNUSED": int(signal.SIGSYS)}


def parse_signal(text: str) -> int:
    """Return the signal's number.

    Accepts a number from 1 to 64, or a name in any case with or without "SIG", real-time ones as
    RTMIN, RTMIN+n, RTMAX, RTMAX-n. Raises InvalidParameter `invalid signal: X`, as dockerd.
    """
    if text.isascii() and text.isdigit():
        number = int(text)
        if 1 <= number <= SIGRTMAX:
            return number
        raise InvalidParameter(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    found = _BY_NAME.get(name) or _real_time(name)
    if not found:
        raise InvalidParameter(f"invalid signal: {text}")
    return found


def _real_time(name: str) -> int:
    """Number of a real-time signal's name, 0 when it is not one."""
    for prefix, base, sign, step in (("RTMIN", SIGRTMIN, "+", 1), ("RTMAX", SIGRTMAX, "-", -1)):
        rest = name.removeprefix(prefix)
        if rest == name:
            continue
        if rest == "":
            return base
        offset = rest[1:]
        if rest[0] == sign and offset.isascii() and offset.isdigit():
            number = base + step * int(offset)
            return number if SIGRTMIN <= number <= SIGRTMAX else 0
    return 0
