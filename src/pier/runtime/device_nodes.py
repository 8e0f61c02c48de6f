"""The devices and links in a container's /dev, and how a device is made."""

from __future__ import annotations

import os
import stat

from pier.kernel import mount as mnt
from pier.kernel.lean import suppress
from pier.runtime.rootfs import O_PATH_CLOEXEC, Root

DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


def make_default_devices(dev_fd: int, root: Root | None = None) -> None:
    """Make the devices and links that every container has; `root` is where they are, if attached."""
    previous = os.umask(0)
    for name, major, minor in DEFAULT_DEVICES:
        make_node(root, dev_fd, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in DEV_LINKS:
        # What the image has there by that name is left, as runc does.
        with suppress(FileExistsError):
            os.symlink(target, name, dir_fd=dev_fd)
    os.umask(previous)


def make_node(  # a node's own attributes
    root: Root | None, directory_fd: int, name: str, mode: int, number: int, source: str = ""
) -> None:
    """mknod(2), or a bind mount of the host's node where a user namespace forbids that.

    The host's is at `source`, by default in /dev by the same name.
    """
    try:
        os.mknod(name, mode, number, dir_fd=directory_fd)
    except FileExistsError:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(mode) or found.st_rdev != number:
            raise
    except PermissionError:
        if root is None:
            raise
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=directory_fd))
        target_fd = os.open(name, O_PATH_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory_fd)
        node_fd = mnt.open_tree(mnt.AT_FDCWD, source or f"/dev/{name}", mnt.OPEN_TREE_CLONE)
        if os.fstat(node_fd).st_rdev != number:
            # The host has another device by this name.
            raise
        root.attach_at(node_fd, target_fd, name)
        os.close(node_fd)
        os.close(target_fd)
