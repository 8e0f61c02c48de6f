"""Content-addressed blobs: blobs/<algorithm>/<hex>, complete and verified, or absent.

A blob's life: written and hashed in ingest/ → fsync → renamed to its digest → directory fsync. The
fsync is there for a power cut: a rename may reach the disk before the data does, and a digest name
must never stand for something else. It is left out for what a start after a power cut looks at
anyway, before anybody else does: blobs of layers that are unpacked as well (`layers.py`), and the
documents of images (`ImageStore`). An fsync each would make ext4 write all that was unpacked until
then, again and again.

A layer's plain tar has no file of its own as a rule: it is assembled of the unpacked layer
(`recipe.py`) by whoever reads it, and is there as long as the layer is.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Self, cast

from pier.errors import InvalidParameter, NotFound
from pier.model.digest import (
    HEX_LENGTH,
    Digest,
    algorithm_of,
    digest_of,
    finish,
    hex_of,
    new_hash,
)
from pier.storage.assembled import AssembledTar, Recipes
from pier.storage.recipe import read_head, recipe_size
from pier.storage.root import DataRoot
from pier.storage.sync import fsync_directory


class Blobs:
    """All methods may be called by any thread."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self.recipes = Recipes()
        os.makedirs(root.join("blobs", "sha256"), mode=0o711, exist_ok=True)

    def path(self, digest: Digest) -> str:
        """Return where its file is; what is assembled has none."""
        return self._root.join("blobs", algorithm_of(digest), hex_of(digest))

    def exists(self, digest: Digest) -> bool:
        return digest in self.recipes or self.has_file(digest)

    def has_file(self, digest: Digest) -> bool:
        """Tell whether it has a file of its own."""
        return os.path.exists(self.path(digest))

    def size(self, digest: Digest) -> int:
        """Return its size in bytes. Raises NotFound."""
        with suppress(FileNotFoundError):
            return os.stat(self.path(digest)).st_size
        directory = self.recipes.find(digest)
        head = read_head(directory) if directory else None
        if head is None:
            raise NotFound(f"content {digest}: not found")
        return head[0]

    def disk_size(self, digest: Digest) -> int:
        """Return what it takes of the disk, beside a layer that is unpacked. Raises NotFound."""
        with suppress(FileNotFoundError):
            return os.stat(self.path(digest)).st_size
        directory = self.recipes.find(digest)
        with suppress(FileNotFoundError):
            if directory:
                return recipe_size(directory)
        raise NotFound(f"content {digest}: not found")

    def open(self, digest: Digest) -> BinaryIO:
        """Open it for reading, unbuffered; it can be sought in. Raises NotFound.

        Reading raises Internal for what is assembled, and comes out as something else.
        """
        with suppress(FileNotFoundError):
            return open(self.path(digest), "rb", buffering=0)
        directory = self.recipes.find(digest)
        if directory is None:
            raise NotFound(f"content {digest}: not found")
        return cast("BinaryIO", AssembledTar(directory, digest))

    def read(self, digest: Digest) -> bytes:
        """Return the whole of a small blob (a config, a manifest). Raises NotFound."""
        with self.open(digest) as file:
            return file.read()

    def ingest(self, algorithm: str = "sha256") -> "BlobWriter":
        """Start a new blob. Use it in a `with`: what was not committed is removed at its end."""
        return BlobWriter(self._root, self, algorithm)

    def put(self, data: bytes) -> Digest:
        """Store a small blob and return its digest."""
        digest = digest_of(data)
        if not self.exists(digest):
            with self.ingest() as writer:
                writer.write(data)
                writer.commit()
        return digest

    def delete(self, digest: Digest) -> None:
        """Delete its file; absent is fine."""
        self._root.discard(self.path(digest))

    def all(self) -> Iterator[Digest]:
        """Yield those that have files."""
        for algorithm in HEX_LENGTH:
            try:
                names = os.listdir(self._root.join("blobs", algorithm))
            except FileNotFoundError:
                continue
            yield from (Digest(f"{algorithm}:{name}") for name in names)


class BlobWriter:
    """A blob on its way in: owned by one thread at a time."""

    def __init__(self, root: DataRoot, blobs: Blobs, algorithm: str) -> None:
        self._blobs = blobs
        self._algorithm = algorithm
        self._hash = new_hash(algorithm)
        self._digest: Digest | None = None
        self._committed = False
        self.is_kept = True
        self.size = 0
        self.path = root.staging("ingest")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises OSError, ENOSPC when the disk is full."""
        self._hash.update(data)
        if not self.is_kept:
            return
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        # Not sooner: who reads behind us takes it for what is there.
        self.size += len(data)

    def only_hash(self) -> None:
        """Give the disk back what was written; from now on, write only hashes."""
        self.is_kept = False
        os.ftruncate(self._fd, 0)

    @property
    def digest(self) -> Digest:
        """The digest of what was written; writing is over once it was asked for."""
        if self._digest is None:
            self._digest = finish(self._algorithm, self._hash)
        return self._digest

    def reader(self) -> BinaryIO:
        """Open what was written for reading from its start; the caller closes it."""
        return open(self.path, "rb", buffering=0)

    def head(self, size: int) -> bytes:
        """Return the first `size` bytes of what was written."""
        return os.pread(self._fd, size, 0)

    def commit(self, expected: Digest | None = None, *, durable: bool = True) -> Digest:
        """Give the blob its name and return it; it may still be read from here.

        Without `durable` it is on the disk when the file system comes to it.
        Raises InvalidParameter when the content is not what `expected` says; then, as after
        OSError, `abort` removes what was written.
        """
        assert self.is_kept
        digest = self.digest
        if expected is not None and expected != digest:
            raise InvalidParameter(
                f"content does not match its digest: expected {expected}, got {digest}"
            )
        target = self._blobs.path(digest)
        os.makedirs(os.path.dirname(target), mode=0o711, exist_ok=True)
        if durable:
            os.fsync(self._fd)
        os.rename(self.path, target)
        self.path = target
        self._committed = True
        if durable:
            fsync_directory(os.path.dirname(target))
        return digest

    def spare(self) -> None:
        """It is not needed under its name: `abort` removes it."""

    def abort(self) -> None:
        """Be done with it: what was not committed is removed. A second call does nothing."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        if not self._committed:
            os.unlink(self.path)
