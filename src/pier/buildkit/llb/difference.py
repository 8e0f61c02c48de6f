"""What makes one tree of another, as a layer: files that are new or changed, whiteouts for those gone.

For trees of which neither stands on the other; of those that do, the layers themselves are the answer.
Blocking; raises OSError.
"""

import filecmp
import os
import stat

from pier.storage.copy import TreeCopy, copy_metadata
from pier.storage.whiteouts import is_whiteout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OVERLAY = "trusted.overlay."


def write_difference(lower_fd: int, upper_fd: int, target_fd: int) -> None:
    """Put what `upper_fd` has other than `lower_fd` into the empty directory `target_fd`."""
    place = _Place(None, b"")
    place.fd = target_fd
    _Differ(target_fd).directory(lower_fd, upper_fd, place)
    copy_metadata(upper_fd, target_fd, os.fstat(upper_fd))


class _Place:
    """A directory of the layer, made when there is something for it."""

    def __init__(self, parent: "_Place | None", name: bytes) -> None:
        self._parent = parent
        self._name = name
        self.fd = -1
        self.path: bytes = parent.path + name + b"/" if parent is not None else b""

    def open(self) -> int:
        if self.fd < 0:
            assert self._parent is not None
            parent_fd = self._parent.open()
            os.mkdir(self._name, 0o700, dir_fd=parent_fd)
            self.fd = os.open(self._name, _DIRECTORY, dir_fd=parent_fd)
        return self.fd


class _Differ:
    def __init__(self, target_fd: int) -> None:
        self._copier = TreeCopy(target_fd)

    def directory(self, lower_fd: int, upper_fd: int, place: _Place) -> None:
        before, after = _children(lower_fd), _children(upper_fd)
        for name in sorted(before.keys() - after.keys()):
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=place.open())
        for name, found in sorted(after.items()):
            old = before.get(name)
            if not stat.S_ISDIR(found.st_mode):
                if old is None or _differs(lower_fd, upper_fd, name, old, found):
                    path = place.path + name
                    self._copier.file(upper_fd, name, place.open(), name, path)
                continue
            upper = os.open(name, _DIRECTORY, dir_fd=upper_fd)
            try:
                self._subdirectory(lower_fd, upper, place, name, old)
            finally:
                os.close(upper)

    def _subdirectory(
        self,
        lower_fd: int,
        upper: int,
        place: _Place,
        name: bytes,
        old: os.stat_result | None,
    ) -> None:
        inner = _Place(place, name)
        try:
            if old is None or not stat.S_ISDIR(old.st_mode):
                self._copier.directory(upper, inner.open(), inner.path)
                return
            lower = os.open(name, _DIRECTORY, dir_fd=lower_fd)
            try:
                if _about(old) != _about(os.fstat(upper)) or _xattrs(lower) != _xattrs(upper):
                    inner.open()
                self.directory(lower, upper, inner)
            finally:
                os.close(lower)
            if inner.fd >= 0:
                copy_metadata(upper, inner.fd, os.fstat(upper))
        finally:
            if inner.fd >= 0:
                os.close(inner.fd)


def _children(fd: int) -> dict[bytes, os.stat_result]:
    """Describe what is in a directory. A single layer shows its whiteouts, which hide nothing."""
    found = {}
    for text in os.listdir(fd):
        name = os.fsencode(text)
        described = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not is_whiteout(described) and not stat.S_ISSOCK(described.st_mode):
            found[name] = described
    return found


def _about(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_mode, found.st_uid, found.st_gid, found.st_rdev)


def _differs(
    lower_fd: int, upper_fd: int, name: bytes, old: os.stat_result, new: os.stat_result
) -> bool:
    """Tell whether a file is another one, or its content, owner, mode, time or xattrs are."""
    if _about(old) != _about(new) or old.st_mtime_ns != new.st_mtime_ns:
        return True
    if stat.S_ISLNK(new.st_mode):
        return os.readlink(name, dir_fd=lower_fd) != os.readlink(name, dir_fd=upper_fd)
    if not stat.S_ISREG(new.st_mode):
        return False
    if old.st_size != new.st_size:
        return True
    if (old.st_ino, old.st_ctime_ns) == (new.st_ino, new.st_ctime_ns):
        return False  # the same file of a layer that both have
    lower, upper = os.open(name, _READ, dir_fd=lower_fd), os.open(name, _READ, dir_fd=upper_fd)
    try:
        if _xattrs(lower) != _xattrs(upper):
            return True
        return not filecmp.cmp(f"/proc/self/fd/{lower}", f"/proc/self/fd/{upper}", shallow=False)
    finally:
        os.close(lower)
        os.close(upper)


def _xattrs(fd: int) -> dict[str, bytes]:
    names = [name for name in os.listxattr(fd) if not name.startswith(_OVERLAY)]
    return {name: os.getxattr(fd, name) for name in names}
