"""Builds as the API speaks of them: a stream of lines, the cache's records, its pruning."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from msgspec.structs import replace

from pier.build.builder import Build
from pier.build.cache import BuildCache
from pier.build.cache_mounts import CacheMounts
from pier.build.context import Context
from pier.build.export.exporter import HUB_KEY
from pier.build.export.exporters import Exporters
from pier.build.export.layers import LayerExports
from pier.build.fetching import Fetcher
from pier.build.keeping import Rule
from pier.build.kept_contexts import KeptContexts
from pier.build.options import BuildOptions
from pier.build.pier_session import PierSessions
from pier.build.progress import SILENT, Progress, Silent, Status, Vertex, error_of, working
from pier.build.remote_context import load_remote
from pier.build.result import BuildResult, Order
from pier.build.several import read_all, run_all
from pier.build.stage import Shop
from pier.build.step_secrets import clear as clear_secrets
from pier.build.threads import finished
from pier.engine.build_exports import ClassicReceiver, Exports
from pier.engine.build_keeping import BuildKeeping
from pier.engine.build_log import BuildLog, step_records
from pier.engine.build_mounts import bring, send
from pier.engine.build_steps import BuildSteps, CredentialsFor, clear_left
from pier.engine.containers import Containers
from pier.engine.own_builds import Asked, Telling
from pier.engine.registries import Registries, relay
from pier.engine.services import Services
from pier.errors import PierError
from pier.images.image import Image
from pier.model.api_build import BuildPruneResponse, BuildRecord
from pier.model.reference import Reference, parse_reference
from pier.registry.progress import Tell
from pier.storage.compressed import CompressedLayers
from pier.storage.database import Database

if TYPE_CHECKING:
    from pier.buildkit.service import BuildKit

THREADS = 8
NOTHING_MORE = Asked()
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
        self._buildkit: BuildKit | None = None
        # Threads of their own: a client that sends its context slowly holds up nobody else.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="build")
        rules = services.settings.builder.rules_on(services.settings.data_root)
        self._contexts = KeptContexts(services.images.root)
        self.keeping = BuildKeeping(
            *(services, self._cache, self._mounts, self._contexts, self._threads, rules)
        )
        self._is_tidying = False
        self.log = BuildLog(database)
        self.exports = Exports()
        self.sessions = PierSessions(self._threads)
        compressed = CompressedLayers(database, services.images.blobs)
        layers = LayerExports(services.images, compressed, self._threads)
        self.exporters = Exporters(
            services.images, layers, registries.content_pusher, self._threads, self._named
        )
        self.caches = registries.build_caches(self._cache, layers, self._threads)

    def attend(
        self, identity: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Have a session on a connection that `pier build` opened, for as long as it lasts."""
        serving = self.sessions.serve(identity, reader, writer)
        self._services.tasks.spawn(serving, name=f"build session {identity}")

    async def close(self) -> None:
        if self._buildkit is not None:
            await self._buildkit.close()
        self._threads.shutdown(cancel_futures=True)

    @property
    def buildkit(self) -> "BuildKit":
        """BuildKit's API, made when somebody speaks it: some megabytes that few engines need."""
        if self._buildkit is None:
            from pier.buildkit.service import BuildKit  # noqa: PLC0415
            from pier.engine.build_workshop import EngineWorkshop  # noqa: PLC0415

            workshop = EngineWorkshop(self, self._services.networks, self._services.images)
            self._buildkit = BuildKit(workshop, self._contexts, self._threads)
        return self._buildkit

    def shop(
        self, credentials: CredentialsFor, committed: Callable[[Image], None] = lambda _: None
    ) -> Shop:
        """Return what a build works with, whose pulls use these passwords."""
        steps = BuildSteps(self._services, self._containers, self._registries, credentials)
        return Shop(
            *(self._services.images, self._cache, steps, self._mounts, self._threads),
            private=self._private,
            allowed=self._services.settings.builder.allowed,
            committed=committed,
        )

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
        asked: Asked = NOTHING_MORE,
    ) -> AsyncIterator[bytes]:
        """Build of a context's archive, or of a Dockerfile alone; yields lines of JSON.

        `remote` is the URL of a context that is fetched, and the client sends none.

        Closing the iterator cancels the build. Raises PierError, before the first line for what is
        wrong with the context or the Dockerfile.
        """
        shop = self.shop(credentials, self.created)

        async def work(tell: Tell) -> None:
            telling = Telling(asked, options, _teller(tell))
            wanted = replace(
                options,
                remote=remote,
                shell=telling.let_in if asked.shell else None,
                explain=telling.explain if asked.explain else None,
            )
            builds: list[Build] = []
            with self._recorded(telling, wanted, builds, remote):
                context = await self._context(reader, wanted, remote, is_dockerfile=is_dockerfile)
                with context:
                    await self._work(shop, context, wanted, telling, builds, credentials, tell)
            self.tidy()

        return relay(work)

    def build_through_buildkit(
        self,
        body: AsyncIterator[bytes],
        options: BuildOptions,
        credentials: CredentialsFor,
        *,
        remote: str,
        session: str,
        build_id: str,
    ) -> AsyncIterator[bytes]:
        """Build as BuildKit's clients do that ask for it here; yields lines of JSON.

        `session` and `build_id` are the client's names for those, "" for none. As with `build`.
        """
        from pier.buildkit.classic import Request  # noqa: PLC0415

        request = Request(options, body, credentials, remote, session, build_id)

        async def work(tell: Tell) -> None:
            await self.buildkit.classic.build(request, _teller(tell))

        return relay(work)

    def cancel(self, build_id: str) -> None:
        """Stop a build of `build_through_buildkit`, if it is there."""
        if self._buildkit is not None:
            self._buildkit.classic.cancel(build_id)

    async def _work(
        self,
        shop: Shop,
        context: Context,
        options: BuildOptions,
        telling: Telling,
        builds: list[Build],
        credentials: CredentialsFor,
        tell: Tell,
    ) -> None:
        """Read, check, build and export. `builds` gets what was read."""
        asked = telling.asked
        receiver = ClassicReceiver(self.exports, _teller(tell), _pair(credentials))
        # What a quiet build would have told is told when it fails, as dockerd does.
        held: list[Mapping[str, Any]] = []
        heard = held.append if options.quiet else _teller(tell)
        if asked.progress:
            heard = _nobody
        with self._services.images.pinned() as pins, contextlib.closing(receiver):
            try:
                builds += await finished(self._threads, partial(read_all, shop, context, options))
                if asked.call:
                    await finished(self._threads, partial(telling.answer, builds[0]))
                    return
                await finished(self._threads, builds[0].findings)
                if asked.mounts_from:
                    await bring(options.session, context, self._mounts, self._threads)
                result = await run_all(
                    *(builds, options, heard, pins),
                    progress=telling.progress if asked.progress else _Told(heard),
                    key=telling.key,
                    caches=self.caches,
                    receiver=receiver,
                )
            except PierError as exc:
                if asked.progress:
                    telling.failed(exc, context, builds)
                _tell_all(held, tell)
                raise
            if asked.progress:
                telling.warn(await finished(self._threads, builds[0].findings))
            telling.image = await self._export(
                *(result, options, receiver, heard, tell), telling.progress
            )
            if asked.mounts_to:
                names = {name for build in builds for name in build.cache_mounts}
                await send(names, self._mounts, receiver, self._threads)
            if asked.progress:
                tell({"aux": {"ID": telling.image}})
            elif options.quiet and telling.image:
                tell({"stream": f"{telling.image}\n"})

    @contextlib.contextmanager
    def _recorded(
        self, telling: Telling, options: BuildOptions, builds: list[Build], remote: str
    ) -> Iterator[None]:
        """Write the block's build down when it is over, however it ends."""
        record = BuildRecord(
            ID=telling.key,
            Name=next((r.familiar for r in options.references), remote or options.dockerfile),
            Started=time.time_ns(),
            Ended=0,
            Status="completed",
            Tags=[reference.familiar for reference in options.references],
            Target=options.target,
            Platforms=[str(platform) for platform in options.platforms],
        )
        try:
            yield
        except BaseException as exc:
            record.Status = "error" if isinstance(exc, Exception) else "canceled"
            record.Error = error_of(exc)
            raise
        finally:
            if not telling.asked.call:
                record.Ended = time.time_ns()
                record.Image = telling.image
                record.Steps = step_records([step for build in builds for step in build.times])
                self.log.add(record)

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

    async def _export(
        self,
        result: BuildResult,
        options: BuildOptions,
        receiver: ClassicReceiver,
        heard: Callable[[Mapping[str, Any]], None],
        tell: Tell,
        progress: Progress,
    ) -> str:
        """Make all outputs; return the image's ID, "" when none was kept."""
        names = ",".join(str(reference) for reference in options.references)
        orders = options.outputs or [Order("image", {"name": names} if names else {})]
        identifier = ""
        for number, order in enumerate(orders):
            attributes = dict(order.attributes)
            if names and order.type not in ("local", "tar"):
                attributes.setdefault("name", names)
            numbered = Order(order.type, attributes, str(number))
            told = _Told(heard) if progress is SILENT else progress
            with working(told, f"exporting to {order.type}") as work:
                answer = await self.exporters.get(order.type).export(
                    result, numbered, receiver, work
                )
            if order.type in ("image", "moby"):
                identifier = answer.get("containerimage.config.digest", "")
                for name in filter(None, attributes.get("name", "").split(",")):
                    familiar = parse_reference(name).tagged().familiar
                    heard({"stream": f"Successfully tagged {familiar}\n"})
            if options.outputs or result.is_list:
                tell({"aux": {"ID": identifier, "Exported": answer}})
        return identifier

    def _named(self, image: Image, reference: Reference) -> None:
        labels = image.config.config.Labels
        attributes = {**labels, "name": reference.familiar}
        self._services.events.publish("image", "tag", image.id, attributes)

    def created(self, image: Image) -> None:
        """Tell of an image that was made, as Docker does: by its ID, whatever its names."""
        attributes = {**image.config.config.Labels, "name": image.id}
        self._services.events.publish("image", "create", image.id, attributes)

    async def prune(self, rule: Rule) -> BuildPruneResponse:
        """Throw away what a rule names."""
        gone, reclaimed = await self.keeping.prune(rule)
        self._services.events.publish("builder", "prune", "", {"reclaimed": str(reclaimed)})
        return BuildPruneResponse([record.id[:25] for record in gone], reclaimed)

    def tidy(self) -> None:
        """Collect garbage after a build, beside whatever else is under way."""
        if self.keeping.has_rules and not self._is_tidying:
            self._is_tidying = True
            self._services.tasks.spawn(self._tidy(), name="build cache's garbage collection")

    async def _tidy(self) -> None:
        try:
            await self.keeping.collect()
        finally:
            self._is_tidying = False


def _teller(tell: Tell) -> Callable[[Mapping[str, Any]], None]:
    return lambda record: tell(dict(record))


def _pair(credentials: CredentialsFor) -> Callable[[str], Awaitable[tuple[str, str]]]:
    """Find a registry's user and password, or a refresh token alone, as sessions give them."""

    async def found(host: str) -> tuple[str, str]:
        who = await credentials("docker.io" if host == HUB_KEY else host)
        return (who.username, who.password) if who.username else ("", who.identitytoken)

    return found


class _Told(Silent):
    """The parts of an export as lines of the classic builder's stream."""

    def __init__(self, heard: Callable[[Mapping[str, Any]], None]) -> None:
        self._heard = heard

    def vertex(self, vertex: Vertex) -> None:
        if vertex.completed and vertex.name.startswith(("importing cache", "exporting cache")):
            why = f": {vertex.error}" if vertex.error else ""
            self._heard({"stream": f"{vertex.name}{why}\n"})

    def status(self, status: Status) -> None:
        # What every build does is not told: the lines are Docker's.
        name = status.id
        if status.completed and name.startswith(("pushing", "sending", "copying")):
            self._heard({"stream": f"{name}\n"})


def _tell_all(records: Sequence[Mapping[str, Any]], tell: Tell) -> None:
    for record in records:
        tell(dict(record))


def _nobody(_record: Mapping[str, Any]) -> None:
    """`q`: only the ID is told, or the failure."""
