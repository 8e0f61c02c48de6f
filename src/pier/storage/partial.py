"""Blobs on their way in from a registry, kept when the way breaks off: partial/<algorithm>-<hex>.

A download's life: opened by the digest that it shall have → what is there of an earlier attempt is
hashed → appended to, while readers follow and unpack → verified → renamed to its digest. What was
neither committed nor thrown away stays for the next attempt, also over a restart, for a week:
nothing reads it before it is whole and its digest was compared.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Self, cast

from pier.errors import InvalidParameter
from pier.model.digest import Digest, algorithm_of, finish, hex_of, new_hash
from pier.storage.blobs import Blobs
from pier.storage.root import DataRoot
from pier.storage.sync import fsync_directory

KEEP_S = 7 * 24 * 3600
CHUNK = 1 << 20


class Partials:
    """The directory of unfinished downloads."""

    def __init__(self, root: DataRoot, blobs: Blobs) -> None:
        self._root = root
        self._blobs = blobs
        os.makedirs(root.join("partial"), mode=0o700, exist_ok=True)
        self._forget_old()

    def open(self, digest: Digest, size: int) -> "PartialBlob":
        """Start or go on with a download; one at a time for a digest. Call `resume` first."""
        return PartialBlob(self._path(digest), self._blobs, digest, size)

    def forget(self, digest: Digest) -> None:
        """Remove what an earlier attempt left; nobody is downloading it."""
        self._root.discard(self._path(digest))

    def _path(self, digest: Digest) -> str:
        return self._root.join("partial", f"{algorithm_of(digest)}-{hex_of(digest)}")

    def _forget_old(self) -> None:
        now = time.time()
        for name in os.listdir(self._root.join("partial")):
            path = self._root.join("partial", name)
            if now - os.stat(path).st_mtime > KEEP_S:
                self._root.discard(path)


class PartialBlob:
    """One download: one thread writes at a time, any number follow (`reader`).

    `size` is what it will have, `written` what it has. It ends by `verify` or `fail`, and either
    wakes the readers: they see its end only when its digest was right.
    """

    def __init__(self, path: str, blobs: Blobs, digest: Digest, size: int) -> None:
        self.path = path
        self.digest = digest
        self.size = size
        self.written = 0
        self._blobs = blobs
        self._hash = new_hash(algorithm_of(digest))
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._changed = threading.Condition()
        self._verified = False
        self._committed = False
        self._failure: Exception | None = None
        # Hears how far a reader came.
        self.told: Callable[[int], None] | None = None

    @property
    def is_verified(self) -> bool:
        return self._verified

    def resume(self) -> int:
        """Hash what an earlier attempt left and return how much that is. Blocks."""
        have = os.fstat(self._fd).st_size
        if have > self.size:
            self.restart()
            return 0
        while self.written < have:
            data = os.pread(self._fd, CHUNK, self.written)
            if not data:
                break
            self._hash.update(data)
            self._advance(len(data))
        return self.written

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises OSError (ENOSPC), InvalidParameter for more than `size`."""
        if self.written + len(data) > self.size:
            raise InvalidParameter(f"content is larger than its descriptor says: {self.size} bytes")
        self._hash.update(data)
        view = memoryview(data)
        at = self.written
        while view:
            done = os.pwrite(self._fd, view, at)
            at += done
            view = view[done:]
        self._advance(len(data))

    def restart(self) -> None:
        """Forget what was written. Not while anybody follows: they have read it."""
        os.ftruncate(self._fd, 0)
        self._hash = new_hash(algorithm_of(self.digest))
        self.written = 0

    def matches(self) -> bool:
        """Tell whether what was written has the digest that it shall have."""
        return finish(algorithm_of(self.digest), self._hash) == self.digest

    def verified(self) -> None:
        """Let the readers come to the end: to be called when `matches` said yes."""
        with self._changed:
            self._verified = True
            self._changed.notify_all()

    def fail(self, failure: Exception) -> None:
        """Let the readers, now and later, fail with this."""
        with self._changed:
            if not self._verified:
                self._failure = failure
            self._changed.notify_all()

    def reader(self) -> BinaryIO:
        """Follow the download from its start."""
        return cast("BinaryIO", _Follower(self))

    def head(self, size: int) -> bytes:
        """Return the first `size` bytes."""
        return os.pread(self._fd, size, 0)

    def read_at(self, size: int, offset: int) -> bytes:
        """Wait until there is something behind `offset`; b"" is the verified end. Blocks."""
        with self._changed:
            while self.written <= offset and not self._verified:
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()
        return os.pread(self._fd, size, offset)

    def commit(self, *, durable: bool = True) -> Digest:
        """Give the verified blob its name, as `BlobWriter.commit`."""
        assert self._verified
        target = self._blobs.path(self.digest)
        os.makedirs(os.path.dirname(target), mode=0o711, exist_ok=True)
        if durable:
            os.fsync(self._fd)
        os.rename(self.path, target)
        self.path = target
        self._committed = True
        if durable:
            fsync_directory(os.path.dirname(target))
        return self.digest

    def spare(self) -> None:
        """It is not needed under its name, nor for a next attempt."""
        self.throw_away()

    def throw_away(self) -> None:
        """Remove what was written, so that the next attempt begins anew."""
        if not self._committed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def abort(self) -> None:
        """Be done with it. What was not committed stays for the next attempt, unless it is empty."""
        if self._fd < 0:
            return
        if not self.written:
            self.throw_away()
        os.close(self._fd)
        self._fd = -1

    def _advance(self, count: int) -> None:
        with self._changed:
            self.written += count
            self._changed.notify_all()


class _Follower:
    """The `read` of a file that somebody else is still writing."""

    def __init__(self, blob: PartialBlob) -> None:
        self._blob = blob
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """There is nothing to close: the descriptor is the download's."""

    def read(self, size: int = CHUNK) -> bytes:
        data = self._blob.read_at(CHUNK if size < 0 else size, self._at)
        self._at += len(data)
        if data and self._blob.told is not None:
            self._blob.told(self._at)
        return data
