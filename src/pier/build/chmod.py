"""COPY and ADD --chmod: octal, or symbolic as in chmod(1) (`u=rwX,go=rX`)."""

import re
from collections.abc import Callable

from pier.errors import InvalidParameter

Chmod = Callable[[int, bool], int]
"""From a file's permission bits, and whether it is a directory, to what they shall be."""

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)\Z")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo])(?=[-+=]|\Z)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_MAX = 0o7777


def parse_chmod(text: str) -> Chmod | None:
    """Return None for "". Raises InvalidParameter."""
    if not text:
        return None
    if text[0].isdigit():
        mode = _octal(text)
        return lambda _mode, _is_directory: mode
    clauses = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise _wrong(text)
        clauses.append((match[1].replace("a", "ugo") or "ugo", _ACTION.findall(match[2])))

    def change(mode: int, is_directory: bool) -> int:
        for who, actions in clauses:
            for sign, what in actions:
                mode = _changed(mode, who, sign, _bits(mode, who, what, is_directory))
        return mode

    return change


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        raise _wrong(text) from None
    if not 0 <= mode <= _MAX:
        raise _wrong(text)
    return mode


def _wrong(text: str) -> InvalidParameter:
    return InvalidParameter(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
    )


def _bits(mode: int, who: str, what: str, is_directory: bool) -> int:
    found = 0
    for name in set(who):
        shift = _SHIFTS[name]
        if what and what in _SHIFTS:
            found |= ((mode >> _SHIFTS[what]) & 7) << shift
            continue
        for letter in what:
            if letter in "rw":
                found |= {"r": 4, "w": 2}[letter] << shift
            elif letter == "x" or (letter == "X" and (is_directory or mode & 0o111)):
                found |= 1 << shift
            elif letter == "s" and name != "o":
                found |= {"u": 0o4000, "g": 0o2000}[name]
    # As with chmod(1), the sticky bit is the others': `g+t` is nothing.
    return found | (0o1000 if "t" in what and "o" in who else 0)


def _changed(mode: int, who: str, sign: str, bits: int) -> int:
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    cleared = 0
    for name in set(who):
        cleared |= 7 << _SHIFTS[name] | {"u": 0o4000, "g": 0o2000, "o": 0o1000}[name]
    return mode & ~cleared | bits
