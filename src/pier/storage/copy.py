"""Copying a tree with everything that it has: owners, modes, xattrs, times, links, holes.

Both trees may be hostile: nothing is followed, everything is opened by name in a directory that is
held open. Regular files are cloned where the file system can (FICLONE), else copied in the kernel
(copy_file_range), hole by hole.
"""

import contextlib
import errno
import fcntl
import os
import stat

from pier.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from pier.storage.whiteouts import OPAQUE_XATTR, is_opaque, is_whiteout

FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
CHUNK_BYTES = 1 << 30
SMALL_BYTES = 128 << 10

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What overlayfs and the security modules keep for themselves.
_PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux")


def copy_tree(source_fd: int, target_fd: int, *, is_layer: bool = False) -> int:
    """Copy what is in directory `source_fd` into the empty directory `target_fd`.

    The directory itself gets the source's owner, mode, xattrs and times. Both descriptors stay the
    caller's. Sockets are left out: they are nothing without who listens. Returns the bytes of file
    contents. With `is_layer` it is one of overlayfs, whose whiteouts and opaque directories are copied
    as such. Raises OSError (ENOSPC); then the caller throws away what there is.
    """
    return TreeCopy(target_fd, is_layer=is_layer).directory(source_fd, target_fd, b"")


class TreeCopy:
    """Copies into the tree below `root_fd`; files of several names are linked again."""

    def __init__(self, root_fd: int, *, is_layer: bool = False) -> None:
        self._is_layer = is_layer
        self._root_fd = root_fd
        self._links: dict[tuple[int, int], bytes] = {}
        """Where the first name of a file with several went, relative to the root."""

    def directory(self, source_fd: int, target_fd: int, path: bytes) -> int:
        """Copy one directory; `path` is where in the target it is, b"" or ending in a slash."""
        total = 0
        for text in os.listdir(source_fd):
            name = os.fsencode(text)
            try:
                found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went meanwhile
            total += self._entry(source_fd, target_fd, path, name, found)
        copy_metadata(source_fd, target_fd, os.fstat(source_fd))
        if self._is_layer and is_opaque(source_fd):
            os.setxattr(target_fd, OPAQUE_XATTR, b"y")
        return total

    def _entry(
        self, source_fd: int, target_fd: int, path: bytes, name: bytes, found: os.stat_result
    ) -> int:
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFSOCK or (is_whiteout(found) and not self._is_layer):
            return 0  # a whiteout outside of layers hides nothing
        if kind == stat.S_IFDIR:
            return self._subdirectory(source_fd, target_fd, path, name)
        return self._file(source_fd, name, target_fd, name, path + name, found)

    def file(
        self, source_fd: int, name: bytes, target_fd: int, new_name: bytes, path: bytes
    ) -> None:
        """Copy one that is no directory, to a name that is free. `path` is where in the target it
        will be, for further names of it. Raises OSError.
        """
        found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        self._file(source_fd, name, target_fd, new_name, path, found)

    def _file(
        self,
        source_fd: int,
        name: bytes,
        target_fd: int,
        new_name: bytes,
        path: bytes,
        found: os.stat_result,
    ) -> int:
        kind = stat.S_IFMT(found.st_mode)
        if found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            if key in self._links:
                self._link(self._links[key], target_fd, new_name)
                return 0
            self._links[key] = path
        if kind == stat.S_IFREG:
            return _copy_file(source_fd, name, target_fd, new_name)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source_fd), new_name, dir_fd=target_fd)
        else:
            os.mknod(new_name, found.st_mode, found.st_rdev, dir_fd=target_fd)
        os.chown(new_name, found.st_uid, found.st_gid, dir_fd=target_fd, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(new_name, stat.S_IMODE(found.st_mode), dir_fd=target_fd)
        os.utime(
            new_name,
            ns=(found.st_atime_ns, found.st_mtime_ns),
            dir_fd=target_fd,
            follow_symlinks=False,
        )
        return 0

    def _subdirectory(self, source_fd: int, target_fd: int, path: bytes, name: bytes) -> int:
        inner_source = os.open(name, _DIRECTORY, dir_fd=source_fd)
        try:
            os.mkdir(name, 0o700, dir_fd=target_fd)
            inner_target = os.open(name, _DIRECTORY, dir_fd=target_fd)
            try:
                return self.directory(inner_source, inner_target, path + name + b"/")
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)

    def _link(self, first: bytes, target_fd: int, name: bytes) -> None:
        """Link to a file that was copied before. Its directory is found again without links, since
        somebody else may write to the target as well.
        """
        directory, _, base = first.rpartition(b"/")
        parent_fd = openat2(
            self._root_fd,
            directory or b".",
            os.O_PATH | os.O_DIRECTORY,
            resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        )
        try:
            os.link(base, name, src_dir_fd=parent_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        finally:
            os.close(parent_fd)


def _copy_file(source_fd: int, name: bytes, target_fd: int, new_name: bytes) -> int:
    inner_source = os.open(name, _READ, dir_fd=source_fd)
    try:
        found = os.fstat(inner_source)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ESTALE, f"{os.fsdecode(name)} was replaced while it was copied")
        inner_target = os.open(new_name, _WRITE, 0o600, dir_fd=target_fd)
        try:
            copy_data(inner_source, inner_target, found.st_size)
            copy_metadata(inner_source, inner_target, found)
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)
    return found.st_size


def copy_data(source_fd: int, target_fd: int, size: int) -> None:
    """Copy a regular file's content into the empty `target_fd`, with its holes. Raises OSError."""
    if not size:
        return
    with contextlib.suppress(OSError):
        fcntl.ioctl(target_fd, FICLONE, source_fd)
        return
    if size <= SMALL_BYTES:
        _copy_range(source_fd, target_fd, 0, size)  # holes in it are not worth looking for
        return
    os.ftruncate(target_fd, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source_fd, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return  # a hole up to the end
            raise
        end = os.lseek(source_fd, start, os.SEEK_HOLE)
        _copy_range(source_fd, target_fd, start, end)
        offset = end


def _copy_range(source_fd: int, target_fd: int, start: int, end: int) -> None:
    while start < end:
        wanted = min(end - start, CHUNK_BYTES)
        try:
            done = os.copy_file_range(source_fd, target_fd, wanted, start, start)
        except OSError as exc:
            # Between some file systems it cannot be done in the kernel.
            if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            done = os.pwrite(target_fd, os.pread(source_fd, min(wanted, 1 << 20), start), start)
        if not done:
            return  # the file was cut short meanwhile
        start += done


def copy_metadata(source_fd: int, target_fd: int, found: os.stat_result) -> None:
    """Give the target the owner, mode, xattrs and times of the source. Raises OSError.

    Owner first: it clears setuid bits and security.capability. Times last.
    """
    os.fchown(target_fd, found.st_uid, found.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source_fd):
        if name.startswith(_PRIVATE_XATTRS):
            continue
        try:
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                raise
    os.utime(target_fd, ns=(found.st_atime_ns, found.st_mtime_ns))
