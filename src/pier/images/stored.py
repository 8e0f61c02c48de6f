"""A layer whose blob is in the store already, for an intake that makes another image of it."""

from typing import BinaryIO

from pier.model.digest import Digest
from pier.storage.blobs import Blobs


class StoredBlob:
    """`images.intake.Received`."""

    def __init__(self, blobs: Blobs, digest: Digest) -> None:
        self._blobs = blobs
        self.digest = digest
        self.size = blobs.size(digest)

    def reader(self) -> BinaryIO:
        return self._blobs.open(self.digest)

    def head(self, size: int) -> bytes:
        with self.reader() as file:
            return file.read(size)

    def commit(self, *, durable: bool = True) -> Digest:
        return self.digest

    def spare(self) -> None:
        """It is the store's."""

    def abort(self) -> None:
        """It is the store's."""
