"""Caches elsewhere, for a build: opened before its steps ask, written when it is over."""

from collections.abc import Sequence
from concurrent.futures import Executor

import msgspec

from pier.build.cache import BuildCache
from pier.build.caches.entry import CacheEntry, check_export, check_import
from pier.build.caches.exported import CacheExports, inline, write_cache
from pier.build.caches.imported import ImportedCache, read_cache
from pier.build.caches.places import DirectoryPlace, Lender, Place, RegistryPlace
from pier.build.export.attributes import parse_compression, parse_flag
from pier.build.export.exporter import Receiver, credentials_of
from pier.build.export.layers import LayerExports
from pier.build.progress import Progress, Work, working
from pier.build.threads import finished
from pier.errors import PierError
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.oci import Descriptor
from pier.model.platform import Platform
from pier.model.reference import parse_reference
from pier.registry.client import Link, Registries
from pier.registry.progress import Progress as Lines
from pier.registry.repository import Repository
from pier.registry.sources import Sources
from pier.registry.upload import Uploader


class RemoteCaches:
    """To be used on the loop."""

    def __init__(
        self,
        store: ImageStore,
        cache: BuildCache,
        layers: LayerExports,
        registries: Registries,
        sources: Sources,
        executor: Executor,
    ) -> None:
        self._store = store
        self._exports = CacheExports(store, cache, layers)
        self._registries = registries
        self._sources = sources
        self._executor = executor

    async def read(
        self,
        entries: Sequence[CacheEntry],
        receiver: Receiver | None,
        platform: Platform,
        progress: Progress,
    ) -> list[ImportedCache]:
        """Open caches; one that cannot be had is told of, and passed over.

        Raises InvalidParameter for one that is no cache's name.
        """
        for entry in entries:
            check_import(entry)
        found = []
        for entry in entries:
            name = entry.attributes.get("ref") or entry.attributes.get("src", "")
            try:
                with working(progress, f"importing cache manifest from {name}"):
                    place = await self._place(entry, receiver)
                    found.append(await read_cache(place, self._store, self._executor, platform))
            except (PierError, OSError):
                continue  # the vertex says why
        return found

    async def write(
        self,
        entries: Sequence[CacheEntry],
        images: Sequence[Image],
        stages: Sequence[Image],
        receiver: Receiver | None,
        progress: Progress,
    ) -> dict[str, str]:
        """Write the build's cache: `images` are its results, `stages` all that was built.

        Returns keys of BuildKit's answer: `cache.manifest`, the descriptor of what was written.
        Raises PierError, OSError, unless an entry says `ignore-error=true`.
        """
        answer: dict[str, str] = {}
        for entry in entries:
            if entry.type == "inline":
                continue
            where = "registry" if entry.type == "registry" else "client directory"
            try:
                with working(progress, f"exporting cache to {where}") as work:
                    tips = [*stages, *images] if entry.is_max else images
                    top = await self._write(entry, tips, receiver, work)
                    answer["cache.manifest"] = msgspec.json.encode(top).decode()
            except (PierError, OSError):
                if not parse_flag("ignore-error", entry.attributes.get("ignore-error", "false")):
                    raise
        return answer

    async def inline(self, images: Sequence[Image], pins: Pins) -> bytes:
        """Return what an image carries of its own cache; outputs find its layers compressed so."""
        return inline(await self._exports.gather(images, parse_compression({}), pins))

    async def _write(
        self, entry: CacheEntry, tips: Sequence[Image], receiver: Receiver | None, work: Work
    ) -> Descriptor:
        with self._store.pinned() as pins:
            with work.part("preparing build cache for export"):
                compression = parse_compression(entry.attributes)
                gathered = await self._exports.gather(tips, compression, pins)
            try:
                place = await self._place(entry, receiver, write=True)
                return await write_cache(gathered, place, entry.attributes, work)
            finally:
                # Here, for that deletes files.
                await finished(self._executor, pins.release)

    async def _place(
        self, entry: CacheEntry, receiver: Receiver | None, *, write: bool = False
    ) -> Place:
        attributes = entry.attributes
        if entry.type == "local":
            path = attributes["dest" if write else "src"]
            client: object = receiver
            if isinstance(client, Lender):
                top = "" if write else attributes.get("digest", "")
                return client.cache_place(path, top, self._store.blobs)
            return DirectoryPlace(path, attributes.get("tag") or "latest", self._store.blobs)
        reference = parse_reference(attributes["ref"])
        what = reference.digest or reference.tagged().tag
        insecure = parse_flag("registry.insecure", attributes.get("registry.insecure", "false"))

        async def reached(link: Link) -> Place:
            repository = Repository(link, reference.path)
            if not write:
                await repository.resolve(what)
                return RegistryPlace(repository, what)
            uploader = Uploader(
                *(repository, reference.name, self._store.blobs, self._sources),
                Lines(lambda _: None),
            )
            return RegistryPlace(repository, what, uploader)

        who = await credentials_of(receiver, reference.domain)
        return await self._registries.reach(
            reference.domain, who, reached, pull=not write, insecure=insecure
        )


def check_entries(imports: Sequence[CacheEntry], exports: Sequence[CacheEntry]) -> None:
    """Raise InvalidParameter for caches that cannot be read or written."""
    for entry in imports:
        check_import(entry)
    for entry in exports:
        check_export(entry)
        parse_compression(entry.attributes)
