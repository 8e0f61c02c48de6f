"""What a load or import has taken in and not made an image of yet.

Blobs are written to ingest/ as they arrive; what looks like a layer is unpacked into staging/ by
worker threads meanwhile, before anybody has said which image it belongs to, since archives name
their images last. `register` then gives everything its place, but plain tars, which are in their
layers now (`storage/recipe.py`): their files go before they were written to the disk. What was not
needed, or all of it after a failure, is thrown away at the end; after a SIGKILL the next start does it.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol, Self, cast

from msgspec import Struct

from pier.errors import Internal, InvalidParameter
from pier.images.arriving import Arriving
from pier.images.image import Image
from pier.images.said_of import REFERENCE_DIGEST
from pier.images.store import ImageStore
from pier.images.stored import StoredBlob
from pier.model.digest import Digest, short
from pier.model.oci import (
    MAX_MANIFEST,
    OCI_LAYER,
    chain_ids,
    decode_config,
    decode_index,
    decode_manifest,
)
from pier.model.reference import Reference
from pier.storage.blobs import BlobWriter
from pier.storage.compress import GZIP, compress
from pier.storage.decompress import Decompressed, sniff
from pier.storage.layers import Layer, Staged, check_diff_id

Progress = Callable[[dict[str, Any]], None]

# Below this a layer is there before it is worth to begin with it.
EARLY_FROM = 4 << 20

# The disk's troubles, told as such; any other OSError (the client went away) passes unchanged.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})

_SUFFIX = {"": "", "gzip": "+gzip", "zstd": "+zstd"}
# Registries and the image specification have no media types for these.
_REPACKED = frozenset({"bzip2", "xz"})


class Received(Protocol):
    """A blob that is here or on its way: BlobWriter, or a download that others follow."""

    @property
    def digest(self) -> Digest: ...
    @property
    def size(self) -> int: ...
    def reader(self) -> BinaryIO: ...
    def head(self, size: int) -> bytes: ...
    def commit(self, *, durable: bool = True) -> Digest: ...
    def spare(self) -> None: ...
    def abort(self) -> None: ...


class _Early(NamedTuple):
    """A blob that is unpacked while it arrives."""

    reader: Arriving
    future: Future[Staged]


class LayerSource(Struct, frozen=True):
    """A layer's blob in the intake, and the media type its manifest gives it ("" = none)."""

    blob: Digest
    media_type: str = ""


class Intake:
    """Use it in a `with`, in one thread (it has workers of its own).

    Its end turns a disk that is full, read-only or broken into Internal.
    """

    def __init__(self, store: ImageStore, *, workers: int = 0) -> None:
        """Start up to `workers` threads that unpack; by default what keeps the processors busy."""
        self._store = store
        self._stack = ExitStack()
        self._pins = self._stack.enter_context(store.pinned())
        self._pool = ThreadPoolExecutor(
            max(workers, (os.cpu_count() or 1) + 1), thread_name_prefix="unpack"
        )
        self._blobs: dict[Digest, Received] = {}
        self._unpacking: dict[Digest, Future[Staged]] = {}
        self._futures: list[Future[Staged]] = []
        self._adopted: set[str] = set()
        # What stands under its name, and belongs to no image yet.
        self._placed_layers: set[Digest] = set()
        self._placed_blobs: set[Digest] = set()
        # Tars that are in their layers, for as long as it is not sure that these stay.
        self._spare: list[Received] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for future in self._futures:
            if not future.cancelled() and future.exception() is None:
                staged = future.result()
                if staged.path not in self._adopted:
                    self._store.layers.throw_away(staged)
        for writer in self._blobs.values():
            writer.abort()
        self._stack.close()
        # Blobs that are whole may wait for the next try, but not where an error was told.
        self._store.abandon(self._placed_layers, self._placed_blobs if value is not None else ())
        number = value.errno if isinstance(value, OSError) else None
        if isinstance(value, sqlite3.Error) and value.sqlite_errorcode == sqlite3.SQLITE_FULL:
            number = errno.ENOSPC
        if number in _DISK:
            text = os.strerror(number or 0).lower()
            raise Internal(f"write {self._store.root.path}: {text}") from value

    def add(self, pieces: Iterable[bytes | memoryview], *, expected: str = "") -> Digest:
        """Take in a blob; begin to unpack it if it looks like a layer that is not known yet.

        That is while it still arrives, if it is large, unless `expected` (what its sender calls it)
        is known.
        """
        writer = self._store.blobs.ingest()
        early = self._write(writer, pieces, EARLY_FROM if not self._is_known(expected) else 1 << 62)
        digest = writer.digest
        is_new = not self._is_known(digest)
        if early is not None:
            early.reader.end() if is_new else early.reader.stop()
        if digest in self._blobs:
            writer.abort()
            return digest
        self._blobs[digest] = writer
        if early is not None and is_new:
            self._unpacking[digest] = early.future
        elif is_new and _looks_like_layer(writer.head(512)):
            self._unpack(digest)
        return digest

    def _write(
        self, writer: BlobWriter, pieces: Iterable[bytes | memoryview], early_from: int
    ) -> "_Early | None":
        """Write a blob; return its unpacking, if it is a layer of at least `early_from` bytes."""
        early: _Early | None = None
        try:
            for piece in pieces:
                writer.write(piece)
                if early is not None:
                    early.reader.told()
                elif writer.size >= early_from:
                    early_from = 1 << 62
                    if _looks_like_layer(writer.head(512)):
                        early = self._unpack_early(writer)
        except BaseException:
            if early is not None:
                early.reader.stop()
            writer.abort()
            raise
        return early

    def _is_known(self, digest: str) -> bool:
        return digest in self._blobs or self._store.layers.has_blob(digest)

    def hold(self, *names: str) -> None:
        """Pin chain IDs and blobs: ask whether they exist only afterwards."""
        self._pins.add(*names)

    def receive(self, blob: Received) -> None:
        """Take in a layer that is still arriving, and begin to unpack it.

        Its reader follows it, and ends only when the digest was right. Layers are unpacked in the
        order in which they are given here, as many at once as there are workers.
        """
        self._blobs[blob.digest] = blob
        self._unpack(blob.digest)

    def keep(self, blob: Received) -> None:
        """Take in a blob that needs no unpacking: a document, or a layer known by another blob."""
        self._blobs.setdefault(blob.digest, blob)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._blobs

    def size(self, digest: Digest) -> int:
        return self._blobs[digest].size

    def read(self, digest: Digest, limit: int, what: str) -> bytes:
        """Return a small blob of the intake. Raises InvalidParameter when it is over `limit`."""
        writer = self._blobs[digest]
        if writer.size > limit:
            raise InvalidParameter(f"{what} is larger than {limit} bytes")
        return writer.head(limit)

    def diff_id(self, blob: Digest) -> Digest:
        """Unpack a blob, or wait until that is done, and return the layer's diff ID."""
        return self._staged(blob, keep=True).diff_id

    def register(
        self,
        config: Digest,
        layers: Sequence[LayerSource],
        *,
        references: Sequence[Reference] = (),
        manifest: Digest | None = None,
        index: Digest | None = None,
        parent: str = "",
        progress: Progress | None = None,
        placed: Callable[[int], None] | None = None,
    ) -> Image:
        """Make an image of a config and layers of this intake, lowest first.

        `index` is the image index that the manifest was chosen from, in the intake as well.
        `placed` is told the number of each layer that has its place.
        Raises InvalidParameter when the layers are not those that the config speaks of, TarError
        for one that cannot be unpacked.
        """
        diff_ids = decode_config(self.read(config, 1 << 30, "image config")).rootfs.diff_ids
        if len(diff_ids) != len(layers):
            raise InvalidParameter(
                "invalid manifest, layers length mismatch: "
                f"expected {len(layers)}, got {len(diff_ids)}"
            )
        chain = chain_ids(diff_ids)
        self._pins.add(*chain, config, *(source.blob for source in layers))
        rows = []
        for number, source in enumerate(layers):
            rows.append(self._place(number, source, chain[number], diff_ids[number], progress))
            if placed is not None:
                placed(number)
        self._commit(config)
        if manifest is not None:
            self._pins.add(manifest)
            self._commit(manifest)
            for source in layers:
                # Of a layer that is known by another blob: no start would look at this one.
                self._commit(source.blob, durable=True)
        if index is not None:
            self._pins.add(index)
            self._commit(index)
            self._keep_attestations(index, manifest or "")
        image = self._store.register(
            config,
            rows,
            references=references,
            manifest=manifest or "",
            parent=parent,
            index=index or "",
        )
        self._placed_layers.clear()
        self._placed_blobs.clear()
        for received in self._spare:
            received.spare()
        self._spare.clear()
        return image

    def _keep_attestations(self, index: Digest, manifest: str) -> None:
        """Keep what an index says of a manifest (SBOM, provenance), as far as it came along."""
        for entry in decode_index(self.read(index, MAX_MANIFEST, "image index")).manifests:
            digest = Digest(entry.digest)
            if entry.annotations.get(REFERENCE_DIGEST) != manifest or digest not in self:
                continue
            said = decode_manifest(self.read(digest, MAX_MANIFEST, "manifest"))
            for blob in (digest, *(Digest(p.digest) for p in (said.config, *said.layers))):
                if blob in self:
                    self._pins.add(blob)
                    self._commit(blob)

    def _place(
        self,
        number: int,
        source: LayerSource,
        chain_id: Digest,
        diff_id: str,
        progress: Progress | None,
    ) -> Layer:
        """Put one layer where its chain ID says, unless it is there."""
        known = self._store.layers.get(chain_id)
        if known is not None:
            return known
        if source.blob not in self:
            raise InvalidParameter(f"layer {diff_id} is neither here nor in the archive")
        total = self.size(source.blob)
        if progress is not None:
            _tell(progress, diff_id, 0, total)
        staged = self._staged(source.blob)
        check_diff_id(staged, diff_id, number)
        blob, compression = source.blob, staged.compression
        if compression in _REPACKED:
            blob, compression = self._repack(blob), GZIP
        if not staged.has_recipe:
            self._commit(blob)
        self._placed_layers.add(chain_id)
        self._store.layers.adopt(staged, chain_id)
        self._adopted.add(staged.path)
        if staged.has_recipe:
            self._let_go(blob)
        if progress is not None:
            _tell(progress, diff_id, total, total)
        return Layer(
            chain_id=chain_id,
            diff_id=Digest(diff_id),
            blob=blob,
            media_type=(source.media_type if blob == source.blob else "")
            or OCI_LAYER + _SUFFIX[compression],
            size=staged.size,
        )

    def _let_go(self, blob: Digest) -> None:
        """Give the disk back what was received of a tar that is assembled of its layer from now on.

        Now, for the sync that follows an image would write it out.
        """
        received = self._blobs[blob]
        self._blobs[blob] = StoredBlob(self._store.blobs, blob)
        received.abort()
        self._spare.append(received)

    def _repack(self, blob: Digest) -> Digest:
        """Compress a layer with gzip that came in a way that only archives may have."""
        writer = self._store.blobs.ingest()
        try:
            with self._blobs[blob].reader() as source:
                for data in compress(iter(Decompressed(source)), GZIP):
                    writer.write(data)
        except BaseException:
            writer.abort()
            raise
        digest = writer.digest
        self._pins.add(digest)
        if digest in self._blobs:
            writer.abort()
        else:
            self._blobs[digest] = writer
        return digest

    def _staged(self, blob: Digest, *, keep: bool = False) -> Staged:
        """Wait for a blob's directory; each is given away once, as each chain ID needs its own."""
        if blob not in self._unpacking:
            self._unpack(blob)
        future = self._unpacking[blob] if keep else self._unpacking.pop(blob)
        return future.result()

    def _unpack(self, blob: Digest) -> None:
        writer = self._blobs[blob]

        def run() -> Staged:
            with writer.reader() as source:
                return self._store.layers.unpack(source, digest=blob, size=writer.size)

        future = self._pool.submit(run)
        self._unpacking[blob] = future
        self._futures.append(future)

    def _unpack_early(self, writer: BlobWriter) -> "_Early":
        # Closed by the intake: the unpacking may be cancelled before it has begun.
        reader = self._stack.enter_context(closing(Arriving(writer)))

        def run() -> Staged:
            with closing(reader):
                # It ends when all was written: then the digest is there.
                source = cast("BinaryIO", reader)
                return self._store.layers.unpack(source, digest=lambda: writer.digest)

        future = self._pool.submit(run)
        self._futures.append(future)
        return _Early(reader, future)

    def _commit(self, digest: Digest, *, durable: bool = False) -> None:
        """Give a blob its name; it is pinned, so one that is there already stays.

        After a power cut a start looks at what was not `durable`: a layer's blob is unpacked again,
        documents are compared with their digests.
        """
        if not self._store.blobs.exists(digest):
            self._placed_blobs.add(digest)
            self._blobs[digest].commit(durable=durable)


def _looks_like_layer(head: bytes) -> bool:
    return bool(sniff(head)) or head[257:262] == b"ustar"


def _tell(progress: Progress, diff_id: str, current: int, total: int) -> None:
    progress(
        {
            "status": "Loading layer",
            "progressDetail": {"current": current, "total": total},
            "id": short(diff_id),
        }
    )
