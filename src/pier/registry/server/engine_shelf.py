"""An engine's images as a registry's content, to be pulled: nothing is copied.

The engine's `team/app:v1` is tag v1 of the repository `team/app`, as its users write it; images
whose names have a registry with a port (`localhost:5000/app`) have no name here. An image gives out
its index while all that this names is here, else the manifest it came with, else one made of its
config and layers, which is the same each time.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.manifests import encode_manifest, make_manifest
from pier.images.store import ImageStore
from pier.model.digest import Digest, digest_of
from pier.model.oci import OCI_INDEX, OCI_MANIFEST, Descriptor, decode_index, decode_manifest
from pier.model.reference import parse_reference
from pier.registry.server.catalog import Entry
from pier.registry.server.paths import MAX_NAME, NAME


class Offer(msgspec.Struct, frozen=True):
    """A manifest or index that is given out. `blobs` are those that it names itself."""

    entry: Entry
    data: bytes
    blobs: frozenset[Digest] = frozenset()


def familiar(name: str) -> str:
    """Return a repository's name as the engine's users write it: `library/app` is `app`.

    "" for what is no name of an image.
    """
    try:
        reference = parse_reference(name)
    except InvalidParameter:
        return ""
    return "" if reference.digest or reference.tag else reference.familiar_name


class EngineShelf:
    """For any thread."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._lock = threading.Lock()
        # By what is said of an image: that cannot change. The first of each is what tags mean.
        self._offers: dict[tuple[str, ...], tuple[Offer, ...]] = {}

    @property
    def catalog(self) -> "EngineShelf":
        return self

    # What is there

    def has_repository(self, name: str) -> bool:
        return familiar(name) in self._names()

    def repositories(self, after: str, limit: int) -> list[str]:
        return page(self._names(), after, limit)

    def tags(self, name: str, after: str, limit: int) -> list[str]:
        return page(self._tags(name), after, limit)

    def image(self, name: str, tag: str) -> Image | None:
        return self._tags(name).get(tag)

    def by_tag(self, name: str, tag: str) -> Entry | None:
        image = self.image(name, tag)
        return self._offers_of(image)[0].entry if image else None

    def by_digest(self, name: str, digest: Digest) -> Entry | None:
        offer = self.offer(name, digest)
        return offer.entry if offer else None

    def offer(self, name: str, digest: Digest) -> Offer | None:
        """Return what a repository has of this digest."""
        images = self._tags(name).values()
        offers = (offer for image in images for offer in self._offers_of(image))
        return next((offer for offer in offers if offer.entry.digest == digest), None)

    def tags_of(self, name: str, digest: Digest) -> list[str]:
        """Return the tags that lead to a manifest, itself or by an index."""
        return [
            tag
            for tag, image in self._tags(name).items()
            if any(offer.entry.digest == digest for offer in self._offers_of(image))
        ]

    def has_blob(self, name: str, digest: Digest) -> bool:
        return any(self._names_blob(image, digest) for image in self._tags(name).values())

    def any_has_blob(self, digest: Digest) -> bool:
        return any(
            self._names_blob(image, digest)
            for tags in self._names().values()
            for image in tags.values()
        )

    def referrers(self, name: str, subject: Digest, artifact_type: str) -> list[Descriptor]:
        """An engine keeps images only."""
        return []

    # Bytes

    def has_bytes(self, digest: Digest) -> bool:
        return self._images.blobs.exists(digest)

    def blob_path(self, digest: Digest) -> str:
        blobs = self._images.blobs
        return "" if digest in blobs.recipes and not blobs.has_file(digest) else blobs.path(digest)

    @contextmanager
    def reading(self, digest: Digest) -> Iterator[tuple[BinaryIO, int]]:
        """Open a blob for the time of a block, in which it stays. Raises NotFound."""
        blobs = self._images.blobs
        with self._images.pinned() as pins:
            pins.add(digest)
            with blobs.open(digest) as file:
                yield file, blobs.size(digest)

    def read(self, digest: Digest) -> bytes:
        """Return a manifest. Raises FileNotFoundError when its image went."""
        with self._lock:
            for offers in self._offers.values():
                for offer in offers:
                    if offer.entry.digest == digest:
                        return offer.data
        raise FileNotFoundError(2, "no such file or directory", digest)

    def _tags(self, name: str) -> dict[str, Image]:
        return self._names().get(familiar(name), {})

    def _names(self) -> dict[str, dict[str, Image]]:
        """Repository → tag → image."""
        names: dict[str, dict[str, Image]] = {}
        for image in self._images.all():
            for reference in image.references:
                name = reference.familiar_name
                if reference.tag and len(name) <= MAX_NAME and NAME.fullmatch(name):
                    names.setdefault(name, {})[reference.tag] = image
        return names

    def _names_blob(self, image: Image, digest: Digest) -> bool:
        return any(digest in offer.blobs for offer in self._offers_of(image))

    def _offers_of(self, image: Image) -> tuple[Offer, ...]:
        layers = map(self._images.layers.get, image.chain_ids)
        platforms = (i.id for i in self._images.platforms_of(image)) if image.index else ()
        key = (
            *(image.id, image.manifest, image.index, *platforms),
            *(layer.blob for layer in layers if layer is not None),
        )
        with self._lock:
            found = self._offers.get(key)
        if found is None:
            own = self._original(image) or self._made(image)
            found = (*self._whole_index(image), own)
            with self._lock:
                if len(self._offers) > 2 * self._images.count() + 16:
                    self._offers.clear()
                self._offers[key] = found
        return found

    def _whole_index(self, image: Image) -> tuple[Offer, ...]:
        """The index that the image was chosen from and its manifests, () when some are not here."""
        if not image.index:
            return ()
        try:
            data = self._images.blobs.read(Digest(image.index))
            index = decode_index(data)
            children = [self._kept(Digest(entry.digest)) for entry in index.manifests]
        except (NotFound, InvalidParameter):
            return ()
        entry = Entry(Digest(image.index), index.mediaType or OCI_INDEX, len(data))
        whole = tuple(child for child in children if child is not None)
        return (Offer(entry, data), *whole) if len(whole) == len(children) else ()

    def _original(self, image: Image) -> Offer | None:
        """The manifest that the image came with, None when something of it is not here."""
        if not image.manifest:
            return None
        try:
            return self._kept(Digest(image.manifest))
        except NotFound:
            return None

    def _kept(self, digest: Digest) -> Offer | None:
        """A manifest that was kept. None when a blob of it was not; raises NotFound, InvalidParameter."""
        data = self._images.blobs.read(digest)
        manifest = decode_manifest(data)
        blobs = frozenset(Digest(d.digest) for d in (manifest.config, *manifest.layers))
        if not all(self._images.blobs.exists(blob) for blob in blobs):
            return None
        return Offer(Entry(digest, manifest.mediaType or OCI_MANIFEST, len(data)), data, blobs)

    def _made(self, image: Image) -> Offer:
        manifest = make_manifest(self._images, image)
        data = encode_manifest(manifest)
        blobs = frozenset(Digest(d.digest) for d in (manifest.config, *manifest.layers))
        return Offer(Entry(digest_of(data), OCI_MANIFEST, len(data)), data, blobs)


def page(names: Iterable[str], after: str, limit: int) -> list[str]:
    """Return at most `limit` names that come after `after`, in order; -1 is no limit."""
    found = sorted({name for name in names if name > after})
    return found if limit < 0 else found[:limit]
