"""Turning what was received into the tar inside: sniffed by magic, decompressed in C, bounded.

gzip (RFC 1952, several members), zstd (RFC 8878, several and skippable frames), bzip2, xz, plain.
"""

import bz2
import itertools
import lzma
import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import igzip_lib

from pier.storage.tar.errors import TarError, TruncatedError

CHUNK = 1 << 20

# A zstd frame may ask for a window of up to 3.75 TiB of memory: this is the size that every decoder
# shall have (zstd --long=27), and what containerd's allows.
MAX_WINDOW = 1 << 27
MAX_XZ_MEMORY = 256 << 20

# A small archive may hold anything; beyond the first GiB, content that is denser than this is a
# bomb. (gzip cannot do more than 1032:1; zeros in zstd do 20000:1.)
FREE_BYTES = 1 << 30
MAX_RATIO = 1000

GZIP, ZSTD, BZIP2, XZ, PLAIN = "gzip", "zstd", "bzip2", "xz", ""

_MAGIC = (
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"BZh", BZIP2),
    (b"\xfd7zXZ\x00", XZ),
)


# Its type stub declares an instance.
_GZIP_ERROR = cast("type[Exception]", igzip_lib.IsalError)


class _Decoder(Protocol):
    """What igzip_lib, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def sniff(head: bytes) -> str:
    """Name the compression of what starts with these bytes (six are enough)."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    # A skippable frame (18 4D 2A 5x, little-endian) may stand first, as in zstd:chunked.
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return ZSTD
    return PLAIN


class Decompressed:
    """Iterate for the decompressed chunks of `source`, each of at most 1 MiB, none empty.

    `kind` is known, and the first bytes read, once it is made. `source.read(n)` may give fewer
    bytes; it is read to its end. Iteration raises TarError for a stream that is damaged or
    denser than MAX_RATIO, TruncatedError for one that ends early; zstd that ends early within a
    frame just ends: what is inside has to tell, as a tar does.
    """

    def __init__(self, source: BinaryIO) -> None:
        head = b""
        while len(head) < 6 and (more := source.read(CHUNK)):
            head += more
        self.kind = sniff(head)
        self._source = source
        self._head = head
        self._read = 0

    def __iter__(self) -> Iterator[bytes]:
        inputs = self._inputs()
        if self.kind == PLAIN:
            return inputs
        decoded = self._zstd(inputs) if self.kind == ZSTD else self._members(inputs)
        return self._bounded(decoded)

    def _inputs(self) -> Iterator[bytes]:
        chunk, self._head = self._head, b""
        while chunk:
            self._read += len(chunk)
            yield chunk
            chunk = self._source.read(CHUNK)

    def _bounded(self, decoded: Iterator[bytes]) -> Iterator[bytes]:
        produced = 0
        try:
            for chunk in decoded:
                produced += len(chunk)
                if produced > FREE_BYTES and produced > self._read * MAX_RATIO:
                    raise TarError(f"archive is compressed by more than {MAX_RATIO} to 1")
                yield chunk
        except (_GZIP_ERROR, lzma.LZMAError, zstandard.ZstdError, ValueError) as exc:
            raise TarError(f"invalid {self.kind} data: {exc}") from exc
        except OSError as exc:
            if self.kind == BZIP2 and exc.errno is None:
                raise TarError(f"invalid {self.kind} data: {exc}") from exc
            raise

    def _members(self, inputs: Iterator[bytes]) -> Iterator[bytes]:
        """Decode streams that stand one after another; zeros may pad the last one."""
        data = b""
        for first in itertools.count():
            while not (data := data.lstrip(b"\0") if first else data):
                data = next(inputs, b"")
                if not data:
                    return
            decoder = self._decoder()
            while not decoder.eof:
                if decoder.needs_input and not data:
                    data = next(inputs, b"")
                    if not data:
                        raise TruncatedError
                chunk = decoder.decompress(data, CHUNK)
                data = b""
                if chunk:
                    yield chunk
            data = decoder.unused_data

    def _decoder(self) -> _Decoder:
        if self.kind == GZIP:
            return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        if self.kind == BZIP2:
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)

    def _zstd(self, inputs: Iterator[bytes]) -> Iterator[bytes]:
        source = cast("BinaryIO", _Reader(inputs))
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        with decoder.stream_reader(source, read_size=CHUNK, read_across_frames=True) as reader:
            while chunk := reader.read(CHUNK):
                yield chunk


class _Reader:
    """The `read` that zstandard asks for, over chunks that are no larger than it asks for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, _size: int = -1) -> bytes:
        return next(self._chunks, b"")


def ahead(chunks: Iterator[bytes], *, depth: int = 4) -> Iterator[bytes]:
    """Run `chunks` in a thread of its own, up to `depth` chunks ahead of who iterates.

    Decompressing and hashing let go of the GIL, so they and the writing of files use two
    processors. Closing the generator, or its end, ends the thread.
    """
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def run() -> None:
        end: BaseException | None = None
        try:
            for chunk in chunks:
                ready.put(chunk)
                if stop.is_set():
                    break
        except BaseException as exc:  # noqa: BLE001  # carried over to the thread that iterates
            end = exc
        ready.put(end)

    thread = threading.Thread(target=run, name="decompress", daemon=True)
    thread.start()
    try:
        while isinstance(item := ready.get(), bytes):
            yield item
        if item is not None:
            raise item
    finally:
        stop.set()
        while thread.is_alive():
            # It may be waiting for room in the queue.
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue
        thread.join()
