"""rpm's database in SQLite: `rpmdb.sqlite`, a header blob a package (rpm, docs/manual/format_header.md).

index count, data size            4 bytes each, big-endian
index entries                     tag, type, offset, count: 4 bytes each
data
"""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing

from pier.build.attest.packages.package import Package

_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_VENDOR, _LICENSE, _URL, _ARCHITECTURE, _SOURCE = 1011, 1014, 1020, 1022, 1044
_INT32, _STRING, _STRING_ARRAY, _I18N = 4, 6, 8, 9
_ENTRY = struct.Struct(">IIII")
_HEAD = struct.Struct(">II")
_MAX_ENTRIES = 1 << 16


def parse_database(data: bytes, found_in: str) -> Iterator[Package]:
    """Yield the packages of a database file. What cannot be read is none."""
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.deserialize(data)
            rows = database.execute("SELECT blob FROM Packages").fetchall()
        except sqlite3.Error:
            return
    for (blob,) in rows:
        if isinstance(blob, bytes) and (package := _package(blob, found_in)) is not None:
            yield package


def _package(blob: bytes, found_in: str) -> Package | None:
    fields = parse_header(blob)
    name, version = fields.get(_NAME, ""), fields.get(_VERSION, "")
    if not name or not version or name == "gpg-pubkey":
        return None
    release = fields.get(_RELEASE, "")
    return Package(
        kind="rpm",
        name=name,
        version=f"{version}-{release}" if release else version,
        found_in=found_in,
        architecture=fields.get(_ARCHITECTURE, ""),
        license=fields.get(_LICENSE, ""),
        supplier=fields.get(_VENDOR, ""),
        homepage=fields.get(_URL, ""),
        source=fields.get(_SOURCE, ""),
        epoch=fields.get(_EPOCH, ""),
    )


def parse_header(blob: bytes) -> dict[int, str]:
    """Return the tags of a header that are text or numbers, the first value of each."""
    if len(blob) < _HEAD.size:
        return {}
    count, _ = _HEAD.unpack_from(blob)
    start = _HEAD.size + count * _ENTRY.size
    found: dict[int, str] = {}
    if count > _MAX_ENTRIES or start > len(blob):
        return {}
    for number in range(count):
        tag, kind, offset, _ = _ENTRY.unpack_from(blob, _HEAD.size + number * _ENTRY.size)
        place = start + offset
        if place >= len(blob):
            continue
        if kind in (_STRING, _STRING_ARRAY, _I18N):
            end = blob.find(b"\0", place)
            found[tag] = blob[place : end if end >= 0 else None].decode("utf-8", "replace")
        elif kind == _INT32 and place + 4 <= len(blob):
            found[tag] = str(int.from_bytes(blob[place : place + 4], "big"))
    return found
