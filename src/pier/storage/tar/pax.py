r"""PAX extended headers: records `length key=value\n` that overrule the header after them.

pax(1), "pax Extended Header"; keys of GNU tar (GNU.sparse.*) and of Schily's star (SCHILY.xattr.*).
"""

import os
import re

from pier.storage.tar.errors import TarError
from pier.storage.tar.header import Entry, check_size

XATTR_PREFIX = b"SCHILY.xattr."

_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")

_SPARSE_PAIRS = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


class Records(dict[bytes, bytes]):
    """The records by key, the last one of a key winning; `pairs` keeps the repeated ones.

    `pairs` are the values of GNU.sparse.offset and .numbytes in order (sparse format 0.0).
    """

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[bytes] = []


def parse_records(data: bytes) -> Records:
    """Decode the body of an extended header. Raises TarError."""
    records = Records()
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 21)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise TarError("archive/tar: invalid tar header")
        end = at + int(digits)
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise TarError("archive/tar: invalid tar header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise TarError("archive/tar: invalid tar header")
        records[key] = value
        if key in _SPARSE_PAIRS:
            if (key == _SPARSE_PAIRS[0]) == bool(len(records.pairs) % 2):
                raise TarError("archive/tar: invalid tar header")
            records.pairs.append(value)
        at = end
    return records


def apply_records(entry: Entry, records: Records) -> None:
    """Overrule the fields of `entry`; an empty value leaves the header's. Raises TarError."""
    for key, value in records.items():
        if key.startswith(XATTR_PREFIX):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[os.fsdecode(key[len(XATTR_PREFIX) :])] = value
        elif value and key in _FIELDS:
            _FIELDS[key](entry, value)


def parse_integer(value: bytes) -> int:
    """Decode a decimal number. Raises TarError."""
    if not value.removeprefix(b"-").isdigit() or len(value) > 20:
        raise TarError("archive/tar: invalid tar header")
    return int(value)


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise TarError("archive/tar: invalid tar header")
    return value


def _nanoseconds(value: bytes) -> int:
    """Decode seconds with a fraction; digits beyond nanoseconds are cut towards the past."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise TarError("archive/tar: invalid tar header")
    sign, whole, fraction = found.groups(default=b"")
    total = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -total - bool(fraction[9:].strip(b"0")) if sign else total


def _set_path(entry: Entry, value: bytes) -> None:
    entry.name = _name(value)


def _set_linkpath(entry: Entry, value: bytes) -> None:
    entry.linkname = _name(value)


def _set_uid(entry: Entry, value: bytes) -> None:
    entry.uid = parse_integer(value)


def _set_gid(entry: Entry, value: bytes) -> None:
    entry.gid = parse_integer(value)


def _set_mtime(entry: Entry, value: bytes) -> None:
    entry.mtime_ns = _nanoseconds(value)


def _set_size(entry: Entry, value: bytes) -> None:
    entry.size = entry.stored = check_size(parse_integer(value))


_FIELDS = {
    b"path": _set_path,
    b"linkpath": _set_linkpath,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
    b"size": _set_size,
}
