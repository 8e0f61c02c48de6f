"""Volumes as the API speaks of them: made, listed, removed, and never while somebody uses them.

Who uses a volume is kept in memory, by container ID, from the moment on in which a container's
creation first names it; at start it is read from the containers' records.
"""

import asyncio
import contextlib
import functools
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

from pier.engine.events import Events
from pier.engine.sizes import tree_size
from pier.engine.store import ContainerStore
from pier.engine.volume_mounts import VolumeMounts, check_options, is_mounted
from pier.engine.volume_plugins import DriverSilent, VolumePlugin, VolumePlugins
from pier.errors import Conflict, Internal, InvalidParameter, NotFound, PierError
from pier.model.api_volumes import (
    ANONYMOUS_LABEL,
    LOCAL_DRIVER,
    UsageData,
    Volume,
    VolumeList,
    VolumePrune,
    VolumeRecord,
)
from pier.model.filters import Filters
from pier.model.gotime import SECOND, format_ns, now_ns
from pier.model.mounts import MountRecord
from pier.storage.volumes import VolumeStore

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL = LOCAL_DRIVER
LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z", re.ASCII)


class Volumes:
    def __init__(
        self,
        store: VolumeStore,
        mounts: VolumeMounts,
        *,
        containers: ContainerStore,
        events: Events,
        executor: Executor,
        plugins: VolumePlugins,
    ) -> None:
        self._store = store
        self._plugins = plugins
        self._mounts = mounts
        self._events = events
        self._executor = executor
        self._users: defaultdict[str, set[str]] = defaultdict(set)
        self._pruning = False
        self._removing: set[asyncio.Task[None]] = set()
        self._containers = containers
        for record in store:
            if record.moved_from and record.moved_from not in store:
                self._rename_in_containers(record.moved_from, record.Name)
        for container in containers:
            for mount in container.record.mounts:
                if mount.Type == "volume":
                    self._users[mount.Name].add(container.id)

    # What the API offers

    async def list(self, filters: Filters) -> VolumeList:
        """All volumes, those that other drivers know of as well.

        Raises InvalidParameter for a bad value of `dangling`.
        """
        if "dangling" in filters:
            filters.flag("dangling", default=False)  # is checked where there are no volumes as well
        told = await self._in_thread(self._told_by_plugins) if self._plugins.names() else {}
        records = list(self._store)
        records += [record for name, (record, _) in told.items() if name not in self._store]
        shown = []
        for record in records:
            if self._wanted(record, filters):
                volume = self._shown(record)
                if record.Name in told:
                    _tell_of(volume, told[record.Name][1])
                shown.append(volume)
        return VolumeList(Volumes=shown)

    async def inspect(self, name: str) -> Volume:
        """Raises NotFound, Internal when its driver does not answer."""
        record = await self._find(name)
        volume = self._shown(record)
        if not record.is_local:

            def ask() -> tuple[dict[str, Any], str]:
                plugin = self._plugins.get(record.Driver)
                return plugin.get(name), plugin.scope

            try:
                told, volume.Scope = await self._in_thread(ask)
            except PierError as exc:
                raise type(exc)(f"get {name}: {exc.message.removeprefix(f'get {name}: ')}") from exc
            _tell_of(volume, told)
        return volume

    async def create(
        self, *, name: str, driver: str, options: dict[str, str], labels: dict[str, str]
    ) -> Volume:
        """Make a volume, or return the one that is there. Raises InvalidParameter, Conflict,
        NotFound for the driver.
        """
        return self._shown(await self.ensure(name, driver, options, labels))

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a volume and what is in it. Raises NotFound unless `force`, Conflict in use."""
        try:
            record = await self._find(name)
        except NotFound:
            if force:
                return
            raise
        users = self._users[name]
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
        if record.is_local:
            self._remove(name)
            return
        if name in self._store:
            await self._mounts.given_up(name)
        try:
            await self._in_thread(lambda: self._plugins.get(record.Driver).remove(name))
        except PierError as exc:
            if not force:
                raise Internal(f"remove {name}: {exc.message}") from exc
        if name in self._store:
            self._remove(name)

    async def prune(self, filters: Filters, *, everything: bool) -> VolumePrune:
        """Remove what no container uses: anonymous volumes, with `everything` named ones as well.

        Volumes with options (a mount of something else) stay. Raises Conflict while another prune
        runs.
        """
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        answer = VolumePrune()
        try:
            for record in self._store:
                if not _is_prunable(record, filters, everything=everything):
                    continue
                size = await self._size(record.Name)
                if record.Name not in self._store or self._users[record.Name]:
                    continue  # taken, or removed, while it was measured
                self._remove(record.Name)
                answer.VolumesDeleted = [*(answer.VolumesDeleted or []), record.Name]
                answer.SpaceReclaimed += max(size, 0)
        finally:
            self._pruning = False
        self._events.publish("volume", "prune", "", {"reclaimed": str(answer.SpaceReclaimed)})
        return answer

    async def usage(self) -> VolumeList:
        """All volumes whose data is here, each with its size and how many containers use it."""
        shown: VolumeList = VolumeList(Volumes=[])
        for record in self._store:
            if is_mounted(record):
                continue  # what is mounted there is not ours to measure
            volume = self._shown(record)
            size = await self._size(record.Name)
            volume.UsageData = UsageData(Size=size, RefCount=len(self._users[record.Name]))
            shown.Volumes.append(volume)
        return shown

    # What containers do with them

    async def ensure(
        self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]
    ) -> VolumeRecord:
        """Return the volume of that name, made if it is missing; "" makes an anonymous one.

        Raises InvalidParameter, NotFound for the driver, Conflict when another driver has the name.
        """
        anonymous = not name
        name = name or os.urandom(32).hex()
        if name in self._store and not await self._is_lost(name):
            found = self._store.get(name)
            if driver and found.Driver != driver:
                raise Conflict(
                    f"create {name}: driver '{found.Driver}' already has volume '{name}': volume name"
                    " must be unique"
                )
            return found
        if anonymous:
            labels = {**labels, ANONYMOUS_LABEL: ""}
        record = VolumeRecord(
            Name=name,
            Driver=driver or LOCAL,
            CreatedAt=format_ns(now_ns() // SECOND * SECOND),
            Labels=labels or None,
            Options=options or None,
        )
        if record.is_local:
            try:
                check_name(name)
                size = check_options(options, has_quota=self._store.has_quota)
            except InvalidParameter as exc:
                raise InvalidParameter(f"create {name}: {exc.message}") from exc
            try:
                self._store.create(record, size=size)
            except OSError as exc:
                raise Internal(f"create {name}: {exc}") from exc
        else:
            await self._create_elsewhere(record)
        self._events.publish("volume", "create", name, {"driver": record.Driver})
        return record

    async def _is_lost(self, name: str) -> bool:
        """Whether another driver's volume is gone there: then it is forgotten, and its name is free.

        Raises Conflict when containers have it, or the driver does not answer.
        """
        record = self._store.get(name)
        if record.is_local:
            return False
        conflict = (
            f"create {name}: found reference to volume '{name}' in driver '{record.Driver}', but"
        )

        def work() -> bool:
            try:
                plugin = self._plugins.get(record.Driver)
            except PierError as exc:
                raise Conflict(
                    f"{conflict} got an error while checking the driver: {exc.message}: volume name"
                    " must be unique"
                ) from exc
            try:
                plugin.get(name)
            except DriverSilent as exc:
                raise Conflict(
                    f"{conflict} got an error while checking the driver: error while checking if"
                    f' volume "{name}" exists in driver "{record.Driver}": {exc.message}: volume'
                    " name must be unique"
                ) from exc
            except PierError:
                return True
            return False

        if not await self._in_thread(work):
            return False
        if self._users[name] or self._mounts.is_held(name):
            raise Conflict(
                f"create {name}: found references to volume '{name}' in driver '{record.Driver}' but"
                " the volume was not found in the driver -- you may need to remove containers"
                " referencing this volume or force remove the volume to re-create it: volume name"
                " must be unique"
            )
        if name in self._store:
            self._remove(name)
        return True

    async def _create_elsewhere(self, record: VolumeRecord) -> None:
        """Have another driver make a volume, unless it has it already."""
        name, driver = record.Name, record.Driver

        def work() -> str:
            try:
                plugin = self._plugins.get(driver)
            except PierError as exc:
                text = f"error looking up volume plugin {driver}: {exc.message}"
                raise type(exc)(text) from exc
            with contextlib.suppress(PierError):
                return str(plugin.get(name).get("Mountpoint") or "")
            plugin.create(name, record.Options or {})
            return plugin.path(name)

        try:
            where = await self._in_thread(work)
        except PierError as exc:
            raise type(exc)(f"create {name}: {exc.message}") from exc
        if name not in self._store:  # else another request was faster
            self._store.add(record)
            self._store.set_mountpoint(name, where)

    def check_free(self, name: str) -> None:
        """Raises InvalidParameter, Conflict when there is a volume of that name."""
        check_name(name)
        if name in self._store:
            raise Conflict(f"volume {name} exists already")

    def adopt(self, name: str, labels: dict[str, str], data: str) -> Volume:
        """Make a volume out of a directory, which becomes its own. Raises Conflict."""
        self.check_free(name)
        created = format_ns(now_ns() // SECOND * SECOND)
        record = VolumeRecord(name, LOCAL, created, labels or None)
        self._store.create(record, data)
        self._events.publish("volume", "create", name, {"driver": LOCAL})
        return self._shown(record)

    def rename(self, old: str, new: str) -> Volume:
        """Give a local volume another name, for its containers as well, which may run.

        Raises NotFound, Conflict, InvalidParameter.
        """
        record = self._store.get(old)
        self.check_free(new)
        if not record.is_local:
            raise InvalidParameter(f"volume {old} is of driver {record.Driver}")
        if record.Options and self._mounts.is_held(old):
            raise Conflict(f"volume {old} is mounted: stop the containers that use it")
        record = self._store.rename(old, new)
        self._mounts.forget_name(old)
        self._users[new] = self._users.pop(old, set())
        self._rename_in_containers(old, new)
        self._events.publish("volume", "rename", new, {"driver": LOCAL, "oldName": old})
        return self._shown(record)

    def _rename_in_containers(self, old: str, new: str) -> None:
        for container in self._containers:
            mounts = [m for m in container.record.mounts if m.Type == "volume" and m.Name == old]
            if not mounts:
                continue
            for mount in mounts:
                mount.Name, mount.Source = new, self._store.mountpoint(new)
            host = container.record.HostConfig
            if host.Binds:
                host.Binds = [
                    new + bind.removeprefix(old) if bind.startswith(f"{old}:") else bind
                    for bind in host.Binds
                ]
            for wanted in host.Mounts:
                if wanted.Type == "volume" and wanted.Source == old:
                    wanted.Source = new
            self._containers.save(container)

    def users(self, name: str) -> tuple[str, ...]:
        """The IDs of the containers that use a volume."""
        return tuple(sorted(self._users[name]))

    def record(self, name: str) -> VolumeRecord:
        """Raises NotFound."""
        return self._store.get(name)

    def mountpoint(self, name: str) -> str:
        return self._store.mountpoint(name)

    async def populate(
        self, name: str, open_source: Callable[[], int], *, holder: str, part: str = ""
    ) -> None:
        """Fill a volume, or a directory `part` of it, that is empty from a directory, in a thread.

        Wholly or not at all; a part that is not there is nothing to fill. `open_source` returns the
        directory's descriptor, or -1 for nothing. Raises Internal.
        """
        record = self._store.get(name)

        def work(fill: Callable[[str, int], None]) -> None:
            if not self._store.is_empty(name, part):
                return
            source_fd = open_source()
            if source_fd < 0:
                return
            try:
                fill(name, source_fd)
            finally:
                os.close(source_fd)

        def has_source() -> bool:
            source_fd = open_source()
            if source_fd >= 0:
                os.close(source_fd)
            return source_fd >= 0

        loop = asyncio.get_running_loop()
        try:
            if is_mounted(record):
                if not await loop.run_in_executor(self._executor, has_source):
                    return  # a mount can take long
                async with self._mounts.filling(record, holder) as alone:
                    fill = functools.partial(self._store.populate_mounted, marked=alone, part=part)
                    await loop.run_in_executor(self._executor, work, fill)
            else:
                fill = functools.partial(self._store.populate, part=part)
                await loop.run_in_executor(self._executor, work, fill)
        except OSError as exc:
            raise Internal(
                f"failed to populate volume {name}: {(exc.strerror or str(exc)).lower()}"
            ) from exc

    def use(self, name: str, container_id: str) -> None:
        self._users[name].add(container_id)

    def release(self, container_id: str, mounts: Iterable[MountRecord], *, remove: bool) -> None:
        """A container is gone; `remove` takes its anonymous volumes with it, unless others use them."""
        for mount in mounts:
            if mount.Type != "volume":
                continue
            users = self._users[mount.Name]
            users.discard(container_id)
            if remove and mount.anonymous and not users and mount.Name in self._store:
                record = self._store.get(mount.Name)
                if not record.is_local:
                    self._remove_elsewhere(record)
                    continue
                try:
                    self._remove(mount.Name)
                except (PierError, OSError):
                    log.exception("volume %s was not removed with its container", mount.Name)

    def _remove_elsewhere(self, record: VolumeRecord) -> None:
        """Remove another driver's volume whose container is gone, in the background."""

        async def work() -> None:
            try:
                await self.remove(record.Name, force=False)
            except PierError as exc:
                log.warning("volume %s was not removed: %s", record.Name, exc.message)

        task = asyncio.get_running_loop().create_task(work())
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    def _remove(self, name: str) -> None:
        driver = self._store.get(name).Driver
        self._mounts.forget(name)
        self._store.remove(name)
        self._users.pop(name, None)
        self._events.publish("volume", "destroy", name, {"driver": driver})

    async def _find(self, name: str) -> VolumeRecord:
        """A volume that is recorded, or that some other driver knows. Raises NotFound."""
        if name in self._store or not self._plugins.names():
            return self._store.get(name)

        def ask() -> VolumeRecord:
            for plugin in self._plugins.all():
                with contextlib.suppress(PierError):
                    return _as_record(plugin, plugin.get(name))
            raise NotFound(f"get {name}: no such volume")

        return await self._in_thread(ask)

    def _told_by_plugins(self) -> dict[str, tuple[VolumeRecord, dict[str, Any]]]:
        """What other drivers say they have, by name. Blocking."""
        found = {}
        for plugin in self._plugins.all():
            try:
                for told in plugin.list():
                    found[str(told["Name"])] = (_as_record(plugin, told), told)
            except PierError as exc:
                log.warning("volumes of driver %s: %s", plugin.name, exc.message)
        return found

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _shown(self, record: VolumeRecord) -> Volume:
        return Volume(
            CreatedAt=record.CreatedAt,
            Driver=record.Driver,
            Labels=record.Labels,
            Mountpoint=self._store.mountpoint(record.Name) if record.Name in self._store else "",
            Name=record.Name,
            Options=record.Options,
            Scope=LOCAL,
        )

    def _wanted(self, record: VolumeRecord, filters: Filters) -> bool:
        if "dangling" in filters:
            dangling = filters.flag("dangling", default=False)
            if dangling == bool(self._users[record.Name]):
                return False
        names = filters.get("name")
        return (
            filters.exact("driver", record.Driver)
            and (not names or any(name in record.Name for name in names))
            and filters.labels(record.Labels or {})
        )

    async def _size(self, name: str) -> int:
        """Bytes of a volume's files, -1 when they cannot be read."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, tree_size, self._store.mountpoint(name)
            )
        except OSError:
            return -1


def _as_record(plugin: VolumePlugin, told: dict[str, Any]) -> VolumeRecord:
    return VolumeRecord(str(told["Name"]), plugin.name, str(told.get("CreatedAt") or ""))


def _tell_of(volume: Volume, told: dict[str, Any]) -> None:
    """Show what a driver says of its volume."""
    volume.Mountpoint = str(told.get("Mountpoint") or volume.Mountpoint)
    volume.CreatedAt = str(told.get("CreatedAt") or volume.CreatedAt)
    if isinstance(told.get("Status"), dict) and told["Status"]:
        volume.Status = told["Status"]


def check_name(name: str) -> None:
    """Raises InvalidParameter in dockerd's words."""
    if len(name) < 2:
        raise InvalidParameter(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.match(name):
        raise InvalidParameter(
            f'"{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def _is_prunable(record: VolumeRecord, filters: Filters, *, everything: bool) -> bool:
    labels = record.Labels or {}
    return (
        not is_mounted(record)
        and (everything or ANONYMOUS_LABEL in labels)
        and filters.labels(labels)
        and filters.without_labels(labels)
    )
