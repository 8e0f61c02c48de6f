"""A container's root as its processes see it, opened from outside.

Of a running container it is that of its init process. For one that does not run it is made: overlay,
volumes and binds in a mount namespace of a thread, which ends with the view. Nothing shows in the
host's mount table, and a SIGKILL leaves nothing but an empty directory in staging/.
"""

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import AsyncIterator

from pier.engine import etc_files
from pier.engine.container import Container
from pier.engine.mounts import cow_place
from pier.engine.services import Services
from pier.engine.states import ALIVE
from pier.errors import Internal
from pier.kernel import mount as mnt
from pier.kernel.namespaces import CLONE_NEWNS, unshare
from pier.kernel.overlay import forget_volatile, mount_overlay, open_overlay
from pier.model.mounts import MountRecord
from pier.runtime.mounts import part_of
from pier.runtime.rootfs import Root
from pier.storage.cow import make_upper

_ANY = os.O_PATH | os.O_CLOEXEC
_PATH = _ANY | os.O_DIRECTORY


@contextlib.asynccontextmanager
async def opened_root(services: Services, container: Container) -> AsyncIterator[int]:
    """Hold a container's root open: an O_PATH descriptor that any thread may use meanwhile.

    A container that does not run is locked: it cannot start until this is over. Raises Internal.
    """
    root_fd = root_of_running(container)
    if root_fd is not None:
        try:
            yield root_fd
        finally:
            os.close(root_fd)
        return
    async with container.lock:
        root_fd = root_of_running(container)  # it may have been started before we had the lock
        if root_fd is not None:
            try:
                yield root_fd
            finally:
                os.close(root_fd)
            return
        if container.run is not None:
            await container.run.gone
        made = _MadeRoot(services, container)
        loop = asyncio.get_running_loop()
        await services.volume_mounts.hold(container)
        try:
            await loop.run_in_executor(services.executor, made.open)
            try:
                yield made.fd
            finally:
                await loop.run_in_executor(services.executor, made.close)
        finally:
            services.volume_mounts.let_go(container)


def root_of_running(container: Container) -> int | None:
    """Open the root of its init, None when it does not run."""
    run = container.run
    if run is None or container.record.State.Status not in ALIVE:
        return None
    try:
        # What is opened below it is this process or nothing, whoever has its number by then.
        process_fd = os.open(f"/proc/{container.record.State.Pid}", _PATH)
    except OSError:
        return None
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC
        with open(os.open("cgroup", flags, dir_fd=process_fd), encoding="utf-8") as file:
            if run.cgroup not in file.read():
                return None
        return os.open("root", _PATH, dir_fd=process_fd)
    except OSError:
        return None
    finally:
        os.close(process_fd)


class _MadeRoot:
    """The root of a container that does not run, for as long as a thread holds its mounts."""

    fd: int

    def __init__(self, services: Services, container: Container) -> None:
        self._directories = services.directories
        self._record = container.record
        self._ready = threading.Event()
        self._done = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._hold, name=f"root of {container.id[:12]}")

    def open(self) -> None:
        """Blocking. Raises Internal."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise Internal(f"mounting the root of container {self._record.Id}: {self._error}")

    def close(self) -> None:
        """Blocking: from here on somebody else may mount it."""
        self._done.set()
        self._thread.join()

    def _hold(self) -> None:
        place = self._directories.staging()
        try:
            os.mkdir(place, 0o700)
            unshare(CLONE_NEWNS)  # of this thread alone: it ends with it
            mnt.mount("none", "/", "", mnt.MS_REC | mnt.MS_PRIVATE)
            self._mount_overlay(place)
            self.fd = os.open(place, _PATH)
            try:
                self._mount_others(Root(self.fd))
                self._ready.set()
                self._done.wait()
            finally:
                os.close(self.fd)
        except OSError as exc:
            self._error = exc
        finally:
            with contextlib.suppress(OSError):
                mnt.umount2(place, mnt.MNT_DETACH)
            with contextlib.suppress(OSError):
                os.rmdir(place)
            self._ready.set()

    def _mount_overlay(self, place: str) -> None:
        record = self._record
        data = self._directories.data(record.Id)
        layers = [self._directories.point(point) for point in reversed(record.frozen)]
        layers += [self._directories.layer(chain_id) for chain_id in reversed(record.layers)]
        if not layers:
            mnt.mount(f"{data}/upper", place, "", mnt.MS_BIND)
            return
        # Volatile, or the unmount would wait for the disk, and all of pierd with it. Who writes has
        # that brought to the disk in the background (`ContainerDirectories.sync_later`).
        work = f"{data}/work"
        mount_overlay("/", layers, f"{data}/upper", work, place, volatile=True)
        forget_volatile(work)

    def _mount_others(self, root: Root) -> None:
        """Mount volumes and binds, as far as they are there; a tmpfs would be empty.

        Below them the engine's own files in /etc, if it ran: what is there is what they lie on.
        """
        data = self._directories.data(self._record.Id)
        for name in etc_files.NAMES:
            if os.stat(f"{data}/{name}").st_size:
                mount_fd = mnt.open_tree(mnt.AT_FDCWD, f"{data}/{name}", mnt.OPEN_TREE_CLONE)
                try:
                    root.attach(mount_fd, f"/etc/{name}", directory=False)
                finally:
                    os.close(mount_fd)
        for mount in self._record.mounts:
            if mount.Type not in ("bind", "volume") or not os.path.exists(mount.Source):
                continue
            flags = mnt.OPEN_TREE_CLONE | (mnt.AT_RECURSIVE if mount.recursive else 0)
            if mount.cow:
                mount_fd = self._layered(mount)
            elif mount.subpath:
                mount_fd = part_of(os.open(mount.Source, _ANY), mount.subpath, flags)
            else:
                mount_fd = mnt.open_tree(mnt.AT_FDCWD, mount.Source, flags)
            try:
                if not mount.RW:
                    recursive = mount.recursive and mount.readonly_recursive
                    mnt.mount_setattr(mount_fd, mnt.MOUNT_ATTR_RDONLY, recursive=recursive)
                directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
                root.attach(mount_fd, mount.Destination, directory=directory)
            finally:
                os.close(mount_fd)

    def _layered(self, mount: MountRecord) -> int:
        place = cow_place(self._directories.data(self._record.Id), mount.Destination)
        make_upper(place, mount.Source)
        work = f"{place}/work"
        mount_fd = open_overlay("/", [mount.Source], f"{place}/upper", work, volatile=True)
        forget_volatile(work)
        return mount_fd
