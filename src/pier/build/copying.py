"""COPY and ADD at work: files placed in the tree of a stage, whose own links may lead anywhere in it.

Everything in the tree is hostile (a base image's `/etc -> /proc/1/root` for one): paths are resolved
by openat2(2) with the tree as the root, and names are made in directories held open.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import BinaryIO, cast

from msgspec import Struct

from pier.build.chmod import Chmod
from pier.build.context import INSIDE
from pier.build.sources import Item, children
from pier.errors import InvalidParameter
from pier.kernel.openat2 import openat2
from pier.runtime import users
from pier.storage.copy import copy_data, copy_metadata
from pier.storage.decompress import Decompressed
from pier.storage.extract import extract
from pier.storage.layers import MAX_ENTRIES
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader
from pier.storage.tree import remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ID = (1 << 32) - 2
# As many links as the kernel follows, path_resolution(7).
_MAX_HOPS = 40


class Placement(Struct, frozen=True):
    """Where and how: `target` is absolute, with a slash at its end for "a directory".

    `owner` is --chown as written, `mode` --chmod. With `parents` each item keeps the
    directories of its path, from a `./` in it on. `time_ns` is the time of all that is made,
    None leaves it. With `replace` what is in the way goes, whatever it is.
    A directory that is there keeps owner and mode; one that is made for a directory's content is
    `owner`'s, with 0755 or `mode`, or has its source's mode with `source_mode`.
    """

    target: str
    owner: str = ""
    mode: Chmod | None = None
    parents: bool = False
    time_ns: int | None = None
    replace: bool = False
    source_mode: bool = False


def place(root_fd: int, items: list[tuple[Item, bytes]], how: Placement) -> None:
    """Copy items into the tree of `root_fd`; each comes with the directories to keep (b"" none).

    Raises InvalidParameter, OSError.
    """
    owner = resolve_owner(root_fd, how.owner) if how.owner else None
    job = _Placing(root_fd, owner, how.mode, how)
    with _told(how.target):
        for item, keep in items:
            target = os.fsencode(how.target)
            if keep:
                target = target.rstrip(b"/") + b"/" + keep + b"/"
            job.item(item, target)


def make_directory(root_fd: int, path: str) -> None:
    """Make a directory and those above it, as WORKDIR does. Raises InvalidParameter, OSError."""
    job = _Placing(root_fd, None, None)
    with _told(path):
        os.close(job.make(os.fsencode(path)))


@contextlib.contextmanager
def _told(target: str) -> Iterator[None]:
    """Say in BuildKit's words what is wrong with the target itself."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise InvalidParameter("too many links") from exc
        if exc.errno == errno.ENOTDIR:
            raise InvalidParameter(f"mkdir {target.rstrip('/')}: not a directory") from exc
        raise


def resolve_owner(root_fd: int, text: str) -> tuple[int, int]:
    """Look --chown up in the tree's own files. Raises InvalidParameter.

    Without a group it is the group of the same name or number.
    """
    user, _, group = text.partition(":")
    paths = []
    fds: list[int] = []
    try:
        for name in (b"etc/passwd", b"etc/group"):
            try:
                fds.append(openat2(root_fd, name, os.O_RDONLY | os.O_NONBLOCK, resolve=INSIDE))
                paths.append(f"/proc/self/fd/{fds[-1]}")
            except OSError:
                paths.append("/proc/self/fd/-1")  # it has none
        passwd, groups = paths
        try:
            uid = users.lookup(user, passwd_path=passwd, group_path=groups).uid
            number = group or user
            if number.isdecimal():
                return uid, min(int(number), _MAX_ID)
            found = users.lookup(f"{uid}:{number}", passwd_path=passwd, group_path=groups)
        except ValueError as exc:
            raise InvalidParameter(
                f"unable to convert uid/gid chown string to host mapping: {exc}"
            ) from None
        return uid, found.gid
    finally:
        for fd in fds:
            os.close(fd)


class _Placing:
    def __init__(
        self,
        root_fd: int,
        owner: tuple[int, int] | None,
        mode: Chmod | None,
        how: Placement | None = None,
    ) -> None:
        self._root_fd = root_fd
        self._owner = owner
        self._mode = mode
        self._time_ns = how.time_ns if how else None
        self._replaces = how is not None and how.replace
        self._takes_mode = how is not None and how.source_mode
        self._links: dict[tuple[int, int], tuple[int, bytes]] = {}

    def item(self, item: Item, target: bytes) -> None:
        fd = item.open()
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                source_fd = os.open(f"/proc/self/fd/{fd}", _DIRECTORY)
                try:
                    self._tree(source_fd, target, item)
                finally:
                    os.close(source_fd)
                return
            if item.unpack and stat.S_ISREG(found.st_mode) and self._unpacked(fd, target):
                return
            directory, name = self._destination(item, target)
            try:
                self._file(fd, directory, name, found, item)
            finally:
                os.close(directory)
        finally:
            os.close(fd)

    def _destination(self, item: Item, target: bytes) -> tuple[int, bytes]:
        """Return the directory, the caller's to close, and the name that a file goes to.

        A target that is a link stays one: the file goes where it leads.
        """
        for _ in range(_MAX_HOPS):
            # No ".." is ever a name to write to: above the tree's root it is the host's.
            if not target.endswith(b"/"):
                target = posixpath.normpath(target)
            if target.endswith(b"/") or self._is_directory(target):
                return self.make(target), item.name
            parent, _, name = target.rpartition(b"/")
            parent_fd = self.make(parent or b"/")
            try:
                target = _led(parent, name, parent_fd)
            except OSError as exc:
                if exc.errno in (errno.EINVAL, errno.ENOENT):
                    return parent_fd, name
                os.close(parent_fd)
                raise
            os.close(parent_fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)

    def _is_directory(self, path: bytes) -> bool:
        try:
            os.close(openat2(self._root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=INSIDE))
        except OSError:
            return False
        return True

    def make(self, path: bytes, hops: int = 0) -> int:
        """Open a directory, making what is missing, also behind links; the caller closes it."""
        path = os.fsencode(posixpath.normpath(os.fsdecode(path)))
        try:
            return openat2(self._root_fd, path, _DIRECTORY, resolve=INSIDE)
        except FileNotFoundError:
            if path in (b"/", b"."):
                raise
        parent, _, name = path.rpartition(b"/")
        parent_fd = self.make(parent or b"/", hops)
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
            fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        except FileExistsError:
            # A link that leads to nothing yet: it is made where it leads, below the root.
            if hops >= _MAX_HOPS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
            return self.make(_led(parent, name, parent_fd), hops + 1)
        finally:
            os.close(parent_fd)
        os.fchmod(fd, 0o755)
        if self._owner is not None:
            os.fchown(fd, *self._owner)
        self._date(fd)
        return fd

    def _date(self, fd: int) -> None:
        if self._time_ns is not None:
            os.utime(fd, ns=(self._time_ns, self._time_ns))

    def _tree(self, source_fd: int, target: bytes, item: Item) -> None:
        is_new = not self._is_directory(target)
        try:
            target_fd = self.make(target)
        except NotADirectoryError:
            where = os.fsdecode(target.rstrip(b"/"))
            raise InvalidParameter(f"cannot copy to non-directory: {where}") from None
        try:
            self._merge(source_fd, target_fd, item.path, item)
            if self._takes_mode:
                if is_new:
                    self._finish(source_fd, target_fd, item)
            else:
                if is_new and self._mode is not None:
                    os.fchmod(target_fd, self._permissions(os.fstat(target_fd)))
                found = os.fstat(source_fd)
                os.utime(target_fd, ns=(found.st_atime_ns, found.st_mtime_ns))
                self._date(target_fd)
        finally:
            os.close(target_fd)

    def _merge(self, source_fd: int, target_fd: int, path: bytes, item: Item) -> None:
        for name, found in children(source_fd):
            inner = path + b"/" + name if path else name
            wanted, looked = item.wants(inner, is_directory=stat.S_ISDIR(found.st_mode))
            if looked and (wanted or _holds_wanted(source_fd, name, inner, item)):
                self._subdirectory(source_fd, target_fd, name, inner, item)
            elif wanted:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
                try:
                    self._file(fd, target_fd, name, found, item)
                finally:
                    os.close(fd)

    def _subdirectory(
        self, source_fd: int, target_fd: int, name: bytes, path: bytes, item: Item
    ) -> None:
        inner_source = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=source_fd)
        try:
            if self._replaces:
                _clear_other(target_fd, name)
            try:
                os.mkdir(name, 0o755, dir_fd=target_fd)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=target_fd, follow_symlinks=False).st_mode):
                    raise InvalidParameter(
                        f"cannot copy to non-directory: {os.fsdecode(name)}"
                    ) from None
            inner_target = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=target_fd)
            try:
                self._merge(inner_source, inner_target, path, item)
                self._finish(inner_source, inner_target, item)
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)

    def _finish(self, source_fd: int, target_fd: int, item: Item) -> None:
        """Give a directory what its source has, at the end, since making files changes its times."""
        copy_metadata(source_fd, target_fd, os.fstat(source_fd))
        self._own(target_fd, item)
        self._date(target_fd)

    def _own(self, fd: int, item: Item) -> None:
        """Set owner and mode of a file or directory whose metadata was copied; times stay."""
        found = os.fstat(fd)
        mode = self._permissions(found)
        owner = self._owner or (None if item.keep_owner else (0, 0))
        if owner is not None and owner != (found.st_uid, found.st_gid):
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)  # a change of owner takes setuid bits away
        elif self._mode is not None:
            os.fchmod(fd, mode)

    def _permissions(self, found: os.stat_result) -> int:
        mode = stat.S_IMODE(found.st_mode)
        return mode if self._mode is None else self._mode(mode, stat.S_ISDIR(found.st_mode))

    def _file(
        self, source_fd: int, directory: int, name: bytes, found: os.stat_result, item: Item
    ) -> None:
        """Copy what is no directory; `source_fd` is an O_PATH descriptor of it."""
        self._clear(directory, name)
        if stat.S_ISREG(found.st_mode):
            data_fd = os.open(f"/proc/self/fd/{source_fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                target_fd = os.open(name, _WRITE, 0o600, dir_fd=directory)
                try:
                    copy_data(data_fd, target_fd, found.st_size)
                    copy_metadata(data_fd, target_fd, found)
                    self._own(target_fd, item)
                    self._date(target_fd)
                finally:
                    os.close(target_fd)
            finally:
                os.close(data_fd)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(b"", dir_fd=source_fd), name, dir_fd=directory)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=directory)
        owner = self._owner or ((found.st_uid, found.st_gid) if item.keep_owner else (0, 0))
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, self._permissions(found), dir_fd=directory)
        times = (found.st_atime_ns, found.st_mtime_ns)
        if self._time_ns is not None:
            times = (self._time_ns, self._time_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    def _clear(self, directory: int, name: bytes) -> None:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode) and not self._replaces:
            raise InvalidParameter(
                f"cannot overwrite directory {os.fsdecode(name)} with non-directory"
            )
        remove_tree(directory, name)

    def _unpacked(self, fd: int, target: bytes) -> bool:
        """Unpack an archive into the directory `target`; False when it is none."""
        with open(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:
            if not is_archive(cast("BinaryIO", file)):
                return False
        directory = self.make(target)
        try:
            with open(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:
                reader = TarReader(
                    iter(Decompressed(cast("BinaryIO", file))), max_entries=MAX_ENTRIES
                )
                extract(reader, directory, owner=self._owner)
        except TarError as exc:
            raise InvalidParameter(f"Error processing tar file: {exc}") from exc
        finally:
            os.close(directory)
        return True


def _led(parent: bytes, name: bytes, parent_fd: int) -> bytes:
    """Return the path to which the link `name` leads. Raises OSError EINVAL when it is none."""
    return posixpath.join(parent or b"/", os.readlink(name, dir_fd=parent_fd))


def _holds_wanted(parent_fd: int, name: bytes, path: bytes, item: Item) -> bool:
    """Tell whether something is copied of a directory that is only looked into."""
    fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        for inner, found in children(fd):
            below = path + b"/" + inner
            wanted, looked = item.wants(below, is_directory=stat.S_ISDIR(found.st_mode))
            if wanted or (looked and _holds_wanted(fd, inner, below, item)):
                return True
    finally:
        os.close(fd)
    return False


def _clear_other(directory: int, name: bytes) -> None:
    """Remove what is in a directory's place and is none."""
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)


def is_archive(file: BinaryIO) -> bool:
    """Tell whether a file begins as a tar does, compressed or not."""
    with contextlib.suppress(TarError):
        for _ in TarReader(iter(Decompressed(file))):
            return True
    return False
