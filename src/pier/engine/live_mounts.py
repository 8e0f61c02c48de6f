"""Binds and volumes for a container that exists: `pier update --mount-add` (moby#31452).

Of one that runs the mount is made at once: a detached clone of the source, attached in its mount
namespace by a thread of ours that enters it, holds descriptors only, and ends. The record has it
from then on, so the next start makes it as well.
"""

import asyncio
import os
import stat
import threading

from pier.engine.container import Container
from pier.engine.container_root import root_of_running
from pier.engine.services import Services
from pier.engine.user_mounts import parse_mount
from pier.errors import Conflict, Internal, InvalidParameter, Unsupported
from pier.kernel import mount as mnt
from pier.kernel.namespaces import CLONE_NEWNS, setns, unshare
from pier.model.container import HostConfig, Mount
from pier.model.mounts import DEFAULT_PROPAGATION, MountRecord
from pier.runtime.mounts import check_target, part_of
from pier.runtime.rootfs import Root


def parse_added(wanted: list[Mount]) -> list[MountRecord]:
    """Raises InvalidParameter, Unsupported for what cannot be added."""
    found = [parse_mount(entry) for entry in wanted]
    for mount in found:
        if mount.Type not in ("bind", "volume"):
            raise Unsupported(f"a mount of type {mount.Type} cannot be added to a container")
        if mount.idmap or mount.cow or mount.Propagation not in ("", DEFAULT_PROPAGATION):
            raise Unsupported("idmap, cow and propagation are not for mounts that are added")
        if mount.Type == "bind":
            mount.Propagation = DEFAULT_PROPAGATION
        if mount.anonymous:
            raise InvalidParameter("a volume that is added needs a name")
    return found


async def add_mounts(
    services: Services, container: Container, wanted: list[Mount], host: HostConfig
) -> None:
    """With the container's lock held: mount what is wanted, and note it in `host` and the record,
    which is the caller's to save. Those before one that fails stay. Raises Conflict, InvalidParameter, Internal.
    """
    record = container.record
    added = parse_added(wanted)
    taken = {mount.Destination for mount in record.mounts}
    for mount in added:
        if mount.Destination in taken:
            raise Conflict(f"Duplicate mount point: {mount.Destination}")
        taken.add(mount.Destination)
    for mount, entry in zip(added, wanted, strict=True):
        try:
            await _add(services, container, mount)
        except BaseException:
            services.volumes.release(container.id, [mount], remove=False)
            record.HostConfig.Mounts = host.Mounts  # those before it are there, and stay
            services.store.save(container)
            raise
        mount.labels, mount.driver_options = {}, {}
        record.mounts = sorted([*record.mounts, mount], key=lambda m: m.Destination.count("/"))
        host.Mounts = [*host.Mounts, entry]


async def _add(services: Services, container: Container, mount: MountRecord) -> None:
    root_fd = root_of_running(container)
    try:
        if mount.Type == "volume":
            await _settle_volume(services, mount, container.id, running=root_fd is not None)
        else:
            _check_source(mount.Source)
        if root_fd is not None:
            await asyncio.get_running_loop().run_in_executor(
                services.executor, _in_own_thread, mount, root_fd, container.record.State.Pid
            )
    except OSError as exc:
        text = f"mounting {mount.Source} at {mount.Destination}: {exc.strerror or exc}"
        raise Internal(text) from exc
    finally:
        if root_fd is not None:
            os.close(root_fd)


def _check_source(path: str) -> None:
    if not os.path.exists(path):
        raise InvalidParameter(f"bind source path does not exist: {path}")


async def _settle_volume(
    services: Services, mount: MountRecord, container_id: str, *, running: bool
) -> None:
    record = await services.volumes.ensure(
        mount.Name, mount.Driver, mount.driver_options, mount.labels
    )
    if running:
        await services.volume_mounts.mount(record, container_id)
    services.volumes.use(record.Name, container_id)
    mount.Driver, mount.Mode, mount.copies = record.Driver, "z", False
    mount.Source = services.volumes.mountpoint(record.Name)


def _in_own_thread(mount: MountRecord, root_fd: int, pid: int) -> None:
    """Attach a mount in a thread that nobody gets back: it ends in the container's namespace."""
    failures: list[OSError] = []

    def work() -> None:
        try:
            _attach(mount, root_fd, pid)
        except OSError as exc:
            failures.append(exc)

    thread = threading.Thread(target=work, name=f"mount for {pid}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _attach(mount: MountRecord, root_fd: int, pid: int) -> None:
    flags = mnt.OPEN_TREE_CLONE | (mnt.AT_RECURSIVE if mount.recursive else 0)
    namespace_fd = mount_fd = target_fd = -1
    try:
        namespace_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # Of the process whose root we hold: if it is gone, its number may be another's by now.
        held, there = os.fstat(root_fd), os.stat(f"/proc/{pid}/root/.")
        if (held.st_dev, held.st_ino) != (there.st_dev, there.st_ino):
            raise ProcessLookupError("the container has just ended")
        if mount.subpath:
            whole_fd = os.open(mount.Source, os.O_PATH | os.O_CLOEXEC)
            mount_fd = part_of(whole_fd, mount.subpath, flags)
        else:
            mount_fd = mnt.open_tree(mnt.AT_FDCWD, mount.Source, flags)
        mnt.mount_setattr(mount_fd, 0, propagation=mnt.MS_PRIVATE, recursive=True)
        if not mount.RW:
            recursive = mount.recursive and mount.readonly_recursive
            mnt.mount_setattr(mount_fd, mnt.MOUNT_ATTR_RDONLY, recursive=recursive)
        root = Root(root_fd)
        directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
        place = mount.Destination
        target_fd = root.make_directory(place) if directory else root.make_file(place)
        check_target(root, mount_fd, target_fd, place)
        unshare(CLONE_NEWNS)  # this thread's root and working directory are its own from here on
        setns(namespace_fd, CLONE_NEWNS)
        root.attach_at(mount_fd, target_fd, place)
    finally:
        for fd in (namespace_fd, mount_fd, target_fd):
            if fd >= 0:
                os.close(fd)
