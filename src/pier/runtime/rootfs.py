"""The container's root, as a place into which the host mounts things without trusting it.

Everything below the root may be hostile: symbolic links that point outside, files where directories
are expected, a process that swaps them while we look. So a path is resolved once, by the kernel,
confined to the root (openat2 with RESOLVE_IN_ROOT), and mounts go onto the resulting descriptor,
never onto a path string. Not for what is mounted: see `mounts`.
"""

import errno
import os
import stat

from pier.kernel import mount as mnt
from pier.kernel.openat2 import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
O_PATH_CLOEXEC = os.O_PATH | os.O_CLOEXEC
MAX_LINKS = 40


class Root:
    """The root directory of a container that is being set up. `fd` is an O_PATH descriptor of it.

    `late_fds` are the mounts in it that are to be read-only once everything is made.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.late_fds: list[int] = []
        found = os.fstat(fd)
        self._identity = (found.st_dev, found.st_ino)
        self._path: str | None = None

    def finish(self) -> None:
        """Make the mounts read-only that had to wait for it."""
        while self.late_fds:
            fd = self.late_fds.pop()
            mnt.mount_setattr(fd, mnt.MOUNT_ATTR_RDONLY)
            os.close(fd)

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """Open what `path` means inside the container; the caller closes it."""
        return openat2(self.fd, os.fsencode(path), flags, 0, RESOLVE)

    def make_directory(self, path: str) -> int:
        """Open the directory `path`, made with its parents if missing; the caller closes it."""
        return self._make(path, os.O_PATH | os.O_DIRECTORY, MAX_LINKS)

    def make_file(self, path: str) -> int:
        """Open the file `path` as a mount point, made empty if missing; the caller closes it."""
        return self._make(path, os.O_PATH, MAX_LINKS)

    def _make(self, path: str, flags: int, links: int) -> int:
        """Open `path`, made if it is missing, also where a symbolic link leads to it.

        Such as /etc/resolv.conf in many an image: a link to what systemd would make. The link's text
        only says which path, confined like any other, is tried next.
        """
        try:
            return self.open(path, flags)
        except FileNotFoundError:
            pass
        parent, name = os.path.split(os.path.normpath("/" + path))
        parent_fd = self._make(parent, os.O_PATH | os.O_DIRECTORY, links)
        try:
            try:
                if not flags & os.O_DIRECTORY:
                    # Itself, which nobody can have put there or replaced since.
                    return _create_file(parent_fd, name)
                os.mkdir(name, 0o755, dir_fd=parent_fd)
            except FileExistsError:
                target = _link_target(parent_fd, name)
                if target is None:
                    return self.open(path, flags)
                if links == 0:
                    raise OSError(errno.ELOOP, f"{path}: {os.strerror(errno.ELOOP)}") from None
                return self._make(os.path.join(self.path_of(parent_fd), target), flags, links - 1)
        finally:
            os.close(parent_fd)
        return self.open(path, flags)

    def path_of(self, fd: int) -> str:
        """The path of a directory below the root, as seen from it."""
        if self._path is None:
            # Nothing moves it: what stands above it stays as it is until the pivot.
            self._path = os.readlink(f"/proc/self/fd/{self.fd}")
        here = self._path
        return "/" + os.readlink(f"/proc/self/fd/{fd}")[len(here) :].lstrip("/")

    def attach_plainly(self, mount_fd: int, path: str) -> None:
        """Attach at a directory that no symbolic link leads to: for /proc and /sys.

        Else a link into a shared volume would put procfs where another container can move it
        away before its dangerous parts are covered (CVE-2019-19921, CVE-2023-27561).
        """
        try:
            target_fd = self._open_plainly(path)
        except FileNotFoundError:
            os.close(self.make_directory(path))
            target_fd = self._open_plainly(path)
        try:
            self.attach_at(mount_fd, target_fd, path)
        finally:
            os.close(target_fd)

    def _open_plainly(self, path: str) -> int:
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            return openat2(self.fd, os.fsencode(path), flags, 0, RESOLVE | RESOLVE_NO_SYMLINKS)
        except OSError as exc:
            if exc.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, f"{path} must be mounted on ordinary directory") from exc

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
        there = os.fstat(target_fd)
        if self._identity == (there.st_dev, there.st_ino):
            raise OSError(errno.EPERM, f"mount at {path}: the root itself is no mount point")
        mnt.move_mount(mount_fd, target_fd)

    def mask(self, path: str, null_fd: int, empty_fd: int, *, attached: bool) -> bool:
        """Hide `path`: a file below /dev/null, a directory below an empty tmpfs; missing is fine.

        `attached` tells whether the tmpfs covers something already, and the result whether it does
        now: the first to need it gets it, the others a clone, since kernels before 6.15 clone no
        mount that was never attached.

        `null_fd` is a descriptor of the host's own null device, `empty_fd` a read-only tmpfs
        that we made: nothing of the container's is used, which may be anything (CVE-2025-31133).
        """
        try:
            target_fd = self.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return attached
        try:
            directory = stat.S_ISDIR(os.fstat(target_fd).st_mode)
            if directory and not attached:
                self.attach_at(empty_fd, target_fd, path)
                return True
            cover_fd = clone_tree(empty_fd if directory else null_fd)
            try:
                self.attach_at(cover_fd, target_fd, path)
            finally:
                os.close(cover_fd)
            return attached
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

    def enter(self) -> None:
        """Make this the root of this process alone, in a mount namespace that is not its own."""
        os.fchdir(self.fd)
        os.chroot(".")

    def move(self) -> None:
        """As `pivot`, where that cannot be: on an initramfs, which is nobody's mount to leave.

        The old root stays below the new one. Its procfs and sysfs are taken away: as long as whole
        ones can be reached, the kernel lets new ones be mounted without what covers them.
        """
        os.fchdir(self.fd)
        here = os.getcwd()
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
        for line in lines:
            left, _, right = line.partition(b" - ")
            target = os.fsdecode(left.split()[4])
            if right.split()[0] in (b"proc", b"sysfs") and not target.startswith(here + "/"):
                mnt.umount2(target, mnt.MNT_DETACH)
        mnt.mount(here, "/", "", mnt.MS_MOVE)
        os.chroot(".")
        os.chdir("/")


def _create_file(directory_fd: int, name: str) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o755, dir_fd=directory_fd)


def _link_target(directory_fd: int, name: str) -> str | None:
    """What the symbolic link `name` says; None when it is none."""
    try:
        return os.readlink(name, dir_fd=directory_fd)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return None


def clone_tree(fd: int, *, recursive: bool = False) -> int:
    """Return a detached bind mount of what `fd` refers to; the caller closes it."""
    flags = mnt.OPEN_TREE_CLONE | mnt.AT_EMPTY_PATH | (mnt.AT_RECURSIVE if recursive else 0)
    return mnt.open_tree(fd, "", flags)
