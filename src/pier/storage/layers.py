"""Layers: unpacked, ready to be an overlay lowerdir, named by chain ID.

    layers/<chain-id-hex>/diff      the layer's own files, deletions as overlay whiteouts
    layers/<chain-id-hex>/recipe    of one that came as a plain tar: the rest of it (recipe.py)

Such a tar is assembled again by whoever reads it, and has no blob of its own, but where no recipe
could be made. A layer that came compressed has its blob beside it.

A layer's life: unpacked in staging/ (any number in parallel: order matters for names only) → its
diff ID compared with the image's config → renamed to its chain ID → row in the database, in the
transaction that adds the image. A layer without a row is removed at start.

Durability. A layer is up to 100,000 files, and nobody waits for its bytes, nor for its blob's: the
row says in which boot it was unpacked, and the housekeeper makes one syncfs(2) and clears that. A
row of another boot at start means that the machine went down before: the layer is unpacked anew from
its blob, or from itself by its recipe, and changes places with what was there. It is lost when that
does not give the same diff ID, with the image that was told to be there a few seconds before the
machine went down. SIGKILL alone tears nothing: the rename comes last
and the page cache survives us.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from pier.errors import InvalidParameter, NotFound, PierError
from pier.kernel.rename import exchange
from pier.model.digest import Digest, finish, hex_of, new_hash
from pier.storage.apply import apply_layer
from pier.storage.blobs import Blobs
from pier.storage.database import Database
from pier.storage.decompress import PLAIN, Decompressed, ahead
from pier.storage.recipe import NAME, Cut, RecipeWriter, read_head
from pier.storage.root import DataRoot
from pier.storage.sync import boot_id, syncfs
from pier.storage.tar.reader import TarReader

MAX_ENTRIES = 10_000_000

# Below this a thread for decompression costs more than it gains.
THREAD_FROM = 256 << 10


class Layer(Struct, frozen=True):
    """One row. `blob` is the layer as it was received, of `media_type`; `size` is unpacked bytes.

    A plain tar may be assembled of the layer itself.
    """

    chain_id: Digest
    diff_id: Digest
    blob: Digest
    media_type: str
    size: int


class Staged(Struct, frozen=True):
    """A layer that was unpacked and has no name yet: `path` is its directory in staging/.

    With `has_recipe` its tar is in it as well.
    """

    path: str
    diff_id: Digest
    size: int
    compression: str
    has_recipe: bool = False


class Layers:
    """All methods may be called by any thread; rows are read once and kept in memory."""

    def __init__(self, root: DataRoot, database: Database, blobs: Blobs) -> None:
        self._root = root
        self._database = database
        self._blobs = blobs
        self._boot = boot_id()
        self._rows: dict[str, Layer] = {}

    def open(self) -> list[Layer]:
        """Read the rows and set right what a crash left; return the layers that are lost.

        To be called once, before anything else. Lost is a layer whose bytes are gone and whose
        blob cannot give them back: whoever knows its image says what becomes of it.
        """
        lost: list[Layer] = []
        known: set[str] = set()
        columns = "chain_id, diff_id, blob, media_type, size, unsynced"
        for *fields, unsynced in self._database.rows(f"SELECT {columns} FROM layers"):  # noqa: S608
            layer = Layer(*fields)  # type: ignore[arg-type]
            torn = unsynced not in ("", self._boot)
            if (torn or not os.path.isdir(self._directory(layer.chain_id))) and not self._redo(
                layer
            ):
                lost.append(layer)
                continue
            known.add(hex_of(layer.chain_id))
            self._rows[layer.chain_id] = layer
            self._find_recipe(layer.chain_id)
        with self._database.transaction() as db:
            self._delete_rows(db, lost)
        for name in os.listdir(self._root.join("layers")):
            if name not in known:
                self._root.discard(self._root.join("layers", name))
        if self._rows:
            self._root.later(self._sync)
        return lost

    def get(self, chain_id: str) -> Layer | None:
        return self._rows.get(chain_id)

    def gives_tar(self, layer: Layer) -> bool:
        """Tell whether its tar, which its diff ID names, is assembled of it."""
        return self._blobs.recipes.has(layer.diff_id, self._directory(layer.chain_id))

    def has_blob(self, blob: str) -> bool:
        """Tell whether some layer was unpacked from this blob, or from this tar compressed."""
        return any(blob in (layer.blob, layer.diff_id) for layer in self.all())

    def path(self, chain_id: str) -> str:
        """Return the layer's directory, relative to the data root. Raises NotFound."""
        if chain_id not in self._rows:
            raise NotFound(f"layer {chain_id} does not exist")
        return f"layers/{hex_of(Digest(chain_id))}/diff"

    def all(self) -> list[Layer]:
        return list(self._rows.values())

    def unpack(
        self,
        source: BinaryIO,
        *,
        digest: Digest | Callable[[], Digest] | None = None,
        size: int = -1,
    ) -> Staged:
        """Unpack a layer as it was received, of any compression, into staging/.

        `digest` is that of the received bytes, when it was checked already (or is known at their
        end): an uncompressed layer is then not hashed again. `size`, when known, spares small ones a thread. Closes nothing.
        Raises TarError, OSError; then nothing is left behind.
        """
        stream = Decompressed(source)
        if isinstance(digest, str) and not digest.startswith("sha256:"):
            digest = None
        hasher = None if digest and not stream.kind else new_hash()

        def hashed() -> Iterator[bytes]:
            for chunk in stream:
                if hasher is not None:
                    hasher.update(chunk)
                yield chunk

        path = self._root.staging("staging")
        os.makedirs(os.path.join(path, "diff"))
        recipe = None
        chunks = ahead(hashed()) if not 0 <= size < THREAD_FROM else hashed()
        try:
            recipe = RecipeWriter(path) if stream.kind == PLAIN else None
            cut = Cut(recipe) if recipe is not None else None
            applied = self._apply(path, chunks, cut)
            if hasher is not None:
                diff_id = finish("sha256", hasher)
            else:
                assert digest is not None
                diff_id = digest() if callable(digest) else digest
            has_recipe = cut is not None and cut.is_kept
            if recipe is not None and has_recipe:
                recipe.finish(diff_id)
        except BaseException:
            if recipe is not None:
                recipe.abort()
            self._root.discard(path)
            raise
        finally:
            chunks.close()  # type: ignore[attr-defined]
        return Staged(path, diff_id, applied, stream.kind, has_recipe)

    def adopt(self, staged: Staged, chain_id: Digest) -> None:
        """Give a staged layer its name. The row follows by `add`, with the image's own.

        When the name is taken (another load was quicker) the staged one is thrown away, but for its
        recipe: that goes for every layer of the same tar.
        """
        target = self._directory(chain_id)
        try:
            os.rename(staged.path, target)
        except OSError:
            if not os.path.isdir(target):
                raise
            if staged.has_recipe:
                os.rename(os.path.join(staged.path, NAME), os.path.join(target, NAME))
            self._root.discard(staged.path)
        self._find_recipe(chain_id)

    def throw_away(self, staged: Staged) -> None:
        self._root.discard(staged.path)

    def remove_unrecorded(self, chain_id: Digest) -> None:
        """Remove an adopted layer that got no row."""
        self._remove(chain_id)

    def add(self, db: sqlite3.Connection, layers: list[Layer]) -> None:
        """Write the rows of adopted layers, in the caller's transaction; those there stay."""
        for layer in layers:
            db.execute(
                "INSERT OR IGNORE INTO layers VALUES (?, ?, ?, ?, ?, ?)",
                (*_fields(layer), self._boot),
            )

    def added(self, layers: list[Layer]) -> None:
        """Make committed rows known, and their bytes durable in the background."""
        for layer in layers:
            self._rows.setdefault(layer.chain_id, layer)
        self._root.later(self._sync)

    def change_blob(
        self, db: sqlite3.Connection, old: Digest, new: Digest, media_type: str
    ) -> list[Layer]:
        """Let the layers of a blob stand on another one of the same content; `changed` follows."""
        db.execute(
            "UPDATE layers SET blob = ?, media_type = ? WHERE blob = ?", (new, media_type, old)
        )
        return [
            replace(layer, blob=new, media_type=media_type)
            for layer in self.all()
            if layer.blob == old
        ]

    def changed(self, layers: list[Layer]) -> None:
        """Make known what was changed in a transaction that is committed."""
        for layer in layers:
            self._rows[layer.chain_id] = layer

    def delete(self, db: sqlite3.Connection, layers: list[Layer]) -> None:
        """Delete rows in the caller's transaction; `deleted` follows once it is committed."""
        self._delete_rows(db, layers)

    def deleted(self, layers: list[Layer]) -> None:
        """Forget layers whose rows are gone, and remove their directories."""
        for layer in layers:
            self._rows.pop(layer.chain_id, None)
            self._remove(layer.chain_id)

    def _remove(self, chain_id: Digest) -> None:
        directory = self._directory(chain_id)
        self._blobs.recipes.forget(directory)
        self._root.discard(directory)

    def _find_recipe(self, chain_id: Digest) -> None:
        """Let the tar be read of which a layer has the recipe, if it has one."""
        directory = self._directory(chain_id)
        if (head := read_head(directory)) is not None:
            self._blobs.recipes.add(head[1], directory)

    def _apply(self, path: str, chunks: Iterator[bytes], cut: Cut | None) -> int:
        diff = os.path.join(path, "diff")
        fd = os.open(diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, 0o755)  # what the root has when the archive does not name it
            reader = TarReader(
                chunks if cut is None else cut.chunks(chunks), max_entries=MAX_ENTRIES
            )
            applied = apply_layer(reader, fd, cut)
            reader.drain()
        finally:
            os.close(fd)
        return applied.size

    def _directory(self, chain_id: Digest) -> str:
        return self._root.join("layers", hex_of(chain_id))

    def _redo(self, layer: Layer) -> bool:
        """Unpack a layer again from its blob, or from itself; tell whether it could be done."""
        self._find_recipe(layer.chain_id)
        try:
            with self._blobs.open(layer.blob) as source:
                staged = self.unpack(source)
        except PierError:
            return False
        finally:
            self._blobs.recipes.forget(self._directory(layer.chain_id))
        if staged.diff_id != layer.diff_id:
            self.throw_away(staged)
            return False
        target = self._directory(layer.chain_id)
        if os.path.isdir(target):
            exchange(os.fsencode(staged.path), os.fsencode(target))
            self.throw_away(staged)
        else:
            self.adopt(staged, layer.chain_id)
        with self._database.transaction() as db:
            db.execute(
                "UPDATE layers SET unsynced = ? WHERE chain_id = ?", (self._boot, layer.chain_id)
            )
        return True

    def _sync(self) -> None:
        """Bring the unpacked layers to the disk and note that they are there.

        The database may be closed meanwhile: then the next start does it.
        """
        with suppress(sqlite3.ProgrammingError):
            self._sync_waiting()

    def _sync_waiting(self) -> None:
        waiting = self._database.rows("SELECT chain_id FROM layers WHERE unsynced != ''")
        if not waiting:
            return
        fd = os.open(self._root.join("layers"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        with self._database.transaction() as db:
            db.executemany("UPDATE layers SET unsynced = '' WHERE chain_id = ?", waiting)

    @staticmethod
    def _delete_rows(db: sqlite3.Connection, layers: list[Layer]) -> None:
        db.executemany("DELETE FROM layers WHERE chain_id = ?", [(x.chain_id,) for x in layers])


def check_diff_id(staged: Staged, expected: str, number: int) -> None:
    """Raise InvalidParameter when the layer is not the one that the config speaks of."""
    if staged.diff_id != expected:
        raise InvalidParameter(
            f'invalid diffID for layer {number}: expected "{expected}", got "{staged.diff_id}"'
        )


def _fields(layer: Layer) -> tuple[str, str, str, str, int]:
    return (layer.chain_id, layer.diff_id, layer.blob, layer.media_type, layer.size)
