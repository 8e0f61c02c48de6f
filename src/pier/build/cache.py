"""The build cache: which image a step made the last time that all of its inputs were the same.

A step's key is the digest of its parent's image ID, of what it says, and of what it reads: for RUN
the build arguments in its environment, for COPY and ADD the sum of the files, in which times do not
count. What it leads to is an image, whose parents are the steps before it; so the bytes belong to
images, and a removed image is a step forgotten.
"""

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pier.build.explain import Inputs, unpacked
from pier.errors import NotFound
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.storage.database import Database


class Record(Struct, frozen=True):
    """A row. Times are ns since the epoch."""

    key: str
    image: str
    parent: str
    description: str
    created_at: int
    used_at: int
    uses: int


class Usage(Struct, frozen=True):
    """A record and what it holds: `size` is its own layer's bytes, 0 for none. `shared`: an image
    with a name stands on it; `in_use`: a container does.
    """

    record: Record
    size: int
    shared: bool
    in_use: bool


def key_of(parent: Image | None, what: Sequence[object]) -> str:
    """Return the key of a step on `parent`; `what` is everything that makes it what it is."""
    data = msgspec.json.encode([parent.id if parent else "", *what])
    return hashlib.sha256(data).hexdigest()


class BuildCache:
    """For pierd's loop. Rows are read once and kept in memory."""

    def __init__(self, store: ImageStore, database: Database) -> None:
        self._store = store
        self._database = database
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        columns = "key, image, parent, description, created_at, used_at, uses"
        rows = database.rows(f"SELECT {columns} FROM build_cache")  # noqa: S608
        self._records = {str(row[0]): Record(*row) for row in rows}  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def building(self, key: str) -> AsyncIterator[None]:
        """Hold a step, so that builds in flight which have the same one make it once."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)

    def find(self, key: str) -> Image | None:
        """Return the image that the step made, None when it was never made or has gone."""
        record = self._records.get(key)
        if record is None:
            return None
        try:
            image = self._store.get(record.image)
        except NotFound:
            self._forget([key])
            return None
        used = replace(record, used_at=time.time_ns(), uses=record.uses + 1)
        self._records[key] = used
        self._store.root.later(lambda: self._write(used))
        return image

    def steps_to(self, image_id: str) -> list[Record]:
        """Return the steps that made an image, the oldest first."""
        found = [record for record in self._records.values() if record.image == image_id]
        return sorted(found, key=lambda record: (record.created_at, record.key))

    def add(
        self,
        key: str,
        image: Image,
        parent: Image | None,
        description: str,
        inputs: Inputs | None = None,
    ) -> None:
        """Remember what a step made, and with `inputs` of what, so that a miss can be explained."""
        now = time.time_ns()
        parent_id = parent.id if parent else ""
        record = Record(key, image.id, parent_id, description, now, now, 1)
        self._records[key] = record
        self._write(record)
        if inputs is not None:
            self._write_inputs(key, replace(inputs, made_at=now))

    def known_inputs(self) -> list[Inputs]:
        """Return the inputs of all steps that were made here."""
        rows = self._database.rows("SELECT inputs FROM build_inputs")
        return [unpacked(bytes(row[0])) for row in rows if isinstance(row[0], bytes)]

    def _write_inputs(self, key: str, inputs: Inputs) -> None:
        with contextlib.suppress(sqlite3.Error), self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO build_inputs VALUES (?, ?)", (key, inputs.packed()))

    def usage(self, in_use: Collection[str]) -> list[Usage]:
        """Return what there is, the oldest first. `in_use` are IDs of containers' images."""
        named = self._ancestors(i.id for i in self._store.all() if self._store.is_named(i))
        used = self._ancestors(in_use)
        found = []
        seen: set[str] = set()
        for record in sorted(self._records.values(), key=lambda r: (r.created_at, r.key)):
            try:
                image = self._store.get(record.image)
            except NotFound:
                continue
            # A step with --link has two keys for one layer.
            size = 0 if image.id in seen else image.size - self._size(record.parent)
            seen.add(image.id)
            found.append(Usage(record, size, image.id in named, image.id in used))
        return found

    def remove(self, keys: Sequence[str], layers: Collection[str]) -> int:
        """Forget steps, and remove the images that only they keep; return the bytes.

        `keys` are in an order in which they can go: what stands on another one before it. `layers`
        are the chain IDs that containers stand on. Images with names stay.
        """
        images = [record.image for key in keys if (record := self._records.get(key))]
        # Nobody lists those whose images were removed as images: they go with the first prune.
        self._forget(
            [*keys, *(r.key for r in self._records.values() if r.image not in self._store)]
        )
        kept = {record.image for record in self._records.values()}
        reclaimed = 0
        for image_id in images:
            if image_id in kept or image_id not in self._store:
                continue
            if self._store.children(image_id) or self._store.is_pinned(image_id):
                continue
            image = self._store.get(image_id)
            if image.references:
                continue
            gone = self._store.delete(image, in_use=layers)
            reclaimed += sum(layer.size for layer in gone)
        return reclaimed

    def _ancestors(self, images: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for start in images:
            image_id = start
            while image_id and image_id not in found and image_id in self._store:
                found.add(image_id)
                image_id = self._store.get(image_id).parent
        return found

    def _size(self, image_id: str) -> int:
        with contextlib.suppress(NotFound):
            return self._store.get(image_id).size if image_id else 0
        return 0

    def _write(self, record: Record) -> None:
        with contextlib.suppress(sqlite3.Error), self._database.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?, ?, ?, ?, ?)",
                tuple(getattr(record, name) for name in Record.__struct_fields__),
            )

    def _forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._records.pop(key, None)
        with self._database.transaction() as db:
            db.executemany("DELETE FROM build_cache WHERE key = ?", [(key,) for key in keys])
            db.executemany("DELETE FROM build_inputs WHERE key = ?", [(key,) for key in keys])
