"""Members of a tar that are made, not read from files: fixed owner, mode and time."""

from collections.abc import Iterator

from pier.storage.tar import header
from pier.storage.tar.header import Entry
from pier.storage.tar.writer import encode, padding


def file_member(
    path: bytes, data: bytes, *, mode: int = 0o644, mtime_s: int = 0
) -> Iterator[bytes]:
    """Yield a whole file."""
    yield file_head(path, len(data), mode=mode, mtime_s=mtime_s)
    yield data
    yield padding(len(data))


def file_head(path: bytes, size: int, *, mode: int = 0o644, mtime_s: int = 0) -> bytes:
    """Return what stands before a file's content, behind which `padding(size)` follows."""
    entry = Entry()
    entry.name, entry.mode, entry.mtime_ns = path, mode, mtime_s * 1_000_000_000
    entry.size = entry.stored = size
    return encode(entry)


def directory_member(path: bytes, *, mode: int = 0o755, mtime_s: int = 0) -> bytes:
    """Return a directory, whose name ends with a slash."""
    entry = Entry()
    entry.name, entry.type, entry.mode = path, header.DIRECTORY, mode
    entry.mtime_ns = mtime_s * 1_000_000_000
    return encode(entry)
