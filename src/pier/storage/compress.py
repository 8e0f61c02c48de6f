"""Layers made smaller: gzip (RFC 1952) and zstd (RFC 8878), the same bytes for the same input.

gzip is cut into members of MEMBER bytes, so that two processors work on one layer (as pushes do,
`registry/upload.py`); readers see one stream. isal has three levels, which are several times faster
than zlib's; from level 4 on it is zlib, for whoever wants it smaller.
"""

import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard
from isal import isal_zlib

from pier.errors import InvalidParameter

GZIP, ZSTD, PLAIN = "gzip", "zstd", "uncompressed"
KINDS = (PLAIN, GZIP, ZSTD)

MEMBER = 1 << 20
_WINDOW = 31  # zlib's way to say: gzip header and trailer, the largest window
_ISAL_LEVELS = {1: 1, 2: 2, 3: 3}
DEFAULT_GZIP = 2
DEFAULT_ZSTD = 3
# Also the number of parts that zstd cuts its input into: another number gives other bytes.
_ZSTD_THREADS = 2


def check_level(kind: str, level: int | None) -> None:
    """Raise InvalidParameter for a level that the kind of compression does not have."""
    highest = {GZIP: 9, ZSTD: 22}.get(kind, 0)
    if level is not None and kind != PLAIN and not 0 <= level <= highest:
        raise InvalidParameter(
            f"compression level {level} of {kind} is not between 0 and {highest}"
        )


def compress(chunks: Iterator[bytes], kind: str, level: int | None = None) -> Iterator[bytes]:
    """Yield the compressed stream of all chunks. Closing it ends its threads."""
    if kind == ZSTD:
        return _zstd(chunks, DEFAULT_ZSTD if level is None else level)
    if kind == GZIP:
        return _gzip(chunks, DEFAULT_GZIP if level is None else level)
    return chunks


def _gzip(chunks: Iterator[bytes], level: int) -> Iterator[bytes]:
    members = _cut(chunks)
    first = next(members, b"")
    if len(first) < MEMBER:
        yield member(first, level)
        return
    ahead = (os.cpu_count() or 1) + 1
    with ThreadPoolExecutor(ahead, thread_name_prefix="gzip") as pool:
        jobs: deque[Future[bytes]] = deque([pool.submit(member, first, level)])
        for data in members:
            jobs.append(pool.submit(member, data, level))
            if len(jobs) > ahead:
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()


def member(data: bytes, level: int = DEFAULT_GZIP) -> bytes:
    """Return one whole gzip member."""
    if level in _ISAL_LEVELS:
        fast = isal_zlib.compressobj(_ISAL_LEVELS[level], isal_zlib.DEFLATED, _WINDOW)
        return fast.compress(data) + fast.flush()
    slow = zlib.compressobj(level, zlib.DEFLATED, _WINDOW)
    return slow.compress(data) + slow.flush()


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces of exactly MEMBER bytes, the last one shorter."""
    parts: list[bytes] = []
    have = 0
    for chunk in chunks:
        parts.append(chunk)
        have += len(chunk)
        if have >= MEMBER:
            joined = b"".join(parts)
            whole = have - have % MEMBER
            for start in range(0, whole, MEMBER):
                yield joined[start : start + MEMBER]
            parts = [joined[whole:]]
            have -= whole
    if have:
        yield b"".join(parts)


def _zstd(chunks: Iterator[bytes], level: int) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=level, threads=_ZSTD_THREADS).compressobj()
    for chunk in chunks:
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()
