"""A working directory that the image has not: made in a container's layer when it is created.

So that `docker cp`, `diff` and `export` see it before the first start, as with dockerd
(moby/moby, Container.SetupWorkingDirectory). The start makes it again where a mount has hidden it.
"""

import asyncio
import errno
import os

from pier.engine.services import Services
from pier.errors import Internal
from pier.images.image import Image
from pier.kernel import mount as mnt
from pier.kernel.apart import in_own_mounts
from pier.kernel.overlay import forget_volatile, mount_overlay
from pier.model.container import ContainerRecord
from pier.runtime.rootfs import Root
from pier.storage.merged import MergedDirectory


async def make_working_directory(services: Services, record: ContainerRecord, image: Image) -> bool:
    """Make it, owned by root, if it is missing; tell whether that took a moment.

    Raises Internal, in dockerd's words for a file that stands in its place.
    """
    path = record.Config.WorkingDir
    if path in ("", "/"):
        return False
    layers = [services.directories.layer(chain_id) for chain_id in reversed(record.layers)]
    if _is_there(layers, path):
        return False
    data = services.directories.data(record.Id)
    loop = asyncio.get_running_loop()
    with services.images.pinned() as pins:
        pins.add(*image.chain_ids)
        try:
            await loop.run_in_executor(services.executor, _make, layers, data, path)
        except OSError as exc:
            raise Internal(_say(exc, path)) from exc
    return True


def _is_there(layers: list[str], path: str) -> bool:
    """Whether the layers have it, with no symbolic link on the way: those are left to the kernel."""
    try:
        here = MergedDirectory.open(layers)
        for part in os.fsencode(path).strip(b"/").split(b"/"):
            with here:
                inner = here.enter(part)
            if inner is None:
                return False
            here = inner
        here.close()
    except OSError:
        return False
    return True


def _make(layers: list[str], data: str, path: str) -> None:
    """Blocking. The overlay is mounted for a moment, over its own upper directory. Raises OSError."""
    upper, workdir = f"{data}/upper", f"{data}/work"

    def work() -> None:
        # Volatile, or its unmount would wait for the disk.
        mount_overlay("/", layers, upper, workdir, upper, volatile=True)
        try:
            _make_below(upper, path)
        finally:
            mnt.umount2(upper, mnt.MNT_DETACH)
            forget_volatile(workdir)

    if layers:
        in_own_mounts(work, "working directory")
    else:
        _make_below(upper, path)


def _make_below(root: str, path: str) -> None:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(Root(root_fd).make_directory(path))
    finally:
        os.close(root_fd)


def _say(error: OSError, path: str) -> str:
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"Cannot mkdir: {path} is not a directory"
    return f"mkdir {path}: {os.strerror(error.errno or 0).lower()}"
