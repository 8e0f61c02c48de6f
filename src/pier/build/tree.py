"""A stage's files to work on: its layers and an empty upper directory on top, as an overlay.

Mounted in a mount namespace of its own: a SIGKILL leaves nothing but a directory in staging/.
"""

import os
from collections.abc import Callable, Sequence

from pier.kernel import mount as mnt
from pier.kernel.apart import in_own_mounts
from pier.kernel.overlay import mount_overlay


def work_on(layers: Sequence[str], directory: str, work: Callable[[int], None]) -> str:
    """Call `work` with the root of `layers` (paths, uppermost first) in a thread; wait for it.

    `directory` is empty, and gets the upper directory in it, whose path is returned. Raises what
    `work` raises, and OSError.
    """
    upper, place = os.path.join(directory, "upper"), os.path.join(directory, "root")
    for name in ("upper", "work", "root"):
        os.mkdir(os.path.join(directory, name), 0o755)

    def run() -> None:
        if layers:
            # Volatile, or its unmount would wait for the disk, and all of pierd with it: what
            # becomes a layer is synced as a layer.
            work_place = os.path.join(directory, "work")
            mount_overlay("/", list(layers), upper, work_place, place, volatile=True)
        else:
            mnt.mount(upper, place, "", mnt.MS_BIND)
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            work(fd)
        finally:
            os.close(fd)
            mnt.umount2(place, mnt.MNT_DETACH)

    in_own_mounts(run, "build step")
    return upper
