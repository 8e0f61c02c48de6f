"""An image's layers as an export wants them: compressed so, with media types of one family."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from msgspec import Struct

from pier.build.export.attributes import Compression
from pier.build.threads import finished
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.digest import Digest
from pier.model.oci import DOCKER_LAYER, OCI_LAYER, Descriptor
from pier.storage.compress import GZIP, PLAIN, ZSTD
from pier.storage.compressed import CompressedLayers
from pier.storage.layers import Layer


class Exported(Struct, frozen=True):
    """A layer as it is exported."""

    diff_id: str
    descriptor: Descriptor


class LayerExports:
    """Gives layers the form that is wanted; what was once compressed so is found again."""

    def __init__(self, store: ImageStore, compressed: CompressedLayers, executor: Executor) -> None:
        self._store = store
        self._compressed = compressed
        self._executor = executor

    async def of(
        self, image: Image, wanted: Compression, *, oci: bool, pins: Pins
    ) -> Sequence[Exported]:
        """Return an image's layers, lowest first; their blobs are pinned. Raises NotFound, OSError."""
        works = [
            finished(self._executor, partial(self._one, chain_id, wanted, oci=oci, pins=pins))
            for chain_id in image.chain_ids
        ]
        return await asyncio.gather(*works)

    def _one(self, chain_id: str, wanted: Compression, *, oci: bool, pins: Pins) -> Exported:
        pins.add(chain_id)
        layer = self._store.hold_layer(pins, chain_id)
        present = _kind(layer.media_type)
        blob, kind = layer.blob, present
        if _is_other(present, wanted):
            kind = wanted.kind
            blob = self._form(layer, wanted, pins)
        descriptor = Descriptor(
            mediaType=layer_type(kind, oci=oci), digest=blob, size=self._store.blobs.size(blob)
        )
        return Exported(layer.diff_id, descriptor)

    def _form(self, layer: Layer, wanted: Compression, pins: Pins) -> Digest:
        """Return the blob of a layer in another form, found or made. It is nobody's, or not yet."""
        diff_id = Digest(layer.diff_id)
        known: Digest | None
        if wanted.kind == PLAIN:
            known = diff_id
        else:
            known = self._compressed.find(diff_id, wanted.kind, wanted.level)
        if known is not None:
            pins.add_loose(known)
            if self._store.blobs.exists(known):
                return known
        while True:
            blob = self._compressed.make(diff_id, layer.blob, wanted.kind, wanted.level)
            pins.add_loose(blob)
            # Another export that made the same may just have been over, and let go of it.
            if self._store.blobs.exists(blob):
                return blob


def layer_type(kind: str, *, oci: bool) -> str:
    """Return the media type of a layer; Docker's know nothing of zstd."""
    if oci or kind == ZSTD:
        return OCI_LAYER + {PLAIN: "", GZIP: "+gzip", ZSTD: "+zstd"}[kind]
    return DOCKER_LAYER + (".gzip" if kind == GZIP else "")


def _kind(media_type: str) -> str:
    """Name the compression of a layer's blob; one that registries do not take is its own name."""
    for kind in (GZIP, ZSTD, "bzip2", "xz"):
        if media_type.endswith(kind):
            return kind
    return PLAIN


def _is_other(present: str, wanted: Compression) -> bool:
    """Tell whether a blob must be written in another form. What came compressed stays as it came,
    unless that is forced; a level alone makes nothing anew.
    """
    if present not in (PLAIN, GZIP, ZSTD):
        return True
    if present == wanted.kind:
        return wanted.force and wanted.level is not None
    return wanted.force or present == PLAIN
