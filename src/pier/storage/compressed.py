"""Layers in the forms that exports gave them: which blob is a layer compressed so.

    compressed_layers: diff ID, kind, level → digest of the blob

A row outlives its blob, which belongs to images: whoever finds a row asks whether the blob is there.
"""

from pier.model.digest import Digest
from pier.storage.assembled import compared
from pier.storage.blobs import Blobs
from pier.storage.compress import compress
from pier.storage.database import Database
from pier.storage.decompress import Decompressed

DEFAULT_LEVEL = -1


class CompressedLayers:
    """Any thread may call any method."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    def find(self, diff_id: str, kind: str, level: int | None) -> Digest | None:
        """Return the blob that a layer became so; it may have gone."""
        rows = self._database.rows(
            "SELECT digest FROM compressed_layers WHERE diff_id = ? AND kind = ? AND level = ?",
            (diff_id, kind, DEFAULT_LEVEL if level is None else level),
        )
        return Digest(str(rows[0][0])) if rows else None

    def make(self, diff_id: str, blob: Digest, kind: str, level: int | None) -> Digest:
        """Write a layer that is kept as `blob`, of any compression, in another one.

        The new blob is nobody's yet: ask for it to be pinned at once. Raises NotFound, OSError,
        Internal for a layer that was changed on the disk.
        """
        with self._blobs.open(blob) as source, self._blobs.ingest() as writer:
            for piece in compress(compared(iter(Decompressed(source)), diff_id), kind, level):
                writer.write(piece)
            digest = writer.digest
            if not self._blobs.exists(digest):
                writer.commit()
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO compressed_layers VALUES (?, ?, ?, ?)",
                (diff_id, kind, DEFAULT_LEVEL if level is None else level, digest),
            )
        return digest
