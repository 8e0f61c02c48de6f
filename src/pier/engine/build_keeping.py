"""What builds keep, counted and thrown away: steps, cache mounts and contexts, by rules or when asked."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Executor

from pier.build.cache import BuildCache
from pier.build.cache_mounts import CacheMounts
from pier.build.keeping import CACHE_MOUNT, REGULAR, Kept, Rule, choose
from pier.build.kept_contexts import LOCAL, KeptContexts
from pier.engine.services import Services
from pier.engine.sizes import tree_size
from pier.model.api_build import BuildCacheRecord
from pier.model.gotime import format_ns, now_ns


class BuildKeeping:
    """`rules` are those of the garbage collection, one after another."""

    def __init__(
        self,
        services: Services,
        cache: BuildCache,
        mounts: CacheMounts,
        contexts: KeptContexts,
        executor: Executor,
        rules: Sequence[Rule],
    ) -> None:
        self._services = services
        self._cache = cache
        self._mounts = mounts
        self._contexts = contexts
        self._executor = executor
        self.rules = rules
        self._collecting = asyncio.Lock()

    async def usage(self) -> list[Kept]:
        """Return all records, the oldest first."""
        loop = asyncio.get_running_loop()
        mounts = await loop.run_in_executor(self._executor, self._mounts.all, tree_size)
        contexts = await loop.run_in_executor(self._executor, self._contexts.all, tree_size)
        images = {container.record.Image for container in self._services.store}
        found = self._cache.usage(images)
        owners: dict[str, str] = {}
        for usage in found:
            owners.setdefault(usage.record.image, usage.record.key)
        kept = [
            Kept(
                id=usage.record.key,
                kind=REGULAR,
                description=usage.record.description,
                size=usage.size,
                created_at=usage.record.created_at,
                used_at=usage.record.used_at,
                uses=usage.record.uses,
                in_use=usage.in_use or self._services.images.is_pinned(usage.record.image),
                shared=usage.shared,
                parent=owners.get(usage.record.parent, ""),
            )
            for usage in found
        ]
        for mount in mounts:
            kept.append(  # noqa: PERF401 - a comprehension of this length says less
                Kept(
                    id=mount.name,
                    kind=CACHE_MOUNT,
                    description=f"cache mount {mount.use.id}".rstrip(),
                    size=mount.size,
                    created_at=mount.use.created_at,
                    used_at=mount.use.used_at,
                    uses=mount.use.uses,
                    in_use=mount.in_use,
                )
            )
        for context in contexts:
            kept.append(  # noqa: PERF401 - as above
                Kept(
                    id=context.name,
                    kind=LOCAL,
                    description="local source for context",
                    size=context.size,
                    created_at=context.used_at,
                    used_at=context.used_at,
                    uses=1,
                    in_use=context.in_use,
                )
            )
        return kept

    async def records(self) -> list[BuildCacheRecord]:
        """Return the records as `system df` lists them."""
        return [
            BuildCacheRecord(
                ID=kept.id[:25],
                Type=kept.kind,
                Description=kept.description,
                InUse=kept.in_use,
                Shared=kept.shared,
                Size=kept.size,
                CreatedAt=format_ns(kept.created_at),
                LastUsedAt=format_ns(kept.used_at),
                UsageCount=kept.uses,
                Parents=[kept.parent[:25]] if kept.parent else None,
            )
            for kept in await self.usage()
        ]

    async def prune(self, rule: Rule) -> tuple[list[Kept], int]:
        """Throw away what fits a rule; return it, and the bytes."""
        async with self._collecting:
            kept = await self.usage()
            gone = choose(kept, rule, now_ns=now_ns(), free=self._free())
            layers = {layer for c in self._services.store for layer in c.record.kept_layers}
            steps = [record.id for record in gone if record.kind == REGULAR]
            reclaimed = self._cache.remove(steps, layers)
            sizes = {record.id: record.size for record in gone if record.kind == CACHE_MOUNT}
            removed = self._mounts.discard(sizes)
            reclaimed += sum(sizes[name] for name in removed)
            local = [record for record in gone if record.kind == LOCAL]
            reclaimed += sum(r.size for r in local if self._contexts.discard(r.id))
        return gone, reclaimed

    async def collect(self) -> None:
        """Do what the garbage collection's rules say."""
        for rule in self.rules:
            gone, reclaimed = await self.prune(rule)
            if gone:
                attributes = {"reclaimed": str(reclaimed)}
                self._services.events.publish("builder", "prune", "", attributes)

    @property
    def has_rules(self) -> bool:
        return bool(self.rules)

    def _free(self) -> int:
        found = os.statvfs(self._services.settings.data_root)
        return found.f_bavail * found.f_frsize
