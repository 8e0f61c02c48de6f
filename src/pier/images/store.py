"""Images: which there are, what they are called, and how they go.

An image is a config blob (whose digest is its ID), the layers that the config's diff IDs name, and
any number of references. Rows in the database decide; blobs and layers that no row speaks of are
refuse. Everything is also in memory, since every `docker run` asks for an image.
"""

import sqlite3
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.model.api_images import ImageDelete
from pier.model.digest import Digest, digest_of
from pier.model.oci import ImageConfig, chain_ids, decode_config
from pier.model.reference import Reference, parse_any, parse_reference, parse_repo_tag
from pier.storage.blobs import Blobs
from pier.storage.database import Database
from pier.storage.layers import Layer, Layers

SHORTEST_ID = 1


class Image(Struct, frozen=True):
    """`chain_ids` are those of its layers, lowest first; `size` is their unpacked bytes.

    `manifest` is the digest of the manifest it came with, "" if it came without; `loaded_at` is in
    nanoseconds since the epoch.
    """

    id: str
    config: ImageConfig
    chain_ids: list[str]
    size: int
    manifest: str
    parent: str
    loaded_at: int


class User(Struct, frozen=True):
    """A container that stands in the way of a removal."""

    id: str
    running: bool


Users = Callable[[str], list[User]]


class ImageStore:
    """All methods may be called by any thread; none takes longer than a database commit."""

    def __init__(self, database: Database, blobs: Blobs, layers: Layers) -> None:
        self.blobs = blobs
        self.layers = layers
        self._database = database
        self._lock = threading.RLock()
        self._images: dict[str, Image] = {}
        # Full reference → (image ID, when it was tagged).
        self._names: dict[str, tuple[str, int]] = {}

    def open(self) -> None:
        """Read what there is; drop images that a crash of the machine took layers from."""
        lost = {layer.chain_id for layer in self.layers.open()}
        rows = self._database.rows("SELECT id, manifest, parent, size, loaded_at FROM images")
        for image_id, manifest, parent, size, loaded_at in rows:
            try:
                config = decode_config(self.blobs.read(Digest(str(image_id))))
            except (NotFound, InvalidParameter):
                self._forget_row(str(image_id))
                continue
            chain: list[str] = list(chain_ids(config.rootfs.diff_ids))
            if lost.intersection(chain):
                self._forget_row(str(image_id))
                continue
            self._images[str(image_id)] = Image(
                str(image_id), config, chain, int(str(size)), str(manifest), str(parent),
                int(str(loaded_at)),
            )  # fmt: skip
        for name, image_id, at in self._database.rows(
            "SELECT name, image, tagged_at FROM image_references"
        ):
            if str(image_id) in self._images:
                self._names[str(name)] = (str(image_id), int(str(at)))
        self._sweep()

    # Looking up

    def get(self, ref: str) -> Image:
        """Return the image that `ref` means: a name, name@digest, ID or unique beginning of one.

        Raises NotFound and InvalidParameter in Docker's words.
        """
        return self.resolve(ref)[0]

    def resolve(self, ref: str) -> tuple[Image, Reference | None]:
        """As `get`, and the reference by which it was found, None when it was by ID."""
        parsed = parse_any(ref)
        with self._lock:
            if not isinstance(parsed, Reference):
                found = self._images.get(parsed)
                if found is None:
                    raise NotFound(f"No such image: {ref}")
                return found, None
            named = self._names.get(parsed.lookup_key())
            if named is not None:
                reference = parsed if parsed.digest else parsed.tagged()
                return self._images[named[0]], reference
            found = self._by_prefix(ref)
        if found is None:
            raise NotFound(f"No such image: {parsed.tagged().familiar}")
        return found, None

    def all(self) -> list[Image]:
        with self._lock:
            return list(self._images.values())

    def count(self) -> int:
        return len(self._images)

    def references(self, image_id: str) -> list[Reference]:
        """Return the image's references, in order."""
        with self._lock:
            names = sorted(name for name, (owner, _) in self._names.items() if owner == image_id)
        return [parse_reference(name) for name in names]

    def tagged_at(self, image_id: str) -> int:
        """Return when it last got a name, ns since the epoch; 0 when it has none."""
        with self._lock:
            return max((at for owner, at in self._names.values() if owner == image_id), default=0)

    def children(self, image_id: str) -> list[str]:
        """Return the IDs of images that were built on this one."""
        return [image.id for image in self.all() if image.parent == image_id]

    # Changing

    def add(
        self, config: bytes, layers: list[Layer], *, manifest: str = "", names: list[Reference]
    ) -> Image:
        """Add an image whose layers were adopted, and give it names; durable on return.

        An image that is there already only gets the names.
        """
        image_id = digest_of(config)
        decoded = decode_config(config)
        image = Image(
            image_id,
            decoded,
            list(chain_ids(decoded.rootfs.diff_ids)),
            sum(layer.size for layer in layers),
            manifest,
            decoded.parent,
            time.time_ns(),
        )
        self.blobs.put(config)
        with self._lock:
            with self._database.transaction() as db:
                self.layers.add(db, layers)
                db.execute(
                    "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?)",
                    (image.id, image.manifest, image.parent, image.size, image.loaded_at),
                )
                for name in names:
                    self._put_name(db, name, image.id)
            self.layers.added(layers)
            image = self._images.setdefault(image.id, image)
            for name in names:
                self._names[str(name)] = (image.id, time.time_ns())
        return image

    def tag(self, ref: str, repo: str, tag: str) -> tuple[Image, Reference]:
        """Give an image another name. Raises NotFound, InvalidParameter."""
        image = self.get(ref)
        reference = parse_repo_tag(repo, tag)
        with self._lock:
            with self._database.transaction() as db:
                self._put_name(db, reference, image.id)
            self._names[str(reference)] = (image.id, time.time_ns())
        return image, reference

    def remove(self, ref: str, *, force: bool, users: Users) -> tuple[Image, list[ImageDelete]]:
        """Take away a name, and the image with its last one; what `docker rmi` does.

        Raises NotFound, and Conflict where containers or other names stand in the way.
        """
        with self._lock:
            image, by_name = self.resolve(ref)
            held = users(image.id)
            names = self.references(image.id)
            if by_name is not None and (len(names) > 1 or (held and force)):
                if len(names) == 1:
                    _refuse_running(image, held)
                return image, [self._untag(by_name)]
            if by_name is not None and held:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{ref}" (must force) - '
                    f"container {held[0].id[:12]} is using its referenced image {_short(image)}"
                )
            self._check_removable(image, names, held, force=force)
            removed = [self._untag(name) for name in names]
            return image, [*removed, *self._delete(image)]

    def _check_removable(
        self, image: Image, names: list[Reference], held: list[User], *, force: bool
    ) -> None:
        children = self.children(image.id)
        if children:
            raise Conflict(
                f"conflict: unable to delete {_short(image)} (cannot be forced) - "
                "image has dependent child images"
            )
        _refuse_running(image, held)
        if force:
            return
        if len({name.name for name in names}) > 1:
            raise Conflict(
                f"conflict: unable to delete {_short(image)} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        if held:
            raise Conflict(
                f"conflict: unable to delete {_short(image)} (must be forced) - "
                f"image is being used by stopped container {held[0].id[:12]}"
            )

    def _untag(self, name: Reference) -> ImageDelete:
        with self._database.transaction() as db:
            db.execute("DELETE FROM image_references WHERE name = ?", (str(name),))
        self._names.pop(str(name), None)
        return ImageDelete(Untagged=name.familiar)

    def _delete(self, image: Image) -> list[ImageDelete]:
        """Delete an image and the layers that no other one has."""
        kept = {chain for other in self.all() if other.id != image.id for chain in other.chain_ids}
        gone = [
            layer
            for chain in reversed(image.chain_ids)
            if chain not in kept and (layer := self.layers.get(chain)) is not None
        ]
        with self._database.transaction() as db:
            db.execute("DELETE FROM images WHERE id = ?", (image.id,))
            self.layers.delete(db, gone)
        del self._images[image.id]
        self.layers.deleted(gone)
        still_used = {layer.blob for layer in self.layers.all()}
        for blob in {image.id, image.manifest, *(layer.blob for layer in gone)} - still_used:
            if blob:
                self.blobs.delete(Digest(blob))
        return [ImageDelete(Deleted=digest) for digest in (image.id, *(x.chain_id for x in gone))]

    def _by_prefix(self, text: str) -> Image | None:
        wanted = text.removeprefix("sha256:")
        if len(wanted) < SHORTEST_ID:
            return None
        found = [i for i in self._images if i.removeprefix("sha256:").startswith(wanted)]
        return self._images[found[0]] if len(found) == 1 else None

    @staticmethod
    def _put_name(db: sqlite3.Connection, name: Reference, image_id: str) -> None:
        db.execute(
            "INSERT INTO image_references (name, image, tagged_at) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET image = excluded.image, "
            "tagged_at = excluded.tagged_at",
            (str(name), image_id, time.time_ns()),
        )

    def _forget_row(self, image_id: str) -> None:
        with self._database.transaction() as db:
            db.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def _sweep(self) -> None:
        """Remove layers and blobs that no image has: what a killed load or removal left."""
        chains = {chain for image in self._images.values() for chain in image.chain_ids}
        orphans = [layer for layer in self.layers.all() if layer.chain_id not in chains]
        with self._database.transaction() as db:
            self.layers.delete(db, orphans)
        self.layers.deleted(orphans)
        known = {layer.blob for layer in self.layers.all()}
        known |= {Digest(digest) for i in self._images.values() for digest in (i.id, i.manifest)}
        for digest in self.blobs.all():
            if digest not in known:
                self.blobs.delete(digest)


def _refuse_running(image: Image, held: list[User]) -> None:
    for user in held:
        if user.running:
            raise Conflict(
                f"conflict: unable to delete {_short(image)} (cannot be forced) - "
                f"image is being used by running container {user.id[:12]}"
            )


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]
