"""An engine's images as a registry's content, to be pulled: nothing is copied, nothing can be pushed.

The engine's `team/app:v1` is tag v1 of the repository `team/app`, as its users write it; images
whose names have a registry with a port (`localhost:5000/app`) have no name here. An image gives out
the manifest it came with while all that names is here, else one made of its config and layers,
which is the same each time.
"""

from collections.abc import Iterable

import msgspec

from pier.errors import NotFound
from pier.images.image import Image
from pier.images.manifests import encode_manifest, make_manifest
from pier.images.store import ImageStore
from pier.model.digest import Digest, digest_of
from pier.model.oci import OCI_MANIFEST, Descriptor, decode_manifest
from pier.registry.server.catalog import Entry
from pier.registry.server.paths import MAX_NAME, NAME


class _Offer(msgspec.Struct, frozen=True):
    """What an image is pulled by. `blobs` are those its manifest names."""

    entry: Entry
    data: bytes
    blobs: frozenset[Digest]


class EngineShelf:
    """Asked by one thread, pierd's loop, but for `read`."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        # By image, manifest and layers' blobs: what is said of these cannot change.
        self._offers: dict[tuple[str, ...], _Offer] = {}

    @property
    def catalog(self) -> "EngineShelf":
        return self

    # What is there

    def has_repository(self, name: str) -> bool:
        return name in self._names()

    def repositories(self, after: str, limit: int) -> list[str]:
        return _slice(self._names(), after, limit)

    def tags(self, name: str, after: str, limit: int) -> list[str]:
        return _slice(self._names().get(name, {}), after, limit)

    def by_tag(self, name: str, tag: str) -> Entry | None:
        image = self._names().get(name, {}).get(tag)
        return self._offer(image).entry if image else None

    def by_digest(self, name: str, digest: Digest) -> Entry | None:
        offers = (self._offer(image) for image in self._names().get(name, {}).values())
        return next((offer.entry for offer in offers if offer.entry.digest == digest), None)

    def has_blob(self, name: str, digest: Digest) -> bool:
        images = self._names().get(name, {}).values()
        return any(digest in self._offer(image).blobs for image in images)

    def referrers(self, name: str, subject: Digest, artifact_type: str) -> list[Descriptor]:
        """An engine keeps images only."""
        return []

    # Bytes

    def has_bytes(self, digest: Digest) -> bool:
        return self._images.blobs.exists(digest)

    def blob_path(self, digest: Digest) -> str:
        return self._images.blobs.path(digest)

    def read(self, digest: Digest) -> bytes:
        """Return a manifest. Raises FileNotFoundError when its image went."""
        for offer in list(self._offers.values()):
            if offer.entry.digest == digest:
                return offer.data
        raise FileNotFoundError(2, "no such file or directory", digest)

    def _names(self) -> dict[str, dict[str, Image]]:
        """Repository → tag → image."""
        names: dict[str, dict[str, Image]] = {}
        for image in self._images.all():
            for reference in image.references:
                name = reference.familiar_name
                if reference.tag and len(name) <= MAX_NAME and NAME.fullmatch(name):
                    names.setdefault(name, {})[reference.tag] = image
        return names

    def _offer(self, image: Image) -> _Offer:
        layers = map(self._images.layers.get, image.chain_ids)
        key = (image.id, image.manifest, *(layer.blob for layer in layers if layer is not None))
        offer = self._offers.get(key)
        if offer is None:
            if len(self._offers) > 2 * self._images.count() + 16:
                self._offers.clear()
            offer = self._offers[key] = self._original(image) or self._made(image)
        return offer

    def _original(self, image: Image) -> _Offer | None:
        """The manifest that the image came with, None when something of it is not here."""
        if not image.manifest:
            return None
        digest = Digest(image.manifest)
        try:
            data = self._images.blobs.read(digest)
        except NotFound:
            return None
        manifest = decode_manifest(data)
        blobs = frozenset(Digest(d.digest) for d in (manifest.config, *manifest.layers))
        if not all(self._images.blobs.exists(blob) for blob in blobs):
            return None
        return _Offer(Entry(digest, manifest.mediaType or OCI_MANIFEST, len(data)), data, blobs)

    def _made(self, image: Image) -> _Offer:
        manifest = make_manifest(self._images, image)
        data = encode_manifest(manifest)
        blobs = frozenset(Digest(d.digest) for d in (manifest.config, *manifest.layers))
        return _Offer(Entry(digest_of(data), OCI_MANIFEST, len(data)), data, blobs)


def _slice(names: Iterable[str], after: str, limit: int) -> list[str]:
    found = sorted(name for name in names if name > after)
    return found if limit < 0 else found[:limit]
