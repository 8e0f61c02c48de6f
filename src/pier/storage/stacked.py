"""An image's file system as one tree, for reading: its layers stacked by overlayfs.

The mount is in nobody's mount table: detached where the kernel can stack layers that way (6.7), else
made in a mount namespace of a thread that ends at once. It goes with its last descriptor, so that a
SIGKILL leaves nothing.
"""

import os
from collections.abc import Sequence

from pier.kernel import mount as mnt
from pier.kernel.apart import in_own_mounts
from pier.kernel.overlay import lacks_lowerdir_plus

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def open_stacked(layers: Sequence[str]) -> int:
    """Return the root directory of `layers` (paths, top layer first), the caller's to close.

    A single layer is opened as it is: its whiteouts, which hide nothing then, show as devices.
    Raises OSError.
    """
    if len(layers) == 1:
        return os.open(layers[0], _DIRECTORY)
    fds: list[int] = []
    try:
        for layer in layers:
            fds.append(os.open(layer, _PATH))  # noqa: PERF401 - each must be closed
        # By descriptor: fsconfig(2) takes 255 bytes a value, and a path may be longer.
        names = [f"/proc/self/fd/{fd}" for fd in fds]
        try:
            return mnt.new_mount(
                "overlay",
                [("lowerdir+", name) for name in names],
                source="overlay",
                attributes=mnt.MOUNT_ATTR_RDONLY,
            )
        except OSError as exc:
            if not lacks_lowerdir_plus(exc):
                raise
        return _mount_aside(layers)
    finally:
        for fd in fds:
            os.close(fd)


def _mount_aside(layers: Sequence[str]) -> int:
    """Mount over the lowest layer in a namespace that ends with the thread that made it."""
    fds: list[int] = []

    def work() -> int:
        try:
            # Opened in here: overlayfs takes no layer of another mount namespace.
            fds.extend(os.open(layer, _PATH) for layer in layers)
            lower = ":".join(f"/proc/self/fd/{fd}" for fd in fds)
            mnt.mount("overlay", layers[0], "overlay", mnt.MS_RDONLY, f"lowerdir={lower}")
            return os.open(layers[0], _DIRECTORY)
        finally:
            for fd in fds:
                os.close(fd)

    return in_own_mounts(work, "overlay")
