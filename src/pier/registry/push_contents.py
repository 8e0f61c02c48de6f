"""A push of documents as they are: an index with all that it names, or one manifest, byte for byte.

layers, a few at a time → configs and statements → manifests by digest → the top by its tag
"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct

from pier.model.digest import Digest, short
from pier.model.oci import (
    INDEXES,
    Descriptor,
    decode_index,
    decode_manifest,
)
from pier.model.reference import Reference
from pier.registry.client import Link, Registries
from pier.registry.credentials import Credentials
from pier.registry.progress import Progress
from pier.registry.pull import first_of
from pier.registry.repository import Repository
from pier.registry.sources import Sources
from pier.registry.upload import LocalLayer, Uploader
from pier.storage.blobs import Blobs


class Contents(Struct, frozen=True):
    """`documents` are the small ones by digest; layers are blobs of the store.

    `diff_ids` are those of layers' blobs, where they are known: by them it is remembered which
    repository has which layer.
    """

    top: Descriptor
    documents: Mapping[Digest, bytes]
    diff_ids: Mapping[str, str]


class ContentPusher:
    """To be used on the loop; any number of pushes at once."""

    def __init__(self, blobs: Blobs, registries: Registries, sources: Sources) -> None:
        self._blobs = blobs
        self._registries = registries
        self._sources = sources

    async def push(
        self,
        reference: Reference,
        contents: Contents,
        who: Credentials,
        progress: Progress,
        *,
        by_digest: bool = False,
        insecure: bool = False,
    ) -> None:
        """Push under a tag, or without a name. What it needs must be pinned. Raises PierError.

        `insecure` allows plain HTTP and certificates that do not verify, this time.
        """

        async def work(link: Link) -> None:
            repository = Repository(link, reference.path)
            await self.send(repository, reference, contents, progress, by_digest=by_digest)

        await self._registries.reach(reference.domain, who, work, pull=False, insecure=insecure)

    async def send(
        self,
        repository: Repository,
        reference: Reference,
        contents: Contents,
        progress: Progress,
        *,
        by_digest: bool = False,
    ) -> None:
        """As `push`, to a repository that was reached."""
        uploader = Uploader(repository, reference.name, self._blobs, self._sources, progress)
        manifests, layers, small = self._sorted(contents)
        await self._send_layers(uploader, repository, layers, contents, progress)
        for digest in small:
            await uploader.small(digest, contents.documents[digest])
        for descriptor in manifests:
            digest = Digest(descriptor.digest)
            is_top = digest == contents.top.digest
            name = reference.tag if is_top and not by_digest and reference.tag else digest
            await repository.put_manifest(name, descriptor.mediaType, contents.documents[digest])

    def _sorted(
        self, contents: Contents
    ) -> tuple[Sequence[Descriptor], Sequence[Descriptor], Sequence[Digest]]:
        """Return manifests, those that others name first; layers in the store; other documents."""
        manifests: dict[str, Descriptor] = {}
        layers: dict[str, Descriptor] = {}
        small: dict[Digest, None] = {}
        below = [contents.top]
        if contents.top.mediaType in INDEXES:
            index = decode_index(contents.documents[Digest(contents.top.digest)])
            below = [*index.manifests]
        for descriptor in below:
            manifest = decode_manifest(contents.documents[Digest(descriptor.digest)])
            for part in (manifest.config, *manifest.layers):
                if Digest(part.digest) in contents.documents:
                    small[Digest(part.digest)] = None
                else:
                    layers[part.digest] = part
            manifests[descriptor.digest] = descriptor
        manifests.setdefault(contents.top.digest, contents.top)
        return [*manifests.values()], [*layers.values()], [*small]

    async def _send_layers(
        self,
        uploader: Uploader,
        repository: Repository,
        layers: Sequence[Descriptor],
        contents: Contents,
        progress: Progress,
    ) -> None:
        slots = repository.link.registries.uploads

        async def one(layer: Descriptor) -> None:
            diff_id = contents.diff_ids.get(layer.digest, layer.digest)
            if slots.locked():
                progress.update(short(diff_id), "Waiting")
            async with slots:
                await uploader.exact(
                    LocalLayer(diff_id, Digest(layer.digest), layer.mediaType, layer.size)
                )

        try:
            async with asyncio.TaskGroup() as group:
                for layer in layers:
                    group.create_task(one(layer))
        except BaseExceptionGroup as exc:
            raise first_of(exc) from None
