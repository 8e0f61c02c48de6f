"""A registry's directory: bytes by digest, and the catalog of who has them.

    <store>/
        version            "1" and a newline
        lock               flock'ed for as long as a server or a collection runs on it
        registry.db        catalog.py
        blobs/<algorithm>/<hex>   blobs and manifests, complete and verified, or absent
        uploads/<id>       uploads.py

A blob's life: uploads/ → fsync → renamed to its digest → directory fsync → linked to a repository.
SIGKILL between two of these leaves at worst a file that nobody names, which collect.py removes.
"""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from pier.errors import Internal, NotFound
from pier.model.digest import HEX_LENGTH, Digest, algorithm_of, hex_of
from pier.registry.server.catalog import Catalog
from pier.registry.server.documents import Document
from pier.registry.server.uploads import Upload, Uploads
from pier.storage.directory import check_version, take_lock
from pier.storage.sync import fsync_directory, link_durably

VERSION = "1"
_PIECE = 1 << 20


class Store:
    """An opened directory, made when it is missing.

    Raises Unavailable when another process has it open, Internal when a newer one wrote it.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._lock_fd = take_lock(
            self.path, f"registry store {self.path} is in use by another process"
        )
        try:
            check_version(self.path, VERSION, what="registry store", program="program")
            for algorithm in HEX_LENGTH:
                os.makedirs(self._join("blobs", algorithm), mode=0o700, exist_ok=True)
            self.uploads = Uploads(self._join("uploads"))
            self.catalog = Catalog(self._join("registry.db"))
        except BaseException:
            os.close(self._lock_fd)
            raise
        # Digests that somebody is about to link: their files are not to be collected.
        self._pins: Counter[Digest] = Counter()
        self._pins_lock = threading.Lock()

    def close(self) -> None:
        self.catalog.close()
        os.close(self._lock_fd)

    def blob_path(self, digest: Digest) -> str:
        return self._join("blobs", algorithm_of(digest), hex_of(digest))

    def has_bytes(self, digest: Digest) -> bool:
        return os.path.exists(self.blob_path(digest))

    def read(self, digest: Digest) -> bytes:
        """Return a small blob's or a manifest's bytes. Raises FileNotFoundError."""
        with open(self.blob_path(digest), "rb", buffering=0) as file:
            return file.read()

    @contextmanager
    def reading(self, digest: Digest) -> Iterator[tuple[BinaryIO, int]]:
        """Open a blob for the time of a block; with its size in bytes. Raises NotFound."""
        try:
            file = open(self.blob_path(digest), "rb", buffering=0)  # noqa: SIM115 - closed below
        except FileNotFoundError as exc:
            raise NotFound(f"content {digest}: not found") from exc
        with file:
            yield file, os.fstat(file.fileno()).st_size

    def finish(self, upload: Upload, repository: str, digest: Digest) -> None:
        """Give a verified upload its name and link it. Blocks; for any thread."""
        with self._pinned(digest):
            if self.has_bytes(digest):
                upload.drop()
            else:
                upload.sync()
                self._place(upload.path, digest)
            self.catalog.link(repository, digest)

    def mount(self, repository: str, digest: Digest) -> bool:
        """Link a blob that another repository has; False when its bytes are gone. Blocks."""
        with self._pinned(digest):
            if not self.has_bytes(digest):
                return False
            self.catalog.link(repository, digest)
            return True

    def take_in(self, path: str, repository: str, digest: Digest) -> None:
        """Link a file of this digest, which others may have as well. Raises FileNotFoundError."""
        with self._pinned(digest):
            if not self.has_bytes(digest):
                link_durably(path, self.blob_path(digest))
            self.catalog.link(repository, digest)

    def copy_in(self, source: BinaryIO, repository: str, digest: Digest) -> None:
        """Write a blob that is read from `source`, and link it. Raises Internal, OSError."""
        upload = self.uploads.begin(repository, algorithm_of(digest))
        try:
            while piece := source.read(_PIECE):
                upload.append([piece])
            if upload.digest(algorithm_of(digest)) != digest:
                raise Internal(f"content {digest} is not what it was")
            self.finish(upload, repository, digest)
        finally:
            upload.drop()
            self.uploads.forget(upload)

    def put_manifest(
        self, repository: str, digest: Digest, data: bytes, document: Document, tags: Sequence[str]
    ) -> None:
        """Store a manifest of this digest, and name it. Blocks; for any thread."""
        with self._pinned(digest):
            if not self.has_bytes(digest):
                path = self._join("uploads", "manifest" + secrets.token_hex(16))
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    with os.fdopen(fd, "wb", buffering=0) as file:
                        file.write(data)
                        os.fsync(file.fileno())
                except BaseException:
                    os.unlink(path)
                    raise
                self._place(path, digest)
            self.catalog.put_manifest(repository, digest, document, tags)

    def drop_bytes(self, digest: Digest) -> int:
        """Remove a file that nobody needs; return its size in bytes, 0 when it is needed."""
        with self._pins_lock:
            if self._pins[digest] or self.catalog.is_needed(digest):
                return 0
            path = self.blob_path(digest)
            try:
                size = os.stat(path).st_size
                os.unlink(path)
            except FileNotFoundError:  # somebody else removed it just now
                return 0
            return size

    def all_digests(self) -> Iterator[Digest]:
        for algorithm in HEX_LENGTH:
            for name in os.listdir(self._join("blobs", algorithm)):
                yield Digest(f"{algorithm}:{name}")

    @contextmanager
    def _pinned(self, digest: Digest) -> Iterator[None]:
        with self._pins_lock:
            self._pins[digest] += 1
        try:
            yield
        finally:
            with self._pins_lock:
                self._pins[digest] -= 1
                if not self._pins[digest]:
                    del self._pins[digest]

    def _place(self, path: str, digest: Digest) -> None:
        target = self.blob_path(digest)
        os.rename(path, target)
        fsync_directory(os.path.dirname(target))

    def _join(self, *names: str) -> str:
        return os.path.join(self.path, *names)
