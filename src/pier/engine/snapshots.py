"""Named points in a container's writable layer, and containers made of others'.

Beyond Docker: `pier snapshot`, `pier rollback`, `pier clone`. Of a container that does not run both
are instant (`writable`); one that runs is paused while what it wrote is copied, by reflinks where
the file system has them. Volumes are not part of a snapshot.
"""

import asyncio
import os
from collections.abc import Sequence

import msgspec

from pier.engine.commit import paused
from pier.engine.container import Container
from pier.engine.containers import Containers
from pier.engine.create import layer_size
from pier.engine.network_create import asked
from pier.engine.root_files import check_readable
from pier.engine.services import Services
from pier.engine.states import ALIVE, RUNNING
from pier.engine.writable import new_point
from pier.errors import Conflict, Internal, InvalidParameter, NotFound, Unsupported
from pier.model.api_containers import CreateResponse
from pier.model.api_volumes import ANONYMOUS_LABEL
from pier.model.container import Attachment, ContainerRecord, ContainerState, Snapshot
from pier.model.gotime import now
from pier.model.mounts import MountRecord

MAX_FROZEN = 48
"""Layers of its own that a container may stand on: overlayfs takes 500, older kernels some 60."""


class Snapshots:
    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._containers = containers

    def of(self, ref: str) -> Sequence[Snapshot]:
        """Return a container's snapshots, oldest first. Raises NotFound."""
        return self._services.store.get(ref).record.snapshots

    async def take(self, ref: str, name: str) -> Snapshot:
        """Name what a container has written until now; "" makes a name up.

        Raises NotFound, Conflict, InvalidParameter, Internal for a full disk.
        """
        container = self._services.store.get(ref)
        check_readable(container, "snapshot")
        name = name or _free_name(container.record.snapshots)
        _check_name(container.record, name)
        layers, staged = await self._freeze(container)
        snapshot = Snapshot(name, now(), self._kept(layers, staged))
        container.record.snapshots = [*container.record.snapshots, snapshot]
        self._services.store.save(container)
        self._tell(container, "snapshot", name)
        return snapshot

    async def rollback(self, ref: str, name: str) -> None:
        """Give a container back what it had at a snapshot, which stays. What it wrote since then is
        gone. Raises NotFound, Conflict while it runs.
        """
        container = self._services.store.get(ref)
        snapshot = _find(container.record, name)
        async with container.lock:
            await _stand_still(container, ref)
            record = container.record
            record.frozen = [*snapshot.layers]
            record.layer_change = "reset"
            self._end_change(container)
        self._services.writable.collect()
        self._tell(container, "rollback", name)

    def remove(self, ref: str, name: str) -> None:
        """Forget a snapshot; what nobody else stands on is freed. Raises NotFound."""
        container = self._services.store.get(ref)
        snapshot = _find(container.record, name)
        kept = [other for other in container.record.snapshots if other is not snapshot]
        container.record.snapshots = kept
        self._services.store.save(container)
        self._services.writable.collect()

    async def clone(self, ref: str, name: str) -> CreateResponse:
        """Make a container with another's settings and files. It is not started.

        Named volumes and binds are the same; anonymous volumes are copied. Addresses are its own.
        Raises NotFound, Conflict, InvalidParameter, Unsupported, Internal.
        """
        services = self._services
        container = services.store.get(ref)
        check_readable(container, "clone")
        name = services.store.reserve_name(name)
        record = _copied(container.record, name)
        try:
            for mount in record.mounts:
                if mount.Type == "volume":
                    await self._settle_volume(mount, record.Id)
            layers, staged = await self._freeze(container)
            services.store.reserve_name(name)  # it may have been taken meanwhile
            size = layer_size(services, record.HostConfig)
            services.directories.make(record.Id, size=size)
            try:
                record.frozen = self._kept(layers, staged)
                services.writable.adorn(record)
                services.store.add(record)
            except BaseException:
                services.directories.discard(record.Id)
                raise
        except BaseException:
            services.volumes.release(record.Id, record.mounts, remove=True)
            raise
        services.events.container(record, "create")
        return CreateResponse(Id=record.Id, Warnings=[])

    async def _settle_volume(self, mount: MountRecord, container_id: str) -> None:
        volumes = self._services.volumes
        if not mount.anonymous:
            volumes.use(mount.Name, container_id)
            return
        old = volumes.record(mount.Name)
        if old.Options or not old.is_local:
            mount.anonymous = False  # it is not the clone's to be removed
            volumes.use(mount.Name, container_id)
            raise Unsupported(f"cannot clone volume {old.Name} of driver {old.Driver}")
        labels = {key: value for key, value in (old.Labels or {}).items() if key != ANONYMOUS_LABEL}
        made = await volumes.ensure("", old.Driver, {}, labels)
        source = volumes.mountpoint(old.Name)
        mount.Name, mount.Source = made.Name, volumes.mountpoint(made.Name)
        volumes.use(made.Name, container_id)
        await volumes.populate(
            made.Name, lambda: os.open(source, os.O_RDONLY | os.O_DIRECTORY), holder=container_id
        )

    async def _freeze(self, container: Container) -> tuple[Sequence[str], str]:
        """Return the frozen directories that hold what it has written, lowest first, and the path
        of one more that is still in staging/, "" for none.
        """
        services = self._services
        record = container.record
        if len(record.frozen) >= MAX_FROZEN:
            raise Conflict(
                f"container {container.id} stands on {MAX_FROZEN} snapshots or clones already: "
                "commit it, and make a new one of the image"
            )
        if record.State.Status in ALIVE:
            async with paused(self._containers, container):
                try:
                    staged = await asyncio.get_running_loop().run_in_executor(
                        services.executor, services.writable.copy_upper, record
                    )
                except OSError as exc:
                    reason = (exc.strerror or str(exc)).lower()
                    raise Internal(f"copying what {record.Name} wrote: {reason}") from exc
            return record.frozen, staged
        async with container.lock:
            await _stand_still(container, record.Name)
            if not services.writable.is_empty(record):
                record.frozen = [*record.frozen, new_point()]
                record.layer_change = "freeze"
                self._end_change(container)
            return record.frozen, ""

    def _end_change(self, container: Container) -> None:
        """Write down what is to be done, do it, write down that it was done."""
        self._services.store.save(container)
        try:
            self._services.writable.bring_to_end(container.record)
        except OSError as exc:
            raise Internal(f"layer of {container.record.Name}: {exc}") from exc
        self._services.store.save(container)

    def _kept(self, layers: Sequence[str], staged: str) -> list[str]:
        return [*layers, self._services.writable.keep(staged)] if staged else [*layers]

    def _tell(self, container: Container, action: str, name: str) -> None:
        self._services.events.container(container.record, action, {"snapshot": name})


async def _stand_still(container: Container, ref: str) -> None:
    """With its lock held: nothing has its root mounted. Raises Conflict while it runs."""
    if container.record.State.Status in RUNNING:
        raise Conflict(f"container {ref} is running: stop it first")
    if container.is_removing:
        raise Conflict(f"container {ref} is being removed")
    if container.run is not None:
        await container.run.gone


def _find(record: ContainerRecord, name: str) -> Snapshot:
    for snapshot in record.snapshots:
        if snapshot.Name == name:
            return snapshot
    raise NotFound(f"No such snapshot of container {record.Name}: {name}")


def _free_name(snapshots: Sequence[Snapshot]) -> str:
    taken = {snapshot.Name for snapshot in snapshots}
    number = len(taken) + 1
    while str(number) in taken:
        number += 1
    return str(number)


def _check_name(record: ContainerRecord, name: str) -> None:
    if "/" in name or name != name.strip() or not name.isprintable():
        raise InvalidParameter(f"invalid name of a snapshot: {name!r}")
    if any(snapshot.Name == name for snapshot in record.snapshots):
        raise Conflict(f"container {record.Name} has a snapshot {name} already")


def _copied(old: ContainerRecord, name: str) -> ContainerRecord:
    """A record like another, of a container that never ran."""
    record = msgspec.json.decode(msgspec.json.encode(old), type=ContainerRecord)
    record.Id = os.urandom(32).hex()
    while record.Id[:12].isdigit():
        record.Id = os.urandom(32).hex()
    record.Name, record.Created = name, now()
    record.State, record.RestartCount = ContainerState(), 0
    record.stopped_by_user = record.for_build = False
    record.ports, record.sandbox_id = {}, ""
    record.snapshots, record.layer_change = [], ""
    if record.Config.Hostname == old.Id[:12]:
        record.Config.Hostname = record.Id[:12]
    record.Config.MacAddress = ""
    record.networks = {
        network: Attachment(msgspec.structs.replace(asked(place.settings), MacAddress=""))
        for network, place in record.networks.items()
    }
    return record
