"""Volumes of the local driver with options: something else is mounted at the volume's place.

`type`, `o` and `device` are mount(8)'s, as with Docker. The mount is made at the volume's mount
point, where users look for it, while any container that uses it runs: the only mounts that Pier
makes in the host's mount namespace, because they belong to the volume and not to one container.
What a killed pierd left mounted is taken up or unmounted by the next one.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor

from pier.engine.container import Container
from pier.engine.events import Events
from pier.engine.log_values import parse_binary
from pier.engine.store import ContainerStore
from pier.engine.volume_plugins import VolumePlugins
from pier.errors import Internal, InvalidParameter, PierError
from pier.kernel import mount as mnt
from pier.model.api_volumes import VolumeRecord
from pier.storage.volumes import VolumeStore

log = logging.getLogger(__name__)

_KNOWN = ("type", "o", "device", "size")
_NETWORKED = ("nfs", "nfs4", "cifs")
_FLAGS = {
    "ro": mnt.MS_RDONLY,
    "nosuid": mnt.MS_NOSUID,
    "nodev": mnt.MS_NODEV,
    "noexec": mnt.MS_NOEXEC,
    "sync": mnt.MS_SYNCHRONOUS,
    "dirsync": mnt.MS_DIRSYNC,
    "mand": mnt.MS_MANDLOCK,
    "noatime": mnt.MS_NOATIME,
    "nodiratime": mnt.MS_NODIRATIME,
    "relatime": mnt.MS_RELATIME,
    "strictatime": mnt.MS_STRICTATIME,
    "bind": mnt.MS_BIND,
    "rbind": mnt.MS_BIND | mnt.MS_REC,
    "remount": mnt.MS_REMOUNT,
}
_PROPAGATIONS = {
    "private": mnt.MS_PRIVATE,
    "rprivate": mnt.MS_PRIVATE | mnt.MS_REC,
    "slave": mnt.MS_SLAVE,
    "rslave": mnt.MS_SLAVE | mnt.MS_REC,
    "shared": mnt.MS_SHARED,
    "rshared": mnt.MS_SHARED | mnt.MS_REC,
    "unbindable": mnt.MS_UNBINDABLE,
    "runbindable": mnt.MS_UNBINDABLE | mnt.MS_REC,
}
_NOTHING = frozenset(
    [
        "defaults",
        "rw",
        "suid",
        "dev",
        "exec",
        "async",
        "atime",
        "diratime",
        "norelatime",
        "nostrictatime",
        "nomand",
    ]
)
_ADDRESS = re.compile(r"(?<![^,])addr=([^,]*)")
_SHARE = re.compile(r"//([^/@:\[]+)")
_PASSWORD = re.compile(r"(?<![^,])(pass|password)=[^,]*")


def is_mounted(record: VolumeRecord) -> bool:
    """Whether it has to be mounted before it can be used."""
    return has_mount(record) or not record.is_local


def has_mount(record: VolumeRecord) -> bool:
    """Whether it is one of ours at whose place something else is mounted; a limit is nothing such."""
    return record.is_local and any(key != "size" for key in record.Options or ())


def check_options(options: dict[str, str], *, has_quota: Callable[[], bool]) -> int:
    """Check the options of a new local volume; return its limit in bytes, 0 for none.

    Raises InvalidParameter in dockerd's words.
    """
    for key in options:
        if key not in _KNOWN:
            raise InvalidParameter(f'invalid option: "{key}"')
    size = 0
    if options.get("size"):
        size = parse_binary(options["size"])
        if size and not has_quota():
            raise InvalidParameter("quota size requested but no quota support")
    given = [key for key in ("type", "o", "device") if options.get(key)]
    if given and "type" not in given:
        raise InvalidParameter('missing required option: "type"')
    if given and "device" not in given:
        raise InvalidParameter('missing required option: "device"')
    if given and size:
        raise InvalidParameter("size is for a directory of the engine's, not for what is mounted")
    return size


class VolumeMounts:
    """Which volumes are mounted, and for which containers."""

    def __init__(
        self,
        store: VolumeStore,
        *,
        containers: ContainerStore,
        events: Events,
        executor: Executor,
        plugins: VolumePlugins,
    ) -> None:
        self._store = store
        self._plugins = plugins
        self._containers = containers
        self._events = events
        self._executor = executor
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._unmounting: dict[str, asyncio.Future[None]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def recover(self, ran: set[str]) -> None:
        """After a start of pierd: keep what running containers use, unmount what nobody does.

        `ran` are the containers that ran when the last one ended: other drivers are told of those
        that no longer do.
        """
        for container in self._containers:
            runs = container.run is not None and not container.run.exited
            for record in self._mountable(container) if runs or container.id in ran else ():
                self._held[record.Name].add(container.id)
                if not record.is_local:
                    source = next(
                        m.Source for m in container.record.mounts if m.Name == record.Name
                    )
                    self._store.set_mountpoint(record.Name, source)
                if not runs:
                    self.unmount(record.Name, container.id)
        if not any(is_mounted(record) for record in self._store):
            return
        mounted = mount_points()
        for record in self._store:
            where = self._store.mountpoint(record.Name)
            if record.is_local and where in mounted and not self._held[record.Name]:
                self._unmount(where)

    async def hold(self, container: Container) -> None:
        """Mount what the container's volumes need. Raises Internal; then none of them is held."""
        if not container.record.mounts:
            return
        try:
            for record in self._mountable(container):
                await self.mount(record, container.id)
                for mount in container.record.mounts:
                    if mount.Name == record.Name:  # another driver may have it anywhere
                        mount.Source = self._store.mountpoint(record.Name)
        except BaseException:
            self.give_up(container)
            raise
        self._tell(container, "mount")

    def let_go(self, container: Container) -> None:
        """The container's process is gone: unmount what was only its own."""
        if container.record.mounts:
            self.give_up(container)
            self._tell(container, "unmount")

    async def mount(self, record: VolumeRecord, holder: str) -> None:
        """Mount a volume, for `holder`, unless it is already. Raises Internal.

        In a thread: a server of NFS may take its time, or not answer.
        """
        async with self._locks[record.Name]:
            await self._mount_locked(record, holder)

    @contextlib.asynccontextmanager
    async def filling(self, record: VolumeRecord, holder: str) -> AsyncIterator[bool]:
        """Have a volume mounted while it is populated. Yields whether nobody else has it.

        Nobody else gets it meanwhile, so that what a crash leaves was never anybody's. What another
        driver has may be used by other hosts. Raises Internal.
        """
        async with self._locks[record.Name]:
            alone = record.is_local and not self._held[record.Name]
            await self._mount_locked(record, holder)
            try:
                yield alone
            finally:
                self.unmount(record.Name, holder)

    async def _mount_locked(self, record: VolumeRecord, holder: str) -> None:
        if not record.is_local:
            await self._mount_elsewhere(record, holder)
        elif has_mount(record) and not self._held[record.Name]:
            where = self._store.mountpoint(record.Name)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, _mount, record.Options or {}, where)
            try:
                await loop.run_in_executor(self._executor, self._store.clear_unfilled, record.Name)
            except OSError as exc:
                self._unmount(where)
                raise Internal(f"volume {record.Name} is half populated: {exc}") from exc
        self._held[record.Name].add(holder)

    async def _mount_elsewhere(self, record: VolumeRecord, holder: str) -> None:
        """Have another driver mount its volume for a holder; each is counted there."""
        while pending := self._unmounting.get(record.Name):
            await asyncio.wait([pending])
        if holder in self._held[record.Name]:
            return

        def work() -> str:
            return self._plugins.get(record.Driver).mount(record.Name, holder)

        try:
            where = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except PierError as exc:
            text = f"error while mounting volume '{self._store.mountpoint(record.Name)}'"
            raise Internal(f"{text}: {exc.message}") from exc
        self._store.set_mountpoint(record.Name, where)

    def unmount(self, name: str, holder: str) -> None:
        """Give up what `holder` has; the last one unmounts."""
        holders = self._held[name]
        if holder not in holders:
            return
        holders.discard(holder)
        record = self._store.get(name)
        if not record.is_local:
            self._unmount_elsewhere(record, holder)
        elif has_mount(record) and not holders:
            self._unmount(self._store.mountpoint(name))

    def _unmount_elsewhere(self, record: VolumeRecord, holder: str) -> None:
        """Tell another driver, in a thread; whoever wants the volume next waits for it."""
        before = self._unmounting.get(record.Name)

        async def tell() -> None:
            if before is not None:
                await asyncio.wait([before])
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._executor,
                    lambda: self._plugins.get(record.Driver).unmount(record.Name, holder),
                )
            except PierError as exc:
                log.warning("volume %s was not unmounted: %s", record.Name, exc.message)
            if self._unmounting.get(record.Name) is task:
                del self._unmounting[record.Name]
                if not self._held[record.Name]:
                    self._store.set_mountpoint(record.Name, "")

        task = asyncio.get_running_loop().create_task(tell())
        self._unmounting[record.Name] = task

    async def given_up(self, name: str) -> None:
        """Nobody uses another driver's volume: wait until the driver was told so of all holders.

        A container may be gone before what it held is cleared away.
        """
        for holder in list(self._held[name]):
            self.unmount(name, holder)
        while pending := self._unmounting.get(name):
            await asyncio.wait([pending])

    def is_held(self, name: str) -> bool:
        """Whether somebody has it mounted."""
        return bool(self._held.get(name))

    def forget_name(self, name: str) -> None:
        """The volume has another name, and nothing of it is mounted by us."""
        self._locks.pop(name, None)
        self._held.pop(name, None)

    def forget(self, name: str) -> None:
        """The volume is about to be removed: nothing of it may stay mounted."""
        self._locks.pop(name, None)
        if self._held.pop(name, None) and self._store.get(name).is_local:
            self._unmount(self._store.mountpoint(name))

    def give_up(self, container: Container) -> None:
        """Let go of what it holds, which may be nothing, without telling anybody."""
        for record in self._mountable(container):
            self.unmount(record.Name, container.id)

    def _mountable(self, container: Container) -> list[VolumeRecord]:
        """The container's volumes that have something mounted."""
        names = {m.Name for m in container.record.mounts if m.Type == "volume"}
        found = [self._store.get(name) for name in sorted(names) if name in self._store]
        return [record for record in found if is_mounted(record)]

    def _unmount(self, where: str) -> None:
        try:
            mnt.umount2(where, mnt.MNT_DETACH)
        except OSError:
            log.exception("volume at %s was not unmounted", where)

    def _tell(self, container: Container, action: str) -> None:
        for mount in container.record.mounts:
            if mount.Type != "volume":
                continue
            attributes = {"container": container.id, "driver": mount.Driver}
            if action == "mount":
                attributes["destination"] = mount.Destination
                attributes["read/write"] = "true" if mount.RW else "false"
                attributes["propagation"] = mount.Propagation
            self._events.publish("volume", action, mount.Name, attributes)


def _mount(options: dict[str, str], where: str) -> None:
    """Mount a volume; no password of its options is in what is said of a failure."""
    about = f"error while mounting volume '{where}': "
    try:
        mount_options(options, where)
    except socket.gaierror as exc:
        text = "error resolving passed in network volume address"
        raise Internal(f"{about}{text}: {exc.strerror}: no such host") from None
    except OSError as exc:
        flags, _, data = _parse(options.get("o", ""))
        details = [f"mount {options.get('device', '')}:{where}"]
        details += [f"flags: {flags:#x}"] if flags else []
        shown = _PASSWORD.sub(r"\1=********", data)
        details += [f"data: {shown}"] if data else []
        why = os.strerror(exc.errno or 0).lower()
        raise Internal(
            f"{about}failed to mount local volume: {', '.join(details)}: {why}"
        ) from None


def mount_options(options: dict[str, str], target: str) -> None:
    """Mount `device` at `target` as `type` with `o`. Raises OSError."""
    kind, device, words = options.get("type", ""), options.get("device", ""), options.get("o", "")
    if kind in _NETWORKED:
        device, words = _resolve(kind, device, words)
    flags, propagation, data = _parse(words)
    mnt.mount(device, target, kind, flags, data)
    try:
        if flags & mnt.MS_BIND and flags & mnt.MS_RDONLY:
            mnt.mount("none", target, "", flags | mnt.MS_REMOUNT)
        if propagation:
            mnt.mount("none", target, "", propagation)
    except OSError:
        mnt.umount2(target, mnt.MNT_DETACH)
        raise


def _parse(words: str) -> tuple[int, int, str]:
    """Return the flags of the mount, those of its propagation, and the file system's options."""
    flags, propagation, data = 0, 0, []
    for word in words.split(",") if words else ():
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _PROPAGATIONS:
            propagation = _PROPAGATIONS[word]
        elif word not in _NOTHING:
            data.append(word)
    return flags, propagation, ",".join(data)


def _resolve(kind: str, device: str, words: str) -> tuple[str, str]:
    """`addr=`, or without it the host in a share's name, may be a name: the kernel looks none up.

    Returns the device and the options with an address instead. Raises gaierror.
    """
    found = _ADDRESS.search(words)
    if found and found[1]:
        return device, f"{words[: found.start(1)]}{_address(found[1])}{words[found.end(1) :]}"
    share = _SHARE.match(device) if kind == "cifs" else None
    if share:
        device = f"//{_address(share[1])}{device[share.end() :]}"
    return device, words


def _address(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as exc:
        raise socket.gaierror(exc.errno, f"lookup {host}") from exc


def mount_points() -> set[str]:
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ", 5)[4] for line in file]
    return {os.fsdecode(re.sub(rb"\\([0-7]{3})", _unescape, field)) for field in fields}


def _unescape(match: "re.Match[bytes]") -> bytes:
    return bytes((int(match[1], 8),))
