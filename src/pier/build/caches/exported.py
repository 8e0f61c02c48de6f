"""A build's cache on its way elsewhere: the steps that led to its images, and their layers.

`mode=min` takes the steps of the image itself, `mode=max` those of all stages that were built.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from pier.build.attest.statement import pretty
from pier.build.cache import BuildCache
from pier.build.caches import document
from pier.build.caches.document import CachedLayer, CachedStep
from pier.build.caches.places import Place
from pier.build.export.attributes import Compression
from pier.build.export.layers import LayerExports
from pier.build.progress import Work
from pier.errors import NotFound
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.digest import digest_of
from pier.model.oci import OCI_INDEX, OCI_MANIFEST, Descriptor


class Gathered(Struct, frozen=True):
    """What a cache is made of: parents come before what stands on them."""

    steps: Sequence[CachedStep]
    layers: Sequence[CachedLayer]


class CacheExports:
    def __init__(self, store: ImageStore, cache: BuildCache, layers: LayerExports) -> None:
        self._store = store
        self._cache = cache
        self._layers = layers

    async def gather(
        self, images: Sequence[Image], compression: Compression, pins: Pins
    ) -> Gathered:
        """Find the steps that led to images; their layers get the form that is wanted, and pinned.

        Raises NotFound, OSError.
        """
        steps: dict[str, CachedStep] = {}
        results: dict[str, Image] = {}
        for image in images:
            self._follow(image, steps, results)
        layers: dict[str, CachedLayer] = {}
        for image in results.values():
            if image.chain_ids and image.chain_ids[-1] in layers:
                continue
            exported = await self._layers.of(image, compression, oci=True, pins=pins)
            below = ""
            for chain_id, one in zip(image.chain_ids, exported, strict=True):
                part = one.descriptor
                layers.setdefault(
                    chain_id,
                    CachedLayer(
                        *(chain_id, below, one.diff_id, part.digest, part.mediaType),
                        size=part.size,
                        created=image.config.created,
                    ),
                )
                below = chain_id
        return Gathered([*steps.values()], [*layers.values()])

    def _follow(self, image: Image, steps: dict[str, CachedStep], results: dict[str, Image]) -> str:
        """Add the step that made an image, after those before it; return its key, "" for none."""
        records = self._cache.steps_to(image.id)
        parent = ""
        for record in records:
            if record.key in steps:
                continue
            below: Image | None = None
            if record.parent:
                try:
                    below = self._store.get(record.parent)
                except NotFound:
                    continue  # what it stands on has gone: nobody could find it
            if below is not None:
                parent = self._follow(below, steps, results)
            config = self._store.blobs.read(image.id)
            created = image.config.created
            steps[record.key] = CachedStep(record.key, parent, config, created, [*image.chain_ids])
            results[image.id] = image
        return records[0].key if records else ""


def inline(gathered: Gathered) -> bytes:
    """Return what is put into an image's config."""
    return document.encode(gathered.steps, gathered.layers, notes=True)


async def write_cache(
    gathered: Gathered, place: Place, attributes: Mapping[str, str], work: Work
) -> Descriptor:
    """Bring a cache to a place; return what describes it. Raises PierError, OSError."""
    config = document.encode(gathered.steps, gathered.layers, notes=False)
    described = Descriptor(document.CACHE_CONFIG, digest_of(config), len(config))
    parts: dict[str, Descriptor] = {}
    for layer in gathered.layers:
        notes = {document.CREATED_AT: layer.created, document.DIFF_ID: layer.diff_id}
        part = Descriptor(layer.media_type, layer.blob, layer.size, annotations=notes)
        if layer.blob not in parts:
            with work.part(f"writing layer {layer.blob}"):
                await place.put_layer(layer.diff_id, part)
            parts[layer.blob] = part
    with work.part(f"writing config {described.digest}"):
        await place.put_small(config)
    listed = [parts[blob] for blob in sorted(parts)]
    fields: dict[str, Any]
    if attributes.get("image-manifest", "true") in ("false", "0"):
        media_type, what = OCI_INDEX, "cache manifest"
        fields = {"manifests": [*listed, described]}
    else:
        media_type, what = OCI_MANIFEST, "cache image manifest"
        fields = {"config": described, "layers": listed}
    data = pretty({"schemaVersion": 2, "mediaType": media_type, **fields})
    with work.part(f"writing {what} {digest_of(data)}"):
        await place.put_top(media_type, data)
    return Descriptor(media_type, digest_of(data), len(data))
