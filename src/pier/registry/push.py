"""A push: the layers of an image, its config and its manifest to a registry.

An index all of which is here goes whole (`push_contents.py`). An image that was pulled or loaded
with its manifest goes as it came, byte for byte. Of any other a
manifest is made: Docker's schema 2, or OCI's where a layer is compressed with zstd, which schema 2
does not know.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from msgspec import Struct

from pier.errors import Internal, InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.said_of import is_attestation
from pier.images.store import ImageStore, Pins
from pier.model.digest import Digest, digest_of, short
from pier.model.oci import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    decode_index,
    decode_manifest,
)
from pier.model.platform import Platform
from pier.model.reference import Reference
from pier.registry.client import Link, Registries
from pier.registry.credentials import Credentials
from pier.registry.errors import RegistryError
from pier.registry.progress import Progress
from pier.registry.pull import first_of
from pier.registry.push_contents import ContentPusher, Contents
from pier.registry.repository import Repository
from pier.registry.sources import Sources
from pier.registry.upload import Kept, LocalLayer, Sent, Uploader, gzip_type

log = logging.getLogger(__name__)


class Pushed(Struct, frozen=True):
    """One tag that was pushed."""

    reference: Reference
    image: Image
    digest: Digest


class _Outgoing(Struct, frozen=True):
    """A manifest ready to go."""

    media_type: str
    data: bytes


class Pusher:
    """Pushes out of one store; any number of pushes at once. To be used on the loop."""

    def __init__(self, store: ImageStore, registries: Registries, sources: Sources) -> None:
        self._store = store
        self._registries = registries
        self._sources = sources

    async def push(
        self,
        reference: Reference,
        who: Credentials,
        progress: Progress,
        *,
        platform: Platform | None = None,
    ) -> list[Pushed]:
        """Push a tag, or every tag of the repository when the reference has none.

        Raises PierError in Docker's words.
        """
        progress.message(f"The push refers to repository [{reference.name}]")
        images = self._images(reference, platform)

        async def work(link: Link) -> list[Pushed]:
            repository = Repository(link, reference.path)
            done = []
            for named, image in images:
                push = self._push_one
                if platform is None and (whole := self._whole(image)) is not None:
                    push = partial(self._push_whole, whole)
                done.append(await push(repository, named, image, progress))
            return done

        try:
            return await self._registries.reach(reference.domain, who, work, pull=False)
        except RegistryError as exc:
            if exc.bare:
                raise Internal(exc.bare) from exc
            raise

    def _images(
        self, reference: Reference, platform: Platform | None
    ) -> list[tuple[Reference, Image]]:
        """Find what is to be pushed. Raises NotFound in Docker's words."""
        tagged = sorted(
            (named.tag, named)
            for image in self._store.all()
            for named in image.references
            if named.name == reference.name and named.tag
        )
        if not tagged:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_name}"
            )
        if not reference.tag:
            names = [named for _, named in tagged]
        elif any(tag == reference.tag for tag, _ in tagged):
            names = [reference]
        else:
            raise NotFound(f"tag does not exist: {reference.familiar}")
        return [(named, self._store.get(str(named), platform)) for named in names]

    def _whole(self, image: Image) -> Contents | None:
        """Return an image's index with all that it names, None when any of it is not here."""
        if not image.index:
            return None
        blobs = self._store.blobs
        documents: dict[Digest, bytes] = {}
        try:
            digest = Digest(image.index)
            documents[digest] = blobs.read(digest)
            index = decode_index(documents[digest])
            for entry in index.manifests:
                manifest = Digest(entry.digest)
                documents[manifest] = blobs.read(manifest)
                decoded = decode_manifest(documents[manifest])
                small = [decoded.config, *(decoded.layers if is_attestation(entry) else ())]
                for part in small:
                    documents[Digest(part.digest)] = blobs.read(Digest(part.digest))
                if not all(blobs.exists(Digest(layer.digest)) for layer in decoded.layers):
                    return None
        except (NotFound, InvalidParameter):
            return None
        diff_ids = {}
        for one in self._store.platforms_of(image):
            if one.manifest in documents:
                layers = decode_manifest(documents[Digest(one.manifest)]).layers
                known = zip(one.config.rootfs.diff_ids, layers, strict=False)
                diff_ids.update({layer.digest: diff_id for diff_id, layer in known})
        media_type = index.mediaType or OCI_INDEX
        top = Descriptor(media_type, digest, len(documents[digest]))
        return Contents(top, documents, diff_ids)

    async def _push_whole(
        self,
        whole: Contents,
        repository: Repository,
        reference: Reference,
        image: Image,
        progress: Progress,
    ) -> Pushed:
        """Push an index, all of which is here: the image for every platform, with what is said of it."""
        with self._store.pinned() as pins:
            for one in self._store.platforms_of(image):
                pins.add(one.id, *one.chain_ids, *one.blobs)
            sender = ContentPusher(self._store.blobs, self._registries, self._sources)
            await sender.send(repository, reference, whole, progress)
        return self._told(reference, image, Digest(whole.top.digest), whole.top.size, progress)

    async def _push_one(
        self, repository: Repository, reference: Reference, image: Image, progress: Progress
    ) -> Pushed:
        uploader = Uploader(repository, reference.name, self._store.blobs, self._sources, progress)
        try:
            outgoing = await self._send_image(uploader, repository, reference, image, progress)
        finally:
            self._store.root.later(partial(self._keep, uploader.kept))
        digest = digest_of(outgoing.data)
        return self._told(reference, image, digest, len(outgoing.data), progress)

    def _told(
        self, reference: Reference, image: Image, digest: Digest, size: int, progress: Progress
    ) -> Pushed:
        """Note and tell what was pushed."""
        canonical = Reference(reference.domain, reference.path, "", digest)
        if image.id in self._store:
            self._store.add_names(image.id, [canonical])
        progress.message(f"{reference.tag}: digest: {digest} size: {size}")
        progress.aux({"Tag": reference.tag, "Digest": digest, "Size": size})
        return Pushed(reference, image, digest)

    async def _send_image(
        self,
        uploader: Uploader,
        repository: Repository,
        reference: Reference,
        image: Image,
        progress: Progress,
    ) -> _Outgoing:
        """Bring everything there, the manifest last, and return that."""
        with self._store.pinned() as pins:
            pins.add(image.id, *image.chain_ids, *image.blobs)
            kept = self._kept_manifest(image)
            layers = self._layers(image, kept, pins)
            for layer in reversed(layers):
                progress.update(short(layer.diff_id), "Preparing")
            bring = uploader.exact if kept else uploader.layer
            sent = await self._send_layers(bring, layers, progress)
            config = self._store.blobs.read(image.id)
            await uploader.small(image.id, config)
            outgoing = kept or _make_manifest(image.id, len(config), sent)
            await repository.put_manifest(reference.tag, outgoing.media_type, outgoing.data)
            return outgoing

    def _keep(self, kept: list[Kept]) -> None:
        """Keep compressed what was compressed for a push: the next one need not do it again."""
        for one in kept:
            self._store.replace_blob(one.plain, one.writer, one.media_type)

    def _kept_manifest(self, image: Image) -> _Outgoing | None:
        """Return the manifest that the image came with, if all that it names is here."""
        if not image.manifest:
            return None
        blobs = self._store.blobs
        data = blobs.read(Digest(image.manifest))
        manifest = decode_manifest(data)
        if not all(blobs.exists(Digest(d.digest)) for d in manifest.layers):
            return None
        return _Outgoing(manifest.mediaType or _family(manifest), data)

    def _layers(self, image: Image, kept: _Outgoing | None, pins: Pins) -> list[LocalLayer]:
        diff_ids = image.config.rootfs.diff_ids
        if kept is not None:
            manifest = decode_manifest(kept.data)
            return [
                LocalLayer(diff_id, Digest(d.digest), d.mediaType, d.size)
                for diff_id, d in zip(diff_ids, manifest.layers, strict=True)
            ]
        return [
            LocalLayer(layer.diff_id, layer.blob, layer.media_type, layer.size)
            for layer in self._store.hold_layers(pins, image)
        ]

    async def _send_layers(
        self,
        bring: Callable[[LocalLayer], Awaitable[Sent]],
        layers: list[LocalLayer],
        progress: Progress,
    ) -> list[Sent]:
        """Bring all layers there, a few at a time, each once; return what they are called there."""
        slots = self._registries.uploads
        sent: dict[str, Sent] = {}

        async def one(layer: LocalLayer) -> None:
            if slots.locked():
                progress.update(short(layer.diff_id), "Waiting")
            async with slots:
                sent[layer.diff_id] = await bring(layer)

        try:
            async with asyncio.TaskGroup() as group:
                for layer in {layer.diff_id: layer for layer in reversed(layers)}.values():
                    group.create_task(one(layer))
        except BaseExceptionGroup as exc:
            raise first_of(exc) from None
        return [sent[layer.diff_id] for layer in layers]


def _make_manifest(config: Digest, config_size: int, layers: list[Sent]) -> _Outgoing:
    """Write a manifest, indented as Docker does; the same parts always give the same bytes."""
    is_oci = any(layer.media_type.endswith("+zstd") for layer in layers)
    manifest = Manifest(
        mediaType=OCI_MANIFEST if is_oci else DOCKER_MANIFEST,
        config=Descriptor(OCI_CONFIG if is_oci else DOCKER_CONFIG, config, config_size),
        layers=[
            Descriptor(
                layer.media_type
                if layer.media_type.endswith("+zstd")
                else gzip_type(OCI_LAYER if is_oci else DOCKER_LAYER),
                layer.digest,
                layer.size,
            )
            for layer in layers
        ],
    )
    # Written whole: what a struct leaves out because it is the default, a manifest must have.
    fields = {"schemaVersion": 2, **msgspec.to_builtins(manifest)}
    fields.setdefault("layers", [])
    data = msgspec.json.format(msgspec.json.encode(fields), indent=3)
    return _Outgoing(manifest.mediaType, data)


def _family(manifest: Manifest) -> str:
    """Tell the media type of a manifest that does not say it, as OCI's need not."""
    return DOCKER_MANIFEST if manifest.config.mediaType == DOCKER_CONFIG else OCI_MANIFEST
