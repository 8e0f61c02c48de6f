"""The images there are: an index in memory, the rows behind it, and what each needs kept.

An image is a row, its config (a blob, and the image's ID), its layers and its references. Rows
come last and go first: what has no row is refuse, so a SIGKILL leaves an image whole or absent,
and what it left of bytes is removed at the next start.

Any thread may call any method: there is one lock, held for a transaction at most. `remove` wants
to be called where containers are made (pierd's loop), so that none is made of an image while it
goes; it takes a few milliseconds, since files are deleted by the housekeeper.
"""

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pier.errors import InvalidParameter, NotFound, PierError
from pier.images.image import Image
from pier.images.removal import ContainerUse, Removal, Remover
from pier.images.said_of import attestation_blobs
from pier.model.digest import Digest, algorithm_of, finish, new_hash
from pier.model.oci import chain_ids, decode_config, decode_manifest
from pier.model.platform import Platform, host_platform, rank
from pier.model.reference import (
    Reference,
    parse_any,
    parse_reference,
    parse_repo_tag,
)
from pier.storage.blobs import Blobs, BlobWriter
from pier.storage.database import Database
from pier.storage.layers import Layer, Layers
from pier.storage.root import DataRoot

log = logging.getLogger(__name__)

_UNSUITED = 1 << 30


class _HeldMount(Struct):
    layers: list[str] = []


class _Held(Struct):
    """The part of a container's record that says which layers it stands on, or has mounted."""

    layers: list[str] = []
    mounts: list[_HeldMount] = []


class ImageStore:
    """Opens the images of a data root, repairing what a crash left."""

    def __init__(self, root: DataRoot, database: Database) -> None:
        self.blobs = Blobs(root)
        self.layers = Layers(root, database, self.blobs)
        self.root = root
        self._database = database
        self._lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._by_reference: dict[str, Digest] = {}
        self._pins: Counter[str] = Counter()
        self._used: dict[str, int] = {}
        self.when_added: Callable[[], object] = lambda: None
        """Called after an image was added, in whichever thread did it."""
        self.when_unnamed: Callable[[], object] = lambda: None
        """Called after an image lost a name, in whichever thread did it, and with the lock held."""
        self._open()

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._images

    def count(self) -> int:
        return len(self._images)

    def all(self) -> list[Image]:
        """Return every image, in no order."""
        with self._lock:
            return list(self._images.values())

    def get(self, ref: str, platform: Platform | None = None) -> Image:
        """Find an image by `name[:tag]`, `name@digest`, ID or the start of one, in this order.

        With `platform` it is the one of the image's index that suits best, whatever the name
        stands for. Raises NotFound, InvalidParameter for what is no reference; a prefix that fits
        several images finds none, as with Docker.
        """
        with self._lock:
            found = self._find(ref)
            return found if platform is None else self._for_platform(found, platform, ref)

    def platforms_of(self, image: Image) -> list[Image]:
        """Return the images of its index that are here, itself among them, the host's best first."""
        with self._lock:
            if not image.index:
                return [image]
            return sorted(
                (other for other in self._images.values() if other.index == image.index),
                key=lambda other: (_suits(other, host_platform()), other.id),
            )

    def is_named(self, image: Image) -> bool:
        """Tell whether it has a name, or another platform's image of its index has."""
        return any(other.references for other in self.platforms_of(image))

    def _for_platform(self, image: Image, platform: Platform, ref: str) -> Image:
        candidates = {image.id: image} | {i.id: i for i in self.platforms_of(image)}
        best = min(candidates.values(), key=lambda i: _suits(i, platform))
        if _suits(best, platform) == _UNSUITED:
            raise NotFound(
                f"image with reference {ref} was found but its platform ({image.config.platform}) "
                f"does not match the specified platform ({platform})"
            )
        return best

    def _find(self, ref: str) -> Image:
        parsed = parse_any(ref)
        with self._lock:
            if isinstance(parsed, str):
                found = self._images.get(parsed) or self._by_manifest(parsed)
                if found is None:
                    raise NotFound(f"No such image: {parsed}")
                return found
            named = self._by_reference.get(parsed.lookup_key())
            if named is not None:
                return self._images[named]
            prefix = ref.removeprefix("sha256:")
            matching = [i for i in self._images if i.startswith(prefix, len("sha256:"))]
            if len(matching) == 1:
                return self._images[matching[0]]
        raise NotFound(f"No such image: {parsed.tagged().familiar}")

    def _by_manifest(self, digest: str) -> Image | None:
        """Find an image by its manifest's or index's digest, which builds for several platforms and
        with attestations call it.
        """
        found = [i for i in self._images.values() if digest in (i.manifest, i.index)]
        return min(found, key=lambda i: (_suits(i, host_platform()), i.id)) if found else None

    def children(self, image_id: str) -> list[Image]:
        """Return the images that were built on this one."""
        return [image for image in self.all() if image.parent == image_id]

    def descendants(self, image_ids: Iterable[str]) -> frozenset[str]:
        """Return these images and all that were built on them, or on what was built on them."""
        children: dict[str, list[str]] = {}
        for image in self.all():
            children.setdefault(image.parent, []).append(image.id)
        found: set[str] = set()
        ahead = [*image_ids]
        while ahead:
            image_id = ahead.pop()
            if image_id not in found:
                found.add(image_id)
                ahead += children.get(image_id, ())
        return frozenset(found)

    def tag(self, ref: str, repo: str, tag: str) -> tuple[Image, Reference]:
        """Give an image a further name, taking it from the image that had it.

        Returns both. Raises NotFound, InvalidParameter.
        """
        reference = parse_repo_tag(repo, tag)
        with self._lock:
            image = self.get(ref)
            now = time.time_ns()
            with self._database.transaction() as db:
                _write_rows(db, image.id, [reference], now)
            self._name(image.id, [reference], now)
            return self._images[image.id], reference

    def remove(
        self,
        ref: str,
        *,
        force: bool,
        prune: bool,
        users: Sequence[ContainerUse],
        platforms: Sequence[Platform] = (),
    ) -> list[Removal]:
        """Remove a name, and with the last one the image; an ID removes the image.

        `users` are all containers; `prune` also removes untagged parents that nothing uses.
        `platforms` removes only these images of its index: names go to one of the others.
        Returns what was done, in order. Raises NotFound, Conflict in Docker's words.
        """
        with self._lock:
            remover = Remover(self, users)
            if not platforms:
                return remover.remove(ref, force=force, prune=prune)
            return remover.remove_platforms(ref, platforms, force=force, prune=prune)

    def move_names(self, image: Image, other: Image) -> None:
        """Give all names of an image to another one."""
        with self._lock:
            now = time.time_ns()
            with self._database.transaction() as db:
                _write_rows(db, other.id, image.references, now)
            self._name(other.id, image.references, now)

    def register(
        self,
        config: Digest,
        layers: Sequence[Layer],
        *,
        references: Sequence[Reference] = (),
        manifest: str = "",
        parent: str = "",
        index: str = "",
    ) -> Image:
        """Add an image whose content is in place: blobs of config, manifest, index; adopted layers.

        `index` is the digest of the image index from which the manifest was chosen, if it was.
        A reference that another image of this index has stays with the one that suits the host
        best: the other is then found by its platform.

        One transaction. What it needs must be pinned until this has returned. An image that is
        there already gets the references.
        """
        decoded = decode_config(self.blobs.read(config))
        now = time.time_ns()
        with self._lock:
            known = self._images.get(config)
            image = (
                replace(known, manifest=manifest or known.manifest, index=index or known.index)
                if known
                else Image(
                    id=config,
                    config=decoded,
                    chain_ids=tuple(layer.chain_id for layer in layers),
                    size=sum(layer.size for layer in layers),
                    loaded_at=now,
                    manifest=manifest,
                    parent=parent,
                    index=index,
                )
            )
            image = replace(image, blobs=self._blobs_of(image.id, image.manifest, image.index))
            references = [r for r in references if not self._is_kept_by_better(r, image)]
            with self._database.transaction() as db:
                self.layers.add(db, list(layers))
                db.execute(
                    "INSERT INTO images (id, manifest, parent, size, loaded_at, index_digest) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                    "SET manifest = excluded.manifest, index_digest = excluded.index_digest",
                    (
                        *(image.id, image.manifest, image.parent, image.size, image.loaded_at),
                        image.index,
                    ),
                )
                _write_rows(db, image.id, references, now)
            self.layers.added(list(layers))
            self._images[image.id] = image
            self._name(image.id, references, now)
            added = self._images[image.id]
            if known is not None and (dropped := known.blobs - image.blobs):
                self._drop(dropped)
        self.when_added()
        return added

    def _drop(self, blobs: Collection[Digest]) -> None:
        """Delete blobs that an image has no use for any more, unless others have."""
        for blob in {*blobs} - self._live_blobs():
            if not self._pins[blob]:
                self.blobs.delete(blob)

    def touch(self, image: Image) -> None:
        """Note that it is used now; the row is written in the background."""
        now = self._used[image.id] = time.time_ns()

        def write() -> None:
            with suppress(sqlite3.ProgrammingError), self._database.transaction() as db:
                db.execute(
                    "INSERT INTO image_uses (image, used_at) SELECT id, ? FROM images WHERE id = ? "
                    "ON CONFLICT (image) DO UPDATE SET used_at = excluded.used_at",
                    (now, image.id),
                )

        self.root.later(write)

    def last_used(self, image: Image) -> int:
        """Return when it was last used, loaded, pulled or named, in ns since the epoch."""
        return max(self._used.get(image.id, 0), image.loaded_at, image.tagged_at)

    def disk_bytes(self) -> int:
        """Return what all layers and blobs take: unpacked files, and blobs as they are kept."""
        blobs = 0
        for digest in self._live_blobs():
            with suppress(NotFound):
                blobs += self.blobs.disk_size(digest)
        return blobs + sum(layer.size for layer in self.layers.all())

    def _is_kept_by_better(self, reference: Reference, image: Image) -> bool:
        """Tell whether a name stays with another image of the same index."""
        owner = self._images.get(self._by_reference.get(str(reference), ""))
        if owner is None or owner.id == image.id or not image.index or owner.index != image.index:
            return False
        host = host_platform()
        return _suits(owner, host) <= _suits(image, host)

    def add_names(self, image_id: Digest, references: Sequence[Reference]) -> None:
        """Give an image further names, taking them from whoever had them. Raises NotFound."""
        with self._lock:
            if image_id not in self._images:
                raise NotFound(f"No such image: {image_id}")
            now = self._images[image_id].tagged_at
            with self._database.transaction() as db:
                _write_rows(db, image_id, references, now)
            self._name(image_id, references, now)

    def owner_of(self, reference: Reference) -> Image | None:
        """Return the image that has exactly this name."""
        with self._lock:
            found = self._by_reference.get(reference.lookup_key())
            return self._images[found] if found else None

    def tags_of(self, repository: Reference) -> list[tuple[Reference, Image]]:
        """Return the tags of a repository, sorted, with the images that they stand for."""
        with self._lock:
            found = [
                (reference, image)
                for image in self._images.values()
                for reference in image.references
                if reference.name == repository.name and not reference.digest
            ]
        return sorted(found, key=lambda pair: pair[0].tag)

    @contextmanager
    def pinned(self) -> Iterator["Pins"]:
        """Keep content from being collected while an image is made of it."""
        pins = Pins(self._pins, self._lock, partial(self.abandon, ()))
        try:
            yield pins
        finally:
            pins.release()

    def is_pinned(self, image_id: str) -> bool:
        """Tell whether somebody is at work with an image: pruning leaves it alone."""
        with self._lock:
            return self._pins[image_id] > 0

    def untag(self, image: Image, references: Sequence[Reference]) -> Image:
        """Take names from an image; what it leaves without any name stays."""
        with self._lock:
            with self._database.transaction() as db:
                db.executemany(
                    "DELETE FROM image_references WHERE name = ?", [(str(r),) for r in references]
                )
            for reference in references:
                self._unname(reference)
            return self._images[image.id]

    def delete(self, image: Image, *, in_use: Collection[str]) -> list[Layer]:
        """Delete an image and its names, and the layers and blobs that nothing else needs.

        `in_use` are the chain IDs that containers stand on. Returns the layers that went.
        """
        with self._lock:
            with self._database.transaction() as db:
                db.execute("DELETE FROM images WHERE id = ?", (image.id,))
            del self._images[image.id]
            self._used.pop(image.id, None)
            for reference in image.references:
                self._by_reference.pop(str(reference), None)
            self.when_unnamed()
            gone = self.collect(in_use=in_use)
            for blob in image.blobs - self._live_blobs():
                if not self._pins[blob]:
                    self.blobs.delete(blob)
            return gone

    def collect(self, *, in_use: Collection[str]) -> list[Layer]:
        """Delete layers, with their blobs, that neither an image nor a container needs.

        To be called as well when a container was removed whose image had gone before it.
        """
        with self._lock:
            needed: set[str] = set(in_use)
            for image in self._images.values():
                needed.update(image.chain_ids)
            gone = [
                layer
                for layer in self.layers.all()
                if layer.chain_id not in needed and not self._pins[layer.chain_id]
            ]
            gone = self._without_tars(gone)
            if not gone:
                return []
            with self._database.transaction() as db:
                self.layers.delete(db, gone)
            self.layers.deleted(gone)
            live = self._live_blobs()
            for blob in {layer.blob for layer in gone} - live:
                if not self._pins[blob]:
                    self.blobs.delete(blob)
            return gone[::-1]

    def _without_tars(self, unused: list[Layer]) -> list[Layer]:
        """Leave out the layers of which somebody needs the tar, which is assembled of them: who has
        pinned it, and images whose manifest names it, where nothing else gives it to them.
        """
        named = {blob for image in self._images.values() for blob in image.blobs}
        going = {layer.chain_id for layer in unused}
        given = {
            layer.diff_id
            for layer in self.layers.all()
            if layer.chain_id not in going and self.layers.gives_tar(layer)
        }
        gone = []
        for layer in unused:
            tar = layer.diff_id
            if self.layers.gives_tar(layer) and (
                self._pins[tar]
                or (tar in named and tar not in given and not self.blobs.has_file(tar))
            ):
                given.add(tar)
            else:
                gone.append(layer)
        return gone

    def hold_layer(self, pins: "Pins", chain_id: str) -> Layer:
        """Return a layer with its blob pinned, so that it stays what it is. Raises NotFound."""
        with self._lock:
            layer = self.layers.get(chain_id)
            if layer is None:
                raise NotFound(f"layer {chain_id} does not exist")
            pins.add(layer.blob)
            return layer

    def hold_layers(self, pins: "Pins", image: Image) -> list[Layer]:
        """Return an image's layers, lowest first, with their blobs pinned. Raises NotFound."""
        return [self.hold_layer(pins, chain_id) for chain_id in image.chain_ids]

    def replace_blob(self, old: Digest, writer: BlobWriter, media_type: str) -> bool:
        """Keep the layers of a blob as another one of the same content; takes the writer over.

        Somebody who reads the old one has pinned it: then everything stays, and it returns False.
        """
        changed: list[Layer] = []
        try:
            new = writer.digest
            if not writer.is_kept or not self.layers.has_blob(old):
                return False  # removed meanwhile: the disk would work for nothing
            with self.pinned() as pins:
                pins.add(new)
                if not self.blobs.exists(new):  # pushed to our own registry, it came back to us
                    writer.commit()
                with self._lock:
                    if not self._pins[old]:
                        with self._database.transaction() as db:
                            changed = self.layers.change_blob(db, old, new, media_type)
                        self.layers.changed(changed)
        finally:
            writer.abort()
        with self._lock:
            for blob in {old, new} - self._live_blobs():
                if not self._pins[blob]:
                    self.blobs.delete(blob)
        return bool(changed)

    def abandon(self, chain_ids: Iterable[Digest], blobs: Iterable[Digest]) -> None:
        """Remove what was put in place for an image that was not registered in the end.

        What others pinned, or need, stays. A start would find it too, but a full disk cannot wait.
        """
        with self._lock:
            for chain_id in chain_ids:
                if not self._pins[chain_id] and self.layers.get(chain_id) is None:
                    self.layers.remove_unrecorded(chain_id)
            for blob in {*blobs} - self._live_blobs():
                if not self._pins[blob]:
                    self.blobs.delete(blob)

    def _name(self, image_id: Digest, references: Iterable[Reference], tagged_at: int) -> None:
        """Give references to an image in the index, taking them from whoever had them."""
        for reference in references:
            self._unname(reference)
            self._index(image_id, reference, tagged_at)

    def _unname(self, reference: Reference) -> None:
        owner = self._by_reference.pop(str(reference), None)
        if owner is not None:
            image = self._images[owner]
            rest = tuple(r for r in image.references if r != reference)
            self._images[owner] = replace(image, references=rest)
            self.when_unnamed()

    def _index(self, image_id: Digest, reference: Reference, tagged_at: int) -> None:
        image = self._images[image_id]
        self._images[image_id] = replace(
            image,
            references=(*image.references, reference),
            tagged_at=max(tagged_at, image.tagged_at),
        )
        self._by_reference[str(reference)] = image_id

    def _open(self) -> None:
        self.layers.open()
        for row in self._database.rows(
            "SELECT id, manifest, parent, size, loaded_at, index_digest FROM images "
            "ORDER BY loaded_at"
        ):
            image_id = str(row[0])
            try:
                self._images[image_id] = self._read(*row)  # type: ignore[arg-type]
            except PierError as exc:
                # The machine went down before it was on the disk, or somebody deleted files.
                log.warning("image %s is damaged and was removed: %s", image_id, exc.message)
                with self._database.transaction() as db:
                    db.execute("DELETE FROM images WHERE id = ?", (image_id,))
        uses = self._database.rows("SELECT image, used_at FROM image_uses")
        self._used = {str(image): int(str(used_at)) for image, used_at in uses}
        for name, owner, tagged_at in self._database.rows(
            "SELECT name, image, tagged_at FROM image_references"
        ):
            self._index(Digest(str(owner)), parse_reference(str(name)), int(str(tagged_at)))
        held = msgspec.json.Decoder(_Held)
        records = (held.decode(record) for _, _, record in self._database.all_containers())
        self.collect(
            in_use={
                chain
                for record in records
                for layers in (record.layers, *(mount.layers for mount in record.mounts))
                for chain in layers
            }
        )
        live = self._live_blobs()
        for blob in self.blobs.all():
            if blob not in live:
                self.blobs.delete(blob)

    def _read(
        self, image_id: Digest, manifest: str, parent: str, size: int, loaded_at: int, index: str
    ) -> Image:
        """Build an image from its row. Raises NotFound, InvalidParameter when content is gone."""
        config = decode_config(self._checked(image_id))
        chain = tuple(chain_ids(config.rootfs.diff_ids))
        for chain_id in chain:
            self.layers.path(chain_id)
        # It can be run without these.
        manifest, index = (self._if_whole(digest) for digest in (manifest, index))
        return Image(
            id=image_id,
            config=config,
            chain_ids=chain,
            size=size,
            loaded_at=loaded_at,
            manifest=manifest,
            parent=parent,
            index=index,
            blobs=self._blobs_of(image_id, manifest, index),
        )

    def _checked(self, digest: Digest) -> bytes:
        """Return a document that may not have come to the disk whole before the machine went down.

        Raises NotFound, InvalidParameter.
        """
        data = self.blobs.read(digest)
        hasher = new_hash(algorithm_of(digest))
        hasher.update(data)
        if finish(algorithm_of(digest), hasher) != digest:
            raise InvalidParameter(f"content does not match its digest: {digest}")
        return data

    def _if_whole(self, digest: str) -> str:
        """Return the digest of a manifest or index, "" when it is not there as it was."""
        if digest:
            try:
                self._checked(Digest(digest))
            except PierError as exc:
                log.warning("an image's manifest is damaged: %s", exc.message)
                return ""
        return digest

    def _blobs_of(self, image_id: Digest, manifest: str, index: str) -> frozenset[Digest]:
        blobs = {image_id}
        if manifest:
            named = decode_manifest(self.blobs.read(Digest(manifest))).layers
            blobs |= {Digest(manifest), *(Digest(d.digest) for d in named)}
        if index:
            blobs.add(Digest(index))
            if manifest:
                blobs |= attestation_blobs(self.blobs, Digest(index), manifest)
        return frozenset(blobs)

    def _live_blobs(self) -> set[Digest]:
        live = {layer.blob for layer in self.layers.all()}
        for image in self._images.values():
            live |= image.blobs
        return live


def _suits(image: Image, platform: Platform) -> int:
    found = rank(image.config.platform, platform)
    return _UNSUITED if found is None else found


def _write_rows(
    db: sqlite3.Connection, image_id: Digest, references: Iterable[Reference], now: int
) -> None:
    db.executemany(
        "INSERT INTO image_references (name, image, tagged_at) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET image = excluded.image, tagged_at = excluded.tagged_at",
        [(str(reference), image_id, now) for reference in references],
    )


class Pins:
    """What one piece of work holds on to: chain IDs and blob digests. Any thread may let go."""

    def __init__(
        self,
        counts: Counter[str],
        lock: "threading.RLock",
        abandon: Callable[[Iterable[Digest]], None],
    ) -> None:
        self._counts = counts
        self._lock = lock
        self._abandon = abandon
        self._mine: list[str] = []
        self._loose: set[Digest] = set()

    def add(self, *names: str) -> None:
        """Hold on to them; ask whether they exist only afterwards."""
        with self._lock:
            self._counts.update(names)
            self._mine.extend(names)

    def add_loose(self, *blobs: Digest) -> None:
        """Hold on to blobs that no image may need: who lets go of one last deletes it then."""
        with self._lock:
            self.add(*blobs)
            self._loose.update(blobs)

    def release(self) -> None:
        with self._lock:
            self._counts.subtract(self._mine)
            for name in set(self._mine):
                if self._counts[name] <= 0:
                    del self._counts[name]
            self._mine.clear()
            if self._loose:
                self._abandon(self._loose)
                self._loose.clear()
