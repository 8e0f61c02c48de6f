"""Layers compressed on their way out: valid gzip, and the same bytes however they were read."""

import asyncio
import errno
import gzip
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from pier.registry.upload import Squeezed
from pier.storage.blobs import Blobs
from pier.storage.compress import GZIP, MEMBER, compress
from pier.storage.root import DataRoot

DATA = hashlib.shake_256(b"pier").digest(2 * MEMBER + 12345)


def squeeze(blobs: Blobs, data: bytes, step: int) -> tuple[bytes, Squeezed]:
    def chunks() -> Iterator[bytes]:
        for at in range(0, len(data), step):
            yield data[at : at + step]

    async def run() -> tuple[bytes, Squeezed]:
        with ThreadPoolExecutor(2) as threads:
            one = Squeezed(chunks(), threads, blobs.ingest())
            return b"".join([piece async for piece in one.pieces()]), one

    return asyncio.run(run())


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    root = DataRoot(str(tmp_path))
    yield Blobs(root)
    root.close()


@pytest.mark.parametrize("data", [b"", b"x", DATA[:MEMBER], DATA])
def test_the_same_bytes_however_they_came(blobs: Blobs, data: bytes) -> None:
    whole, one = squeeze(blobs, data, 1 << 20)
    pieces, other = squeeze(blobs, data, 70_001)
    assert whole == pieces == b"".join(compress(iter([data] if data else []), GZIP))
    assert gzip.decompress(whole) == data
    assert one.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert (one.size, one.read) == (len(whole), len(data))
    other.writer.abort()
    assert blobs.read(one.writer.commit()) == whole


def test_a_disk_without_room_is_no_reason_not_to_send(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = MagicMock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patched:
        patched.setattr("pier.storage.blobs.os.write", full)
        whole, one = squeeze(blobs, DATA, 1 << 20)
    assert full.called
    assert gzip.decompress(whole) == DATA
    assert one.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert not one.writer.is_kept
    one.writer.abort()
