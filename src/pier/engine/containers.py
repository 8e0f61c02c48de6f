"""Containers as the API speaks of them: every route has its method, which says what it raises.

Every method that takes a `ref` raises NotFound `No such container: x`, and InvalidParameter for an
ambiguous prefix. The longer verbs are modules of their own; what is here fits a screen each.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO

from msgspec import UNSET

from pier.engine import listing, log_options, top
from pier.engine.attach import Attachment, check_attachable
from pier.engine.container import Container
from pier.engine.copying import Copying
from pier.engine.create import create_container
from pier.engine.exits import Exits
from pier.engine.inspect import inspect_container
from pier.engine.launch import Launcher
from pier.engine.legacy_links import remove_link, rename_in_links
from pier.engine.log_files import open_all
from pier.engine.log_followers import Following
from pier.engine.log_stream import stream_log
from pier.engine.logs import LogQuery
from pier.engine.produce import produce
from pier.engine.removal import Remover
from pier.engine.root_files import changed_paths, check_readable, exported, own_directories
from pier.engine.services import Services
from pier.engine.signals import SIGRTMAX, parse_signal
from pier.engine.sizes import tree_size
from pier.engine.states import ALIVE, RUNNING, Move, move
from pier.engine.stopping import Stopper
from pier.engine.update import update_container
from pier.engine.waits import done, wait_for
from pier.engine.watch import Watch
from pier.errors import (
    Conflict,
    InvalidParameter,
    NotFound,
    NotModified,
    PierError,
    StartFailed,
    Unavailable,
    Unsupported,
)
from pier.kernel.cgroups import Cgroup
from pier.model.api_containers import (
    AttachOptions,
    ContainerChange,
    ContainerInspect,
    ContainerSummary,
    CreateResponse,
    LogOptions,
    PathStat,
    PruneResponse,
    TopResponse,
    UpdateRequest,
    UpdateResponse,
    WaitResponse,
)
from pier.model.container import CreateRequest, HealthState
from pier.model.filters import Filters
from pier.model.gotime import SECOND, format_ns, now_ns, parse_timestamp

PRUNE_FILTERS = frozenset({"label", "label!", "until"})

ContainerChanges = list[ContainerChange]


class Containers:
    def __init__(
        self,
        services: Services,
        *,
        exits: Exits,
        launcher: Launcher,
        stopper: Stopper,
        remover: Remover,
        watch: Watch,
    ) -> None:
        self._services = services
        self._exits = exits
        self._launcher = launcher
        self._stopper = stopper
        self._remover = remover
        self._watch = watch
        self._copying = Copying(services)
        self._pruning = False

    # Making and looking

    async def create(
        self, request: CreateRequest, *, name: str, platform: str, readonly_recursive: bool = True
    ) -> CreateResponse:
        """Make a container. Raises NotFound (image), InvalidParameter, Conflict, Unsupported.

        `readonly_recursive` is whether a read-only bind of `Binds` is so below its own mount too.
        """
        return await create_container(
            self._services,
            request,
            name=name,
            platform=platform,
            readonly_recursive=readonly_recursive,
        )

    async def list(
        self,
        *,
        all: bool,  # noqa: A002 - the API's word
        limit: int,
        size: bool,
        filters: Filters,  # the API's word
    ) -> list[ContainerSummary]:
        """Return the rows wanted, newest first; a positive `limit` counts stopped ones too."""
        services = self._services
        selection = listing.select(
            filters, all_=all or limit > 0, store=services.store, images=services.images
        )
        wanted = [container for container in services.store if selection.wants(container)]
        wanted.sort(key=lambda container: container.created_ns, reverse=True)
        if limit > 0:
            del wanted[limit:]
        rows = listing.summarize_all(wanted, services.images, services.store)
        if size:
            for row, container in zip(rows, wanted, strict=True):
                written, row.SizeRootFs = await self._sizes(container)
                row.SizeRw = written or UNSET
        return rows

    async def inspect(self, ref: str, *, size: bool) -> ContainerInspect:
        container = self._get(ref)
        sizes = await self._sizes(container) if size else None
        answer = inspect_container(container, self._services.directories)
        if sizes is not None:
            answer.SizeRw, answer.SizeRootFs = sizes
        return answer

    def states(self) -> Iterator[tuple[str, bool]]:
        """Yield each container's status, and whether it is unhealthy."""
        for container in self._services.store:
            state = container.record.State
            health = state.Health.Status if isinstance(state.Health, HealthState) else ""
            yield state.Status, health == "unhealthy"

    def tty(self, ref: str) -> bool:
        return self._get(ref).record.Config.Tty

    async def top(self, ref: str, ps_args: str) -> TopResponse:
        """List the container's processes with the host's ps. Raises Conflict, InvalidParameter."""
        container = self._get(ref)
        if container.record.State.Status == "restarting":
            raise Conflict(
                f"Container {container.id} is restarting, wait until the container is running"
            )
        _check_alive(container)
        assert container.run is not None
        cgroup = Cgroup(self._services.hierarchies, container.run.cgroup)
        output = await top.run_ps(ps_args)
        answer = top.select_processes(output, set(cgroup.pids()))
        self._services.events.container(container.record, "top")
        return answer

    # Its life

    async def start(self, ref: str) -> None:
        """Raises NotModified, Conflict; InvalidParameter or Internal when it does not start."""
        await self._launcher.start(self._get(ref))

    async def stop(self, ref: str, *, signal: str, timeout_s: int | None) -> None:
        """Raises NotModified when it does not run, InvalidParameter for the signal."""
        container = self._get(ref)
        with _wrapped(f"cannot stop container: {ref}: "):
            number = parse_signal(signal) if signal else None
            await self._stopper.stop(container, number, timeout_s)

    async def restart(self, ref: str, *, signal: str, timeout_s: int | None) -> None:
        """Raises InvalidParameter for the signal, and what a start raises."""
        container = self._get(ref)
        with _wrapped(f"Cannot restart container {ref}: "):
            number = parse_signal(signal) if signal else None
            await self._stopper.restart(container, number, timeout_s)

    async def kill(self, ref: str, *, signal: str) -> None:
        """Raises Conflict when it does not run, InvalidParameter for the signal."""
        with _wrapped(f"cannot kill container: {ref}: "):
            signal = signal or "SIGKILL"
            if signal.lstrip("-").isdecimal() and not 0 <= int(signal) <= SIGRTMAX:
                raise InvalidParameter(f"the linux daemon does not support signal {signal}")
            number = parse_signal(signal)
            await self._stopper.kill(self._get(ref), number)

    async def pause(self, ref: str) -> None:
        """Freeze all processes. Raises Conflict unless it runs."""
        container = self._get(ref)
        async with container.lock:
            status = container.record.State.Status
            if status == "restarting":
                raise Conflict(
                    f"Container {container.id} is restarting, wait until the container is running"
                )
            if status == "paused":
                raise Conflict(f"Container {container.id} is already paused")
            async with container.pausing():
                with container.ending():
                    await container.keeper.pause()
            assert container.run is not None
            self._watch.pause(container.run)
            self._moved(container, Move.PAUSED, "pause")

    async def unpause(self, ref: str) -> None:
        """Thaw all processes. Raises Conflict unless it is paused."""
        container = self._get(ref)
        async with container.lock:
            if container.record.State.Status != "paused":
                raise Conflict(f"Container {container.id} is not paused")
            with container.ending():
                await container.keeper.resume()
            if container.record.State.Running and not container.record.State.Paused:
                return  # a stop was faster, which thaws as well
            self._moved(container, Move.RESUMED, "unpause")
            assert container.run is not None
            self._watch.resume(container.run)

    async def update(
        self, ref: str, request: UpdateRequest, lifted: Collection[str] = ()
    ) -> UpdateResponse:
        """Change limits and the restart policy; `lifted` are limits by device that shall go.

        Raises InvalidParameter, Conflict, Internal.
        """
        return await update_container(self._services, self._get(ref), request, lifted)

    async def rename(self, ref: str, name: str) -> None:
        """Raises InvalidParameter for the name, Conflict when it is taken."""
        if not ref or not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        container = self._get(ref)
        if name.removeprefix("/") == container.name:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        with _wrapped("Error when allocating new name: "):
            bare = self._services.store.reserve_name(f"/{name.removeprefix('/')}")
        old_name = container.name
        self._services.store.rename(container, bare)
        rename_in_links(self._services.store, old_name, bare)
        self._services.networks.endpoints.renamed(container)
        self._services.events.container(container.record, "rename", {"oldName": f"/{old_name}"})

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Remove a container, with `force` a running one as well. Raises Conflict.

        `volumes` takes its anonymous volumes with it.
        """
        if link and "/" in ref.strip("/"):
            remove_link(self._services.store, ref)
            return
        container = self._get(ref)
        async with container.lock:  # a start that is under way comes to its end first
            self._remover.check(container, ref, force=force, link=link)
            container.is_removing = True
        try:
            if container.record.State.Status in RUNNING:
                await self._stopper.kill_and_wait(container)
            self._remover.discard(container, volumes=volumes)
        finally:
            container.is_removing = container.is_removed

    async def prune(self, filters: Filters) -> PruneResponse:
        """Remove all containers that do not run. Raises Conflict while another prune does."""
        if self._pruning:
            raise Conflict("a prune operation is already running")
        until = [parse_timestamp(text, now_ns=now_ns()) for text in filters.get("until")]
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        self._pruning = True
        try:
            answer = PruneResponse()
            for container in self._services.store:
                if _is_prunable(container, until, filters):
                    size, _ = await self._sizes(container)
                    await self._prune(container, size, answer)
        finally:
            self._pruning = False
        self._services.events.publish(
            "container", "prune", "", {"reclaimed": str(answer.SpaceReclaimed)}
        )
        return answer

    async def _prune(self, container: Container, size: int, answer: PruneResponse) -> None:
        try:
            await self.remove(container.id, force=False, volumes=False, link=False)
        except PierError:
            return  # it was started, or somebody else removes it
        answer.ContainersDeleted = [*(answer.ContainersDeleted or []), container.id]
        answer.SpaceReclaimed += size

    # Its streams

    def wait(self, ref: str, condition: str) -> Awaitable[WaitResponse]:
        """Return an awaitable for the condition; it listens already. Raises InvalidParameter.

        One that removed itself a moment ago is known by its whole ID: `dockerode` starts first and
        waits then, and would come in time with a slower engine.
        """
        try:
            container = self._get(ref)
        except NotFound:
            departed = self._exits.departed.get(ref)
            if departed is None or condition not in ("", "not-running", "removed"):
                raise
            return done(departed)
        return wait_for(container, condition)

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """Set the size of the container's terminal. Raises Conflict when it does not run."""
        container = self._get(ref)
        with container.ending():
            await container.keeper.resize(height, width)
        self._services.events.container(
            container.record, "resize", {"height": str(height), "width": str(width)}
        )

    def prepare_attach(self, ref: str, options: AttachOptions) -> Attachment:
        """Check an attach before anything is answered. Raises Conflict."""
        container = self._get(ref)
        check_attachable(container, ref)
        return Attachment(container, options, self._services)

    def logs(self, ref: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Return the log in ready-made pieces: frames, or bare bytes for a TTY.

        Raises InvalidParameter, Unsupported when the driver keeps nothing.
        """
        container, query, until_s = self._log_query(ref, options)
        run = container.run
        follows = options.follow and run is not None and not run.exited
        return stream_log(
            self._services.directories.log_path(container.id),
            query,
            self._services.executor,
            ended=run.ended if follows and run is not None else None,
            until_s=until_s,
        )

    async def follow_logs(self, ref: str, options: LogOptions) -> Following | None:
        """Return a follower that outlives pierd, None when `logs` does as well: nothing runs.

        Raises as `logs` does. The caller closes it.
        """
        container, query, until_s = self._log_query(ref, options)
        run = container.run
        if run is None or run.keeper is None or run.exited:
            return None
        try:
            witness_fd = await run.keeper.witness()
        except (StartFailed, Unavailable):
            return None
        path = self._services.directories.log_path(container.id)
        followers = self._services.log_followers
        return Following(followers, witness_fd, path, open_all(path), query, until_s)

    def _log_query(self, ref: str, options: LogOptions) -> tuple[Container, LogQuery, float | None]:
        """Return whose log is wanted, what of it, and for how many seconds it is followed."""
        container = self._get(ref)
        if not (options.stdout or options.stderr):
            raise InvalidParameter("Bad parameters: you must choose at least one stream")
        if not log_options.is_readable(container.record.HostConfig.LogConfig):
            raise Unsupported("configured logging driver does not support reading")
        until_s = None if options.until is None else max(0, options.until - now_ns()) / SECOND
        query = LogQuery(
            stdout=options.stdout,
            stderr=options.stderr,
            since=_bound(options.since),
            until=_bound(options.until),
            timestamps=options.timestamps,
            details=options.details,
            tail=-1 if options.tail is None else options.tail,
            tty=container.record.Config.Tty,
            joined=options.joined,
        )
        return container, query, until_s

    # Its files

    async def changes(self, ref: str) -> ContainerChanges:
        """Return what it changed of its image's files. Raises Conflict while it is removed."""
        container = self._get(ref)
        check_readable(container, "diff")
        return await asyncio.get_running_loop().run_in_executor(
            self._services.executor, changed_paths, self._services, container
        )

    def export(self, ref: str) -> AsyncIterator[bytes]:
        """Return the tar of its whole root in pieces. Raises Conflict while it is removed."""
        container = self._get(ref)
        check_readable(container, "export")
        return produce(
            exported(self._services, container),
            self._services.executor,
            done=lambda: self._services.events.container(container.record, "export"),
        )

    async def path_stat(self, ref: str, path: str) -> PathStat:
        """Say what a path is. Raises NotFound, InvalidParameter, Internal."""
        return await self._copying.stat(self._get(ref), ref, path)

    def archive(
        self, ref: str, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        """Hold what a path is, and its tar in pieces. Raises as `path_stat` does."""
        return self._copying.get(self._get(ref), ref, path)

    async def extract(
        self, ref: str, path: str, archive: BinaryIO, *, keep_kinds: bool, as_user: bool
    ) -> None:
        """Unpack an archive in a directory, see `Copying.put`."""
        await self._copying.put(
            self._get(ref), ref, path, archive, keep_kinds=keep_kinds, as_user=as_user
        )

    def _get(self, ref: str) -> Container:
        return self._services.store.get(ref)

    def _moved(self, container: Container, what: Move, action: str) -> None:
        """Record a pause or resume that the keeper has made, unless the container ended since."""
        _check_alive(container)
        move(container.record.State, what)
        self._exits.save(container)
        self._services.events.container(container.record, action)

    async def _sizes(self, container: Container) -> tuple[int, int]:
        """Return the bytes that the container wrote, and those with its image's."""
        images = self._services.images
        own = own_directories(self._services, container)
        written = await asyncio.get_running_loop().run_in_executor(
            self._services.executor, lambda: sum(tree_size(path) for path in own)
        )
        try:
            shared = images.get(container.record.Image).size
        except PierError:
            shared = 0  # the image was removed by force
        return written, written + shared


@contextlib.contextmanager
def _wrapped(prefix: str) -> Iterator[None]:
    """Say in an error what was being done; NotModified is none."""
    try:
        yield
    except NotModified:
        raise
    except PierError as exc:
        raise type(exc)(prefix + exc.message) from exc


def _check_alive(container: Container) -> None:
    if container.record.State.Status not in ALIVE:
        raise Conflict(f"container {container.id} is not running")


def _is_prunable(container: Container, until: list[int], filters: Filters) -> bool:
    record = container.record
    return (
        record.State.Status in ("created", "exited", "dead")
        and not container.is_removing
        and (not until or container.created_ns < until[0])
        and filters.labels(record.Config.Labels)
        and filters.without_labels(record.Config.Labels)
    )


def _bound(at_ns: int | None) -> str:
    return "" if at_ns is None else format_ns(at_ns).removesuffix("Z")
