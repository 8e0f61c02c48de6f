"""Builds as the API speaks of them: a stream of lines, the cache's records, its pruning."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO

from pier.build.builder import Builder
from pier.build.cache import BuildCache
from pier.build.cache_mounts import CacheMounts
from pier.build.context import Context
from pier.build.fetching import Fetcher
from pier.build.options import BuildOptions
from pier.build.remote_context import load_remote
from pier.build.stage import Shop
from pier.build.step_secrets import clear as clear_secrets
from pier.build.threads import finished
from pier.engine.build_steps import BuildSteps, CredentialsFor, clear_left
from pier.engine.containers import Containers
from pier.engine.registries import Registries, relay
from pier.engine.services import Services
from pier.engine.sizes import tree_size
from pier.images.image import Image
from pier.model.api_build import BuildCacheRecord, BuildPruneResponse
from pier.model.gotime import format_ns
from pier.registry.progress import Tell
from pier.storage.database import Database

THREADS = 8
KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
"""A build argument that leaves `.git` in a context that is a repository."""


class Builds:
    def __init__(
        self,
        services: Services,
        containers: Containers,
        registries: Registries,
        database: Database,
    ) -> None:
        self._services = services
        self._containers = containers
        self._registries = registries
        self._cache = BuildCache(services.images, database)
        self._mounts = CacheMounts(services.images.root)
        self._private = os.path.join(services.settings.exec_root, "build")
        # Threads of their own: a client that sends its context slowly holds up nobody else.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="build")

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def clear_left(self) -> None:
        """Remove what builds of a pierd that was killed have left."""
        clear_secrets(self._private)
        await clear_left(self._services, self._containers)

    def build(
        self,
        reader: BinaryIO,
        options: BuildOptions,
        credentials: CredentialsFor,
        *,
        is_dockerfile: bool = False,
        remote: str = "",
    ) -> AsyncIterator[bytes]:
        """Build of a context's archive, or of a Dockerfile alone; yields lines of JSON.

        `remote` is the URL of a context that is fetched, and the client sends none.

        Closing the iterator cancels the build. Raises PierError, before the first line for what is
        wrong with the context or the Dockerfile.
        """
        steps = BuildSteps(self._services, self._containers, self._registries, credentials)
        shop = Shop(
            *(self._services.images, self._cache, steps, self._mounts, self._threads),
            private=self._private,
        )

        async def work(tell: Tell) -> None:
            context = await self._context(reader, options, remote, is_dockerfile=is_dockerfile)
            with context:
                read = partial(Builder(shop).read, context, options)
                build = await finished(self._threads, read)
                await finished(self._threads, build.findings)
                heard = _nobody if options.quiet else _teller(tell)
                image = await build.run(heard)
                self._tag(image, options, heard)
                if options.quiet:
                    tell({"stream": f"{image.id}\n"})

        return relay(work)

    async def _context(
        self, reader: BinaryIO, options: BuildOptions, remote: str, *, is_dockerfile: bool
    ) -> Context:
        context = Context(self._services.images.root)
        if remote:
            try:
                await self._fetch(remote, context, options)
            except BaseException:
                context.close()
                raise
            return context
        take = context.put_dockerfile if is_dockerfile else context.unpack
        taking = asyncio.get_running_loop().run_in_executor(self._threads, take, reader)
        try:
            await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Not waited for: the client may send slowly, or not at all.
            taking.add_done_callback(lambda _: context.close())
            raise
        except BaseException:
            context.close()
            raise
        return context

    async def _fetch(self, url: str, context: Context, options: BuildOptions) -> None:
        fetcher = Fetcher(context, options.session, self._private)
        keep = options.arguments.get(KEEP_GIT_DIR) in ("1", "true")
        await load_remote(url, context, fetcher, self._threads, keep_git_dir=keep)

    def _tag(
        self, image: Image, options: BuildOptions, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        events = self._services.events
        labels = image.config.config.Labels
        for reference in options.references:
            self._services.images.tag(image.id, reference.familiar_name, reference.tag)
            events.publish("image", "tag", image.id, {**labels, "name": reference.familiar})
            tell({"stream": f"Successfully tagged {reference.familiar}\n"})

    def usage(self) -> list[BuildCacheRecord]:
        """Return the cache's records, as `system df` lists them."""
        records = []
        for usage in self._cache.usage(self._container_images()):
            record = usage.record
            records.append(
                BuildCacheRecord(
                    ID=record.key[:25],
                    Description=record.description,
                    InUse=usage.in_use,
                    Shared=usage.shared,
                    Size=usage.size,
                    CreatedAt=format_ns(record.created_at),
                    LastUsedAt=format_ns(record.used_at),
                    UsageCount=record.uses,
                )
            )
        return records

    async def prune(self, *, everything: bool, until: int | None) -> BuildPruneResponse:
        """Forget steps, see `BuildCache.prune`."""
        layers = {layer for c in self._services.store for layer in c.record.kept_layers}
        keys, reclaimed = self._cache.prune(
            everything=everything, until=until, in_use=self._container_images(), layers=layers
        )
        if until is None:
            run = asyncio.get_running_loop().run_in_executor
            sizes = await run(self._threads, self._mounts.sizes, tree_size)
            names = self._mounts.discard(sizes)
            keys, reclaimed = [*keys, *names], reclaimed + sum(sizes[name] for name in names)
        self._services.events.publish("builder", "prune", "", {"reclaimed": str(reclaimed)})
        return BuildPruneResponse([key[:25] for key in keys], reclaimed)

    def _container_images(self) -> set[str]:
        return {container.record.Image for container in self._services.store}


def _teller(tell: Tell) -> Callable[[Mapping[str, Any]], None]:
    return lambda record: tell(dict(record))


def _nobody(_record: Mapping[str, Any]) -> None:
    """`q`: only the ID is told, or the failure."""
