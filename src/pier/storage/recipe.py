"""A layer's tar without its files: layers/<chain-id>/recipe, from which it is assembled again.

An unpacked layer has the contents of its files; the tar's other bytes (headers, padding, what
follows its end) are kept here, and which file comes next. Together they are the tar, byte for byte
(`assembled.py`), and its blob need not be kept.

    head     magic, 16 bytes | size of the tar, u64 | its SHA-256, 32 bytes     big-endian
    frame*   how many bytes of the tar, u64 | how many follow here, u32 | these: zstd of a msgpack
             array of pieces [own bytes, path, offset, length, CRC-32]: after its own bytes the tar
             goes on with `length` bytes at `offset` of the file `path`

Frames make it possible to begin in the middle. Paths are those that the unpacking used: links in
them are followed beneath the layer's root. The layer may have several names for a file; what it
must not have is another content: where a later member of the same tar takes a file's place, the
recipe is given up, and the blob is kept whole.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import zstandard
from isal import isal_zlib
from msgspec import Struct

from pier.model.digest import Digest, hex_of

NAME = "recipe"
MAGIC = b"pier recipe 1\n\0\0"
HEAD = struct.Struct(">16sQ32s")
FRAME = struct.Struct(">QI")

# Own bytes in a frame. A file's header takes 512, and compresses to about 40.
_FRAME_BYTES = 256 << 10
_LEVEL = 3

UNKNOWN = -1

crc32 = isal_zlib.crc32  # four times as fast as zlib's


class Piece(Struct, array_like=True, frozen=True, gc=False):
    """`own` bytes of the tar, then `length` bytes of a file; 0 for none. `crc` is that of the latter."""

    own: bytes
    path: bytes = b""
    offset: int = 0
    length: int = 0
    crc: int = UNKNOWN


class RecipeWriter:
    """A recipe on its way: `own` and `file` in the tar's order, then `finish` or `abort`."""

    def __init__(self, directory: str) -> None:
        """Begin the recipe of the layer that is being made in `directory`."""
        self._path = os.path.join(directory, NAME)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._encoder = msgspec.msgpack.Encoder()
        self._own: list[bytes] = []
        self._own_bytes = 0
        self._pieces: list[Piece] = []
        self._frame_bytes = 0
        self._frame_size = 0  # of the tar
        self._size = 0
        self._write(bytes(HEAD.size))

    def own(self, data: bytes) -> None:
        """Add bytes that are in no file. Raises OSError."""
        self._own.append(data)
        self._own_bytes += len(data)
        if self._own_bytes >= _FRAME_BYTES:
            self.file(b"", 0, 0, UNKNOWN)

    def file(self, path: bytes, offset: int, length: int, crc: int) -> None:
        """Add bytes that a file of the layer has. Raises OSError."""
        self._pieces.append(Piece(b"".join(self._own), path, offset, length, crc))
        self._frame_bytes += self._own_bytes + len(path)
        self._frame_size += self._own_bytes + length
        self._own.clear()
        self._own_bytes = 0
        if self._frame_bytes >= _FRAME_BYTES:
            self._end_frame()

    def finish(self, digest: Digest) -> None:
        """Write what is left, and what the tar is. Raises OSError."""
        if self._own:
            self.file(b"", 0, 0, UNKNOWN)
        if self._pieces:
            self._end_frame()
        head = HEAD.pack(MAGIC, self._size, bytes.fromhex(hex_of(digest)))
        os.pwrite(self._fd, head, 0)
        self._close()

    def abort(self) -> None:
        """Remove what there is; after `finish`, or a second time, it does nothing."""
        if self._fd >= 0:
            self._close()
            os.unlink(self._path)

    def _end_frame(self) -> None:
        data = self._compressor.compress(self._encoder.encode(self._pieces))
        self._write(FRAME.pack(self._frame_size, len(data)) + data)
        self._size += self._frame_size
        self._pieces.clear()
        self._frame_bytes = self._frame_size = 0

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


class Cut:
    """Makes the recipe of a tar while it is unpacked: takes its files out of the stream.

    Whoever unpacks reads `chunks`, and says of a file's bytes which they are before taking them.
    A chunk is asked for only when the one before is used up: what no file was told of is the tar's
    own by then.
    """

    def __init__(self, recipe: RecipeWriter) -> None:
        self._recipe = recipe
        self._chunk = b""
        self._start = 0  # of the chunk, in the stream
        self._done = 0  # how far the recipe goes
        # The file whose bytes are passing:
        self._path = b""
        self._offset = self._length = 0
        self._left = 0
        self._crc = 0
        self.is_kept = True

    def chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._own_until(self._start + len(self._chunk))
            self._start += len(self._chunk)
            self._chunk = chunk
            if self._left:
                self._pass()
            yield chunk
        self._own_until(self._start + len(self._chunk))

    def file(self, start: int, path: bytes, offset: int, length: int) -> None:
        """The stream's next `length` bytes, `start` bytes from its beginning, go into a file."""
        if self.is_kept:
            self._own_until(start)
            self._path, self._offset, self._length = path, offset, length
            self._left, self._crc = length, 0
            self._pass()

    def give_up(self) -> None:
        """A file will not be there: no recipe can be made."""
        self.is_kept = False
        self._recipe.abort()

    def _pass(self) -> None:
        """Take what the chunk has of the file."""
        at = self._done - self._start
        view = memoryview(self._chunk)[at : at + self._left]
        self._crc = crc32(view, self._crc)
        self._done += len(view)
        self._left -= len(view)
        if not self._left:
            self._recipe.file(self._path, self._offset, self._length, self._crc)

    def _own_until(self, end: int) -> None:
        if self._done < end and self.is_kept:
            self._recipe.own(self._chunk[self._done - self._start : end - self._start])
            self._done = end


def read_head(directory: str) -> tuple[int, Digest] | None:
    """Return size and digest of the tar that a layer's recipe is for, None when it has none."""
    with (
        suppress(FileNotFoundError),
        open(os.path.join(directory, NAME), "rb", buffering=0) as file,
    ):
        data = file.read(HEAD.size)
        if len(data) == HEAD.size:
            magic, size, digest = HEAD.unpack(data)
            if magic == MAGIC:
                return size, Digest(f"sha256:{digest.hex()}")
    return None


def recipe_size(directory: str) -> int:
    """Return how large a layer's recipe is, in bytes. Raises FileNotFoundError."""
    return os.stat(os.path.join(directory, NAME)).st_size
