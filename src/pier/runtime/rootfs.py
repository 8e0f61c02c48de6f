"""The container's root, as a place into which the host mounts things without trusting it.

Everything below the root may be hostile: symbolic links that point outside, files where directories
are expected, a process that swaps them while we look. So a path is resolved once, by the kernel,
confined to the root (openat2 with RESOLVE_IN_ROOT), and mounts go onto the resulting descriptor,
never onto a path string. Not for what is mounted: see `mounts`.
"""

import contextlib
import errno
import os
import stat

from pier.kernel import mount as mnt
from pier.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
O_PATH_CLOEXEC = os.O_PATH | os.O_CLOEXEC


class Root:
    """The root directory of a container that is being set up. `fd` is an O_PATH descriptor of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """Open what `path` means inside the container; the caller closes it."""
        return openat2(self.fd, os.fsencode(path), flags, 0, RESOLVE)

    def make_directory(self, path: str, mode: int = 0o755) -> int:
        """Open the directory `path`, made with its parents if missing; the caller closes it.

        Symbolic links that lead nowhere are not followed into new directories: FileNotFoundError.
        """
        try:
            return self.open(path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        parent, name = os.path.split(os.path.normpath("/" + path))
        parent_fd = self.make_directory(parent, mode)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        return self.open(path, os.O_PATH | os.O_DIRECTORY)

    def make_file(self, path: str) -> int:
        """Open the file `path` as a mount point, made empty if missing; the caller closes it."""
        try:
            return self.open(path)
        except FileNotFoundError:
            pass
        parent, name = os.path.split(os.path.normpath("/" + path))
        parent_fd = self.make_directory(parent)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o755, dir_fd=parent_fd))
        finally:
            os.close(parent_fd)
        return self.open(path)

    def attach(self, mount_fd: int, path: str, *, directory: bool) -> None:
        """Attach the detached mount `mount_fd` at `path`, a mount point made if it is missing.

        Raises OSError(EPERM) when `path` is the root itself, which would hide what was set up.
        """
        target_fd = self.make_directory(path) if directory else self.make_file(path)
        try:
            self.attach_at(mount_fd, target_fd, path)
        finally:
            os.close(target_fd)

    def attach_at(self, mount_fd: int, target_fd: int, path: str) -> None:
        """Attach a detached mount on a target that is open already; `path` is for the message."""
        here, there = os.fstat(self.fd), os.fstat(target_fd)
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            raise OSError(errno.EPERM, f"mount at {path}: the root itself is no mount point")
        mnt.move_mount(mount_fd, target_fd)

    def mask(self, path: str, null_fd: int, empty_fd: int) -> None:
        """Hide `path`: a file below /dev/null, a directory below an empty tmpfs; missing is fine.

        `null_fd` is a descriptor of the host's own null device, `empty_fd` a detached read-only
        tmpfs: nothing of the container's is used, which may be anything (CVE-2025-31133).
        """
        try:
            target_fd = self.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            directory = stat.S_ISDIR(os.fstat(target_fd).st_mode)
            cover_fd = clone_tree(empty_fd if directory else null_fd)
            try:
                self.attach_at(cover_fd, target_fd, path)
            finally:
                os.close(cover_fd)
        finally:
            os.close(target_fd)

    def make_readonly(self, path: str) -> None:
        """Make the tree at `path` read-only by a bind mount of itself; missing is fine."""
        try:
            target_fd = self.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            cover_fd = clone_tree(target_fd, recursive=True)
            try:
                mnt.mount_setattr(cover_fd, mnt.MOUNT_ATTR_RDONLY, recursive=True)
                self.attach_at(cover_fd, target_fd, path)
            finally:
                os.close(cover_fd)
        finally:
            os.close(target_fd)

    def pivot(self) -> None:
        """Make this the root of the mount namespace, drop the old one, and go to "/"."""
        os.fchdir(self.fd)
        # With both at ".", the old root is stacked over the new one: no directory is needed in it.
        mnt.pivot_root(".", ".")
        mnt.umount2(".", mnt.MNT_DETACH)
        os.chdir("/")


def clone_tree(fd: int, *, recursive: bool = False) -> int:
    """Return a detached bind mount of what `fd` refers to; the caller closes it."""
    flags = mnt.OPEN_TREE_CLONE | mnt.AT_EMPTY_PATH | (mnt.AT_RECURSIVE if recursive else 0)
    return mnt.open_tree(fd, "", flags)
