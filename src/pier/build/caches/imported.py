"""A cache that was found elsewhere, at work: steps by their keys, layers fetched when one is taken.

Out of a cache document, or out of an image: one that carries a document inside (inline), or any
other by its history, whose words must be those of the steps so far. The latter is less than a key:
it knows nothing of what RUN mounts, so those steps are not taken from there.

A cache is never why a build fails: what cannot be had is made.
"""

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pier.build.caches import document
from pier.build.caches.places import Place, is_index
from pier.build.threads import finished
from pier.errors import InvalidParameter, PierError
from pier.images.commit import encode_config
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource
from pier.images.store import ImageStore, Pins
from pier.images.stored import StoredBlob
from pier.model.digest import Digest, digest_of, parse_digest
from pier.model.oci import (
    CONFIGS,
    MAX_CONFIG,
    Descriptor,
    ImageConfig,
    Manifest,
    RootFS,
    chain_ids,
    decode_config,
    decode_index,
    decode_manifest,
)
from pier.model.platform import Platform, rank
from pier.storage.tar.errors import TarError

log = logging.getLogger(__name__)

_MAX_DOCUMENT = 64 << 20


class Wanted(Struct, frozen=True):
    """A step that is looked for: `words` are its history's. `by_words` allows to go by those."""

    key: str
    parent: Image | None
    words: str
    config: object
    author: str
    by_words: bool


class ImportedCache:
    """`steps` are configs by key, `blobs` the layers by diff ID, `image` one to go by words."""

    def __init__(
        self,
        place: Place,
        store: ImageStore,
        executor: Executor,
        *,
        steps: Mapping[str, bytes],
        blobs: Mapping[str, Descriptor],
        image: ImageConfig | None = None,
    ) -> None:
        self._place = place
        self._store = store
        self._executor = executor
        self._steps = steps
        self._blobs = blobs
        self._image = image
        self._fetching = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._steps)

    async def find(self, wanted: Wanted, pins: Pins) -> Image | None:
        """Return the image that a step came to there, put into the store; None for none."""
        config = self._steps.get(wanted.key)
        if config is None and wanted.by_words and self._image is not None:
            config = _by_words(self._image, wanted)
        if config is None:
            return None
        try:
            async with self._fetching:
                return await self.take(config, wanted.parent, pins)
        except (PierError, OSError, TarError) as exc:
            log.warning("build cache: a step was not taken over: %s", exc)
            return None

    async def take(self, config: bytes, parent: Image | None, pins: Pins) -> Image | None:
        """Put the image of a config into the store, on its parent; None where layers are lacking.

        Raises PierError, OSError, TarError.
        """
        decoded = decode_config(config)
        chain = chain_ids(decoded.rootfs.diff_ids)
        below = parent.chain_ids if parent else ()
        if tuple(chain[: len(below)]) != below:
            return None
        pins.add(digest_of(config), *chain)
        sources = []
        for chain_id, diff_id in zip(chain, decoded.rootfs.diff_ids, strict=True):
            layer = self._store.layers.get(chain_id)
            if layer is not None:
                pins.add(layer.blob)
                sources.append(LayerSource(layer.blob, layer.media_type))
                continue
            descriptor = self._blobs.get(diff_id)
            if descriptor is None:
                return None
            await self._fetch(descriptor, pins)
            sources.append(LayerSource(Digest(descriptor.digest), descriptor.mediaType))
        return await finished(
            self._executor, partial(self._register, config, sources, chain, parent)
        )

    async def _fetch(self, descriptor: Descriptor, pins: Pins) -> None:
        """Bring a layer's blob into the store."""
        digest = Digest(descriptor.digest)
        pins.add(digest)
        if self._store.blobs.exists(digest):
            return
        with self._store.blobs.ingest() as writer:
            async for piece in self._place.blob(digest):
                await finished(self._executor, partial(writer.write, piece))
            await finished(self._executor, partial(writer.commit, digest))

    def _register(
        self,
        config: bytes,
        sources: Sequence[LayerSource],
        chain: Sequence[Digest],
        parent: Image | None,
    ) -> Image:
        with Intake(self._store) as intake:
            for source, chain_id in zip(sources, chain, strict=True):
                if self._store.layers.get(chain_id) is None:
                    intake.receive(StoredBlob(self._store.blobs, source.blob))
            return intake.register(
                intake.add([config]), sources, parent=parent.id if parent else ""
            )


async def read_cache(
    place: Place, store: ImageStore, executor: Executor, platform: Platform
) -> ImportedCache:
    """Read what a place has: a cache, or an image for a platform.

    Raises PierError, OSError: NotFound, InvalidParameter for what is neither.
    """
    media_type, data = await place.manifest()
    if is_index(media_type, data):
        entries = decode_index(data).manifests
        own = [e for e in entries if e.mediaType == document.CACHE_CONFIG]
        if own:
            layers = [e for e in entries if e.mediaType != document.CACHE_CONFIG]
            return await _of_document(place, store, executor, own[0], layers)
        chosen = min(
            (e for e in entries if e.platform and rank(e.platform, platform) is not None),
            key=lambda e: rank(e.platform or platform, platform) or 0,
            default=None,
        )
        if chosen is None:
            raise InvalidParameter(f"no match for platform {platform} in manifest")
        _, data = await place.manifest(chosen.digest)
    manifest = decode_manifest(data)
    if manifest.config.mediaType == document.CACHE_CONFIG:
        return await _of_document(place, store, executor, manifest.config, manifest.layers)
    if manifest.config.mediaType not in CONFIGS:
        raise InvalidParameter(f"{manifest.config.mediaType} is no build cache, and no image")
    return await _of_image(place, store, executor, manifest)


async def _of_document(
    place: Place,
    store: ImageStore,
    executor: Executor,
    config: Descriptor,
    layers: Sequence[Descriptor],
) -> ImportedCache:
    data = await place.small(config.digest, _MAX_DOCUMENT)
    _verify(data, config.digest)
    _, steps = document.decode(data)
    blobs = {}
    for layer in layers:
        if diff_id := layer.annotations.get(document.DIFF_ID, ""):
            blobs[diff_id] = layer
    return ImportedCache(place, store, executor, steps=steps, blobs=blobs)


def layers_of(
    place: Place, store: ImageStore, executor: Executor, config: bytes, manifest: Manifest
) -> ImportedCache:
    """Return a cache that has no step, and the layers of one image."""
    diff_ids = decode_config(config).rootfs.diff_ids
    blobs = dict(zip(diff_ids, manifest.layers, strict=False))
    return ImportedCache(place, store, executor, steps={}, blobs=blobs)


async def _of_image(
    place: Place, store: ImageStore, executor: Executor, manifest: Manifest
) -> ImportedCache:
    data = await place.small(manifest.config.digest, MAX_CONFIG)
    _verify(data, manifest.config.digest)
    config = decode_config(data)
    blobs = dict(zip(config.rootfs.diff_ids, manifest.layers, strict=False))
    steps: Mapping[str, bytes] = {}
    inside = msgspec.json.decode(data, type=dict[str, object]).get(document.INLINE_FIELD)
    if isinstance(inside, str):
        _, steps = document.decode(base64.b64decode(inside))
    by_words = None if steps else config
    return ImportedCache(place, store, executor, steps=steps, blobs=blobs, image=by_words)


def _verify(data: bytes, digest: str) -> None:
    if digest_of(data) != parse_digest(digest):
        raise InvalidParameter(f"content verification failed for digest {digest}")


def _by_words(image: ImageConfig, wanted: Wanted) -> bytes | None:
    """Return the config of a step's result, when an image's history goes on from the parent's with it."""
    before = wanted.parent.config.history if wanted.parent else []
    below = list(wanted.parent.config.rootfs.diff_ids) if wanted.parent else []
    words = [step.created_by for step in image.history[: len(before) + 1]]
    if words != [*(step.created_by for step in before), wanted.words]:
        return None
    step = image.history[len(before)]
    end = len(below) + (not step.empty_layer)
    diff_ids = image.rootfs.diff_ids[:end]
    if diff_ids[: len(below)] != below or len(diff_ids) < end:
        return None
    base = wanted.parent.config if wanted.parent else replace(image, history=[], author="")
    made = replace(
        base,
        created=step.created,
        author=wanted.author or base.author,
        comment="",
        config=wanted.config,
        rootfs=RootFS(diff_ids=diff_ids),
        history=[*before, step],
        docker_version="",
        parent="",
    )
    return encode_config(made)
