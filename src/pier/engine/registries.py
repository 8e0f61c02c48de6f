"""Registries as the API speaks of them: pull and push with their events, login, inspect, search.

The work of a pull or push ends with the client that asked for it: whoever closes the iterator of
its lines cancels it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import msgspec

from pier.build.cache import BuildCache
from pier.build.caches.remote import RemoteCaches
from pier.build.export.layers import LayerExports
from pier.engine.images import Images
from pier.engine.services import Services
from pier.model.api_registry import DistributionInspect, LoginAnswer, SearchResult
from pier.model.filters import Filters
from pier.model.platform import Platform
from pier.model.reference import Reference
from pier.registry import fetch, login, search
from pier.registry.client import Registries as Client
from pier.registry.credentials import Credentials
from pier.registry.endpoints import RegistrySettings
from pier.registry.progress import Progress, Tell
from pier.registry.pull import Puller
from pier.registry.push import Pusher
from pier.registry.push_contents import ContentPusher
from pier.registry.sources import Sources
from pier.storage.database import Database
from pier.storage.partial import Partials

Results = Sequence[SearchResult]


class Registries:
    """To be made and closed on the loop."""

    def __init__(self, services: Services, images: Images, database: Database) -> None:
        store = services.images
        self._images = images
        self._client = Client(services.settings.registry_settings())
        sources = Sources(database)
        partials = Partials(store.root, store.blobs)
        self._store, self._sources = store, sources
        self._puller = Puller(store, self._client, partials, sources)
        self._pusher = Pusher(store, self._client, sources)
        self.content_pusher = ContentPusher(store.blobs, self._client, sources)

    def build_caches(
        self, cache: BuildCache, layers: LayerExports, executor: Executor
    ) -> RemoteCaches:
        """Make what reads and writes caches of builds elsewhere."""
        return RemoteCaches(self._store, cache, layers, self._client, self._sources, executor)

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Use other settings from the next request on."""
        self._client.reconfigure(settings)

    async def close(self) -> None:
        await self._client.close()

    def pull(
        self, reference: Reference, who: Credentials, platform: Platform | None
    ) -> AsyncIterator[bytes]:
        """Pull; yields lines of JSON. Raises PierError, before the first line where Docker does."""

        async def work(tell: Tell) -> None:
            progress = Progress(tell)
            done = await self._puller.pull(reference, who, progress, platform=platform)
            for pulled in done:
                self._images.tell_transfer(pulled.image.id, "pull", pulled.reference)

        return relay(work)

    def push(
        self, reference: Reference, who: Credentials, platform: Platform | None
    ) -> AsyncIterator[bytes]:
        """Push a tag, or all; yields lines of JSON. Raises PierError."""

        async def work(tell: Tell) -> None:
            progress = Progress(tell)
            for pushed in await self._pusher.push(reference, who, progress, platform=platform):
                self._images.tell_transfer(pushed.image.id, "push", pushed.reference)

        return relay(work)

    def fetch(self, url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Get a file from a web server, for the time of the block. Raises PierError."""
        return fetch.fetch(self._client, url)

    async def login(self, who: Credentials) -> LoginAnswer:
        """Raises Unauthorized, Internal."""
        return await login.login(self._client, who)

    async def inspect(self, reference: Reference, who: Credentials) -> DistributionInspect:
        """Raises PierError."""
        return await login.inspect(self._client, reference.tagged(), who)

    async def search(self, term: str, who: Credentials, *, limit: int, filters: Filters) -> Results:
        """Raises InvalidParameter, Internal."""
        return await search.search(self._client, term, who, limit=limit, filters=filters)


async def relay(work: Callable[[Tell], Awaitable[None]]) -> AsyncIterator[bytes]:
    """Run `work(tell)` beside; yield what it tells, encoded. Closing this cancels the work.

    `tell` may be called by any thread.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    encode = msgspec.json.Encoder().encode

    def tell(message: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, encode(message) + b"\r\n")

    async def run() -> None:
        await work(tell)

    task = loop.create_task(run(), name="registry transfer")
    # Callbacks of the loop run in order: the end comes after every line told before it.
    task.add_done_callback(lambda _: loop.call_soon(lines.put_nowait, None))
    try:
        while (line := await lines.get()) is not None:
            yield line
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
