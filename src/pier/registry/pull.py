"""A pull: from a name to an image in the store.

    HEAD the tag → known? done
    GET the manifest (or the index, and of it the platform's) → GET the config
    each layer that is missing:  download ──▶ partial file ──▶ unpack follows it ──▶ staged
    in order, as they are ready:                                        staged ──▶ chain ID
    one transaction: rows of layers, image, names

Layers come in at once, as many as `max-concurrent-downloads` says, and are unpacked while they come
in. A pull that fails or is cancelled leaves no layer and no image; the bytes it got stay in
partial/, so that the next one goes on from there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType

from msgspec import Struct

from pier.errors import Internal, InvalidParameter, NotFound, PierError
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource
from pier.images.store import ImageStore
from pier.images.stored import StoredBlob
from pier.model.digest import Digest, algorithm_of, finish, new_hash, short
from pier.model.oci import MAX_CONFIG, ImageConfig, Manifest, chain_ids, decode_config, decode_index
from pier.model.platform import Platform, rank
from pier.model.reference import Reference
from pier.registry.choice import choose, image_manifest, suited
from pier.registry.client import Link, Registries
from pier.registry.credentials import Credentials
from pier.registry.download import StaleDownload, download
from pier.registry.errors import DiskTrouble, Refused, RegistryError, translate_pull
from pier.registry.progress import Progress
from pier.registry.repository import RemoteManifest, Repository
from pier.registry.sources import Source, Sources
from pier.storage.blobs import Blobs
from pier.storage.partial import PartialBlob, Partials
from pier.storage.tar.errors import TarError

MISMATCH = "layers from manifest don't match image configuration"


class Pulled(Struct, frozen=True):
    """One reference that was pulled; `changed` tells whether anything is new."""

    reference: Reference
    image: Image
    changed: bool


class Puller:
    """Pulls into one store; any number of pulls at once. To be used on the loop."""

    def __init__(
        self, store: ImageStore, registries: Registries, partials: Partials, sources: Sources
    ) -> None:
        self._store = store
        self._registries = registries
        self._partials = partials
        self._sources = sources
        # Who waits for or has the download of a digest: (lock, how many).
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def pull(
        self,
        reference: Reference,
        who: Credentials,
        progress: Progress,
        *,
        platform: Platform | None = None,
    ) -> list[Pulled]:
        """Pull a tag or digest, or every tag when the reference has neither.

        Raises PierError in Docker's words. What was pulled before a failure stays.
        """

        async def work(link: Link) -> list[Pulled]:
            repository = Repository(link, reference.path)
            if reference.tag or reference.digest:
                return [await self._pull_one(repository, reference, progress, platform)]
            done = []
            for tag in await repository.tags():
                one = reference.with_tag(tag)
                done.append(await self._pull_one(repository, one, progress, platform))
            return done

        try:
            done = await self._registries.reach(reference.domain, who, work, pull=True)
        except PierError as exc:
            raise translate_pull(exc, reference) from exc
        shown = reference.familiar
        if any(pulled.changed for pulled in done):
            progress.message(f"Status: Downloaded newer image for {shown}")
        else:
            progress.message(f"Status: Image is up to date for {shown}")
        for pulled in done:
            offered = pulled.image.config.platform
            if platform is not None and rank(offered, platform) is None:
                progress.message(
                    f"WARNING: image with reference {shown} was found but its platform ({offered}) "
                    f"does not match the specified platform ({platform})"
                )
        return done

    async def _pull_one(
        self,
        repository: Repository,
        reference: Reference,
        progress: Progress,
        platform: Platform | None,
    ) -> Pulled:
        what = reference.digest or reference.tag
        digest: Digest | None = None
        try:
            digest, _, _ = await repository.resolve(what)
        except Refused as exc:
            # An answer to HEAD has no words: those of GET are told.
            if exc.status not in (400, 403, 404, 405, 429) and exc.status < 500:
                raise
        if digest and (known := self._up_to_date(reference, digest, platform)):
            progress.message(f"Pulling from {reference.path}", what)
            progress.message(f"Digest: {digest}")
            return Pulled(reference, known, changed=False)
        top = await repository.manifest(digest or what)
        progress.message(f"Pulling from {reference.path}", what)
        manifest = await choose(repository, top, reference, platform)
        image, changed = await self._fetch(repository, reference, top, manifest, progress)
        progress.message(f"Digest: {top.digest}")
        return Pulled(reference, image, changed)

    def _up_to_date(
        self, reference: Reference, digest: Digest, platform: Platform | None
    ) -> Image | None:
        """Return the image of a name when it is what the registry has under it."""
        by_name = self._store.owner_of(reference)
        by_digest = self._store.owner_of(_canonical(reference, digest))
        if by_name is None or by_digest is None or by_name.id != by_digest.id:
            return None
        if platform is None:
            return by_name
        for image in self._store.platforms_of(by_name):
            if image.index == digest and image.manifest:
                index = _index(self._store.blobs, digest)
                if index is not None and _chosen(index, platform) == image.manifest:
                    return image
        return by_name if by_name.manifest == digest else None

    async def _fetch(
        self,
        repository: Repository,
        reference: Reference,
        top: RemoteManifest,
        manifest: RemoteManifest,
        progress: Progress,
    ) -> tuple[Image, bool]:
        """Get an image's content and register it; tell whether its name is new to it."""
        decoded = image_manifest(manifest)
        data, config = await self._config(repository, decoded)
        before = self._store.owner_of(reference)
        names = {str(r): r for r in (reference, _canonical(reference, top.digest))}
        for last in (False, True):
            try:
                image = await self._take_in(
                    _Wanted(decoded, data, config, manifest, top, tuple(names.values())),
                    repository,
                    progress,
                )
                break
            except StaleDownload:
                if last:
                    raise
        else:
            raise AssertionError
        self._sources.add(
            Source(diff_id, reference.name, Digest(d.digest), d.size, d.mediaType)
            for diff_id, d in zip(config.rootfs.diff_ids, decoded.layers, strict=True)
        )
        return image, before is None or before.id != image.id

    async def _config(
        self, repository: Repository, manifest: Manifest
    ) -> tuple[bytes, ImageConfig]:
        """Get an image's config and check it. Raises RegistryError, InvalidParameter."""
        digest = Digest(manifest.config.digest)
        if algorithm_of(digest) != "sha256":
            raise RegistryError(f"unsupported digest algorithm of the image config: {digest}")
        if self._store.blobs.exists(digest):
            data = self._store.blobs.read(digest)
        else:
            data = await repository.small_blob(digest, MAX_CONFIG)
        hasher = new_hash(algorithm_of(digest))
        hasher.update(data)
        if finish(algorithm_of(digest), hasher) != digest:
            raise RegistryError(f"image config verification failed for digest {digest}")
        config = decode_config(data)
        if config.platform.os != "linux":
            raise RegistryError(
                f'cannot download image with operating system "{config.platform.os}" '
                'when requesting "linux"'
            )
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise RegistryError(MISMATCH)
        return data, config

    async def _take_in(
        self, wanted: "_Wanted", repository: Repository, progress: Progress
    ) -> Image:
        async with AsyncExitStack() as stack:
            layers = wanted.manifest.layers
            chain = chain_ids(wanted.config.rootfs.diff_ids)
            workers = self._registries.settings.max_downloads
            intake = Intake(self._store, workers=workers)
            blobs: dict[str, PartialBlob] = {}
            stack.push_async_exit(partial(_close, intake, blobs))
            intake.hold(*chain, *(d.digest for d in layers), wanted.config_digest)
            missing = self._missing(wanted, chain)
            known_image = wanted.config_digest in self._store
            await stack.enter_async_context(self._exclusive(sorted(missing)))
            missing = self._missing(wanted, chain)
            for descriptor in layers:
                action = "Pulling fs layer" if descriptor.digest in missing else "Already exists"
                if missing or not known_image:
                    progress.update(short(descriptor.digest), action)
            for digest, size in missing.items():
                if self._store.blobs.exists(digest):
                    self._partials.forget(digest)
                    intake.receive(StoredBlob(self._store.blobs, digest))
                    progress.update(short(digest), "Download complete")
                    continue
                blob = self._partials.open(digest, size)
                blob.told = _extracting(blob, progress)
                blobs[digest] = blob
                intake.receive(blob)
            intake.add([wanted.config_data])
            intake.add([wanted.chosen.data])
            if wanted.index is not None:
                intake.add([wanted.index.data])
            complete = all(
                Digest(d.digest) in intake or self._store.blobs.exists(Digest(d.digest))
                for d in layers
            )

            def register() -> Image:
                return intake.register(
                    wanted.config_digest,
                    [LayerSource(Digest(d.digest), d.mediaType) for d in layers],
                    references=wanted.references,
                    manifest=wanted.chosen.digest if complete else None,
                    index=wanted.index.digest if wanted.index is not None else None,
                    placed=lambda number: _placed(layers[number].digest, missing, progress),
                )

            registering = asyncio.ensure_future(asyncio.to_thread(register))
            stack.push_async_callback(_settle, registering, blobs)
            await self._download(repository, blobs, progress)
            image = await self._registered(registering, blobs)
            for blob in blobs.values():
                blob.spare()  # what came here by another way meanwhile keeps that file
            return image

    async def _registered(
        self, registering: "asyncio.Future[Image]", blobs: dict[str, PartialBlob]
    ) -> Image:
        """Wait for the image; what its layers turned out to be is told in Docker's words."""
        try:
            return await asyncio.shield(registering)
        except TarError as exc:
            raise Internal(f"failed to register layer: {exc.message}") from exc
        except InvalidParameter as exc:
            raise Internal(MISMATCH if "diffID" in exc.message else exc.message) from exc
        except OSError as exc:
            for blob in blobs.values():
                blob.throw_away()  # a full disk needs the space, a broken one is not trusted
            text = (exc.strerror or str(exc)).lower()
            raise DiskTrouble(
                f"failed to register layer: write {self._store.root.path}: {text}"
            ) from exc

    def _missing(self, wanted: "_Wanted", chain: Sequence[Digest]) -> dict[Digest, int]:
        """Return the digests and sizes of the layers that have to be unpacked, lowest first."""
        return {
            Digest(d.digest): d.size
            for d, chain_id in zip(wanted.manifest.layers, chain, strict=True)
            if self._store.layers.get(chain_id) is None
        }

    async def _download(
        self, repository: Repository, blobs: dict[str, PartialBlob], progress: Progress
    ) -> None:
        """Download all, a few at a time. Raises the first failure, after the others were ended."""
        attempts = self._registries.settings.max_attempts
        slots = self._registries.downloads

        async def one(blob: PartialBlob) -> None:
            id_ = short(blob.digest)
            if slots.locked():
                progress.update(id_, "Waiting")
            async with slots:
                await download(repository, blob, id_, progress, attempts=attempts)

        try:
            async with asyncio.TaskGroup() as group:
                for blob in blobs.values():
                    group.create_task(one(blob))
        except BaseExceptionGroup as exc:
            raise first_of(exc) from None

    @asynccontextmanager
    async def _exclusive(self, digests: Sequence[str]) -> AsyncIterator[None]:
        """Be the only pull that downloads these; the same order for all keeps them from deadlock."""
        async with AsyncExitStack() as stack:
            for digest in digests:
                lock, users = self._locks.get(digest, (asyncio.Lock(), 0))
                self._locks[digest] = lock, users + 1
                stack.callback(self._leave, digest)
                await stack.enter_async_context(lock)
            yield

    def _leave(self, digest: str) -> None:
        lock, users = self._locks.pop(digest)
        if users > 1:
            self._locks[digest] = lock, users - 1


class _Wanted(Struct, frozen=True):
    """What `_take_in` makes an image of."""

    manifest: Manifest
    config_data: bytes
    config: ImageConfig
    chosen: RemoteManifest
    top: RemoteManifest
    references: tuple[Reference, ...]

    @property
    def config_digest(self) -> Digest:
        return Digest(self.manifest.config.digest)

    @property
    def index(self) -> RemoteManifest | None:
        return self.top if self.top.digest != self.chosen.digest else None


def _canonical(reference: Reference, digest: str) -> Reference:
    return Reference(reference.domain, reference.path, "", digest)


def _index(blobs: Blobs, digest: Digest) -> bytes | None:
    try:
        return blobs.read(digest)
    except NotFound:
        return None


def _chosen(index: bytes, platform: Platform) -> str:
    try:
        return suited(decode_index(index), platform).digest
    except PierError:
        return ""


def _extracting(blob: PartialBlob, progress: Progress) -> Callable[[int], None]:
    def told(at: int) -> None:
        if blob.is_verified:
            progress.bar(short(blob.digest), "Extracting", at, blob.size)

    return told


def _placed(digest: str, missing: dict[Digest, int], progress: Progress) -> None:
    if digest in missing:
        progress.update(short(digest), "Pull complete")


async def _settle(registering: "asyncio.Future[Image]", blobs: dict[str, PartialBlob]) -> None:
    """Wait for the thread that registers, which must not wait for downloads that are over."""
    for blob in blobs.values():
        blob.fail(Internal("context canceled"))
    await asyncio.wait([registering])
    registering.exception()  # looked at; what matters was raised


async def _close(
    intake: Intake,
    blobs: dict[str, PartialBlob],
    _kind: type[BaseException] | None,
    value: BaseException | None,
    _trace: TracebackType | None,
) -> None:
    """End the intake. The layers that are done wait for the next try, but not on a full disk."""
    for blob in blobs.values():
        blob.fail(Internal("context canceled"))
    failure = value if isinstance(value, DiskTrouble) else None
    await asyncio.to_thread(intake.__exit__, None, failure, None)


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first failure of a group, however deep."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
