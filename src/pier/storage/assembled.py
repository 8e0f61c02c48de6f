"""Layers' tars assembled of their recipe and their unpacked files, as a file that is read.

The files are nobody's to change, but they lie open to whoever is root: a file that is read whole is
compared with its checksum before its last bytes are given out. That is a CRC-32, as what Docker's
tar-split compares is a CRC-64: SHA-256 takes longer than reading, and whoever gets a blob compares its
digest. Who compresses it on the way, so that nobody could, does it himself (`compared`).
"""

import io
import os
import struct
import threading
from collections.abc import Iterator
from typing import cast

import msgspec
import zstandard

from pier.errors import Internal, NotFound
from pier.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pier.model.digest import Digest, finish, new_hash
from pier.storage.recipe import FRAME, HEAD, NAME, UNKNOWN, Piece, crc32, read_head

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
# Above all that a frame may become: its own bytes come a stream's chunk at a time.
_MAX_FRAME = 64 << 20


class AssembledTar(io.RawIOBase):
    """One tar, opened for reading; for one thread at a time.

    Reading raises Internal where the layer's files are not what they were. `seek` goes anywhere.
    """

    def __init__(self, directory: str, digest: Digest) -> None:
        """Open the tar of the layer in `directory`. Raises NotFound."""
        self._recipe_fd = self._root_fd = self._parent_fd = self._file_fd = -1
        head = read_head(directory)
        if head is None or head[1] != digest:
            raise NotFound(f"content {digest}: not found")
        self.size = head[0]
        self._digest = digest
        self._at = 0
        self._buffer = bytearray()
        self._unpacker = zstandard.ZstdDecompressor()
        self._decoder = msgspec.msgpack.Decoder(list[Piece])
        # Of the piece that is being read:
        self._own = memoryview(b"")
        self._left = 0  # bytes of its file
        self._crc = 0  # of those before
        self._wanted_crc = UNKNOWN
        self._path = b""
        self._parent = b""
        try:
            self._recipe_fd = os.open(os.path.join(directory, NAME), os.O_RDONLY | os.O_CLOEXEC)
            self._root_fd = os.open(os.path.join(directory, "diff"), _DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            self.close()
            if isinstance(exc, FileNotFoundError):  # the layer is going
                raise NotFound(f"content {digest}: not found") from exc
            raise
        self._pieces = self._read_pieces(0)

    def close(self) -> None:
        if not self.closed:
            for fd in (self._file_fd, self._parent_fd, self._root_fd, self._recipe_fd):
                if fd >= 0:
                    os.close(fd)
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        target = max(base + offset, 0)
        if target != self._at:
            self._go_on_with(self._read_pieces(min(target, self.size)))
            self._at = target
        return target

    def read(self, size: int = -1, /) -> bytes:
        """Return exactly `size` bytes, fewer only at the end."""
        left = max(self.size - self._at, 0)
        size = left if size < 0 else min(size, left)
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        with memoryview(self._buffer)[:size] as view:
            try:
                self._fill(view)
            except BaseException:
                self._go_on_with(iter(()))  # whoever tries again is told as well
                raise
            data = bytes(view)
        self._at += size
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _fill(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            if self._own:
                size = min(len(self._own), len(view) - done)
                view[done : done + size] = self._own[:size]
                self._own = self._own[size:]
            elif self._left:
                size = self._read_file(view[done : done + self._left])
            else:
                self._take(next(self._pieces, None))
                continue
            done += size

    def _take(self, piece: Piece | None) -> None:
        if piece is None:
            raise self._changed("its recipe is damaged")
        self._own, self._left = memoryview(piece.own), piece.length
        self._crc, self._wanted_crc = 0, piece.crc
        if piece.length:
            self._open_file(piece.path, piece.offset)

    def _read_file(self, view: memoryview) -> int:
        size = os.readv(self._file_fd, [view])
        if not size:
            raise self._changed(f"{os.fsdecode(self._path)} of its layer was cut short")
        self._left -= size
        self._crc = crc32(view[:size], self._crc)
        if not self._left:
            if self._wanted_crc not in (UNKNOWN, self._crc):
                raise self._changed(f"{os.fsdecode(self._path)} of its layer was changed")
            self._leave_file()
        return size

    def _open_file(self, path: bytes, offset: int) -> None:
        parent, _, name = path.rpartition(b"/")
        try:
            if parent != self._parent or self._parent_fd < 0:
                fd = openat2(self._root_fd, parent or b".", _DIRECTORY, resolve=_INSIDE)
                if self._parent_fd >= 0:
                    os.close(self._parent_fd)
                self._parent, self._parent_fd = parent, fd
            self._file_fd = os.open(name, _FILE, dir_fd=self._parent_fd)
            if offset:
                os.lseek(self._file_fd, offset, os.SEEK_SET)
        except OSError as exc:
            raise self._changed(
                f"{os.fsdecode(path)} of its layer: {(exc.strerror or str(exc)).lower()}"
            ) from exc
        self._path = path

    def _go_on_with(self, pieces: Iterator[Piece]) -> None:
        self._leave_file()
        self._own, self._left = memoryview(b""), 0
        self._pieces = pieces

    def _leave_file(self) -> None:
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1

    def _read_pieces(self, start: int) -> Iterator[Piece]:
        """Yield the pieces from an offset of the tar on."""
        at = HEAD.size
        while frame := os.pread(self._recipe_fd, FRAME.size, at):
            try:
                span, length = FRAME.unpack(frame)
                at += FRAME.size
                if span <= start:
                    start -= span
                else:
                    data = os.pread(self._recipe_fd, length, at)
                    data = self._unpacker.decompress(data, max_output_size=_MAX_FRAME)
                    for piece in self._decoder.decode(data):
                        size = len(piece.own) + piece.length
                        if not start:
                            yield piece
                            continue
                        if start < size:
                            yield _behind(piece, start)
                        start = max(start - size, 0)
                at += length
            except (ValueError, struct.error, zstandard.ZstdError, msgspec.MsgspecError) as exc:
                raise self._changed("its recipe is damaged") from exc

    def _changed(self, what: str) -> Internal:
        return Internal(f"content {self._digest} cannot be assembled: {what}")


def compared(chunks: Iterator[bytes], diff_id: str) -> Iterator[bytes]:
    """Yield a layer's tar; raise Internal in the place of its last chunk when it is another one."""
    hasher = new_hash()
    last = b""
    for chunk in chunks:
        hasher.update(chunk)
        if last:
            yield last
        last = chunk
    if finish("sha256", hasher) != diff_id:
        raise Internal(f"content {diff_id} is not what it was: it was changed on the disk")
    if last:
        yield last


def _behind(piece: Piece, skip: int) -> Piece:
    """Return a piece without its first bytes."""
    if skip <= len(piece.own):
        return Piece(piece.own[skip:], piece.path, piece.offset, piece.length, piece.crc)
    skip -= len(piece.own)
    return Piece(b"", piece.path, piece.offset + skip, piece.length - skip, UNKNOWN)


class Recipes:
    """Which tars can be assembled, and of which layers. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._directories: dict[str, dict[str, None]] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._directories

    def add(self, digest: Digest, directory: str) -> None:
        """Note that the layer in `directory` has the recipe of a tar."""
        with self._lock:
            self._directories.setdefault(digest, {})[directory] = None

    def has(self, digest: Digest, directory: str) -> bool:
        with self._lock:
            return directory in self._directories.get(digest, ())

    def forget(self, directory: str) -> None:
        """Note that a layer is going; that it has no recipe is fine."""
        with self._lock:
            for digest, directories in [*self._directories.items()]:
                directories.pop(directory, None)
                if not directories:
                    del self._directories[digest]

    def find(self, digest: Digest) -> str | None:
        """Return the directory of a layer that has the recipe of this tar."""
        with self._lock:
            return next(iter(self._directories.get(digest, ())), None)
