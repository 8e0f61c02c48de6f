import bz2
import gzip
import io
import lzma
import os
import threading

import pytest
import zstandard

from pier.storage import decompress
from pier.storage.decompress import Decompressed, ahead
from pier.storage.tar.errors import TarError

DATA = os.urandom(1 << 20) + bytes(3 << 20)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"

COMPRESSORS = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


class Trickle(io.RawIOBase):
    """A source that gives few bytes at a time, as a socket may."""

    def __init__(self, data, size):
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size=-1):
        return self._file.read(self._size)


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("size", [3, 5000, 1 << 20])
def test_every_kind(kind, size):
    data = DATA if size > 3 else DATA[:2000]
    stream = Decompressed(Trickle(COMPRESSORS[kind](data), size))
    assert stream.kind == kind
    assert b"".join(stream) == data


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSORS if kind])
def test_several_members(kind):
    compress = COMPRESSORS[kind]
    data = compress(b"one") + compress(b"") + compress(b"two")
    assert b"".join(Decompressed(io.BytesIO(data))) == b"onetwo"


def test_padding_and_skippable_frames():
    assert b"".join(Decompressed(io.BytesIO(gzip.compress(b"one") + bytes(1000)))) == b"one"
    for data in (SKIPPABLE + zstandard.compress(b"one"), zstandard.compress(b"one") + SKIPPABLE):
        stream = Decompressed(io.BytesIO(data))
        assert stream.kind == "zstd"
        assert b"".join(stream) == b"one"


def test_nothing():
    assert list(Decompressed(io.BytesIO())) == []


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSORS if kind])
def test_damage(kind):
    whole = COMPRESSORS[kind](DATA)
    broken = [whole[:1000] + b"\x99" * 100 + whole[1100:], whole + b"garbage!"]
    if kind != "zstd":
        # The library does not tell of a frame that was cut; the tar inside does.
        broken.append(whole[:-20])
    for data in broken:
        with pytest.raises(TarError):
            b"".join(Decompressed(io.BytesIO(data)))


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(decompress, "FREE_BYTES", 1 << 20)
    bomb = zstandard.compress(bytes(200 << 20))
    with pytest.raises(TarError, match="compressed by more than 1000 to 1"):
        for _ in Decompressed(io.BytesIO(bomb)):
            pass


def test_ahead_passes_chunks_and_errors_on():
    def failing():
        yield b"one"
        raise TarError("two")

    assert list(ahead(iter([b"1", b"2", b"3"]), depth=1)) == [b"1", b"2", b"3"]
    chunks = ahead(failing())
    assert next(chunks) == b"one"
    with pytest.raises(TarError, match="two"):
        next(chunks)


def test_ahead_ends_its_thread():
    before = threading.active_count()
    chunks = ahead(iter([b"x"] * 1000), depth=1)
    next(chunks)
    chunks.close()
    assert threading.active_count() == before
