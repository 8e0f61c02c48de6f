"""A path of a container's, as `docker cp` means it: resolved within the root, the end not followed.

The root's content is hostile. Every look goes by openat2(2) confined to the root; what is found is
worked on by descriptor.
"""

import errno
import os
import posixpath
import stat

from pier.errors import Internal, InvalidParameter, NotFound
from pier.kernel.openat2 import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)
from pier.model.api_containers import PathStat
from pier.model.gotime import format_ns

MAX_LINKS = 255
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_PATH = os.O_PATH
_DIRECTORY = os.O_PATH | os.O_DIRECTORY

# Go's os.FileMode: the permission bits as in Unix, the others in places of their own.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class Place:
    """What a path names: `parent_fd`, the caller's to close, and the `name` in it.

    `parent_fd` is the thing itself and `name` b"" where the path ends in a slash or dot. `shown` is
    what an archive calls it.
    """

    def __init__(self, parent_fd: int, name: bytes, shown: str, found: os.stat_result) -> None:
        self.parent_fd = parent_fd
        self.name = name
        self.shown = shown
        self.found = found

    @property
    def is_root(self) -> bool:
        """Whether it is the container's root, asked for as such."""
        return self.shown == "/"


def absolute(path: str) -> str:
    """Clean a path as dockerd does: from the root on, and what "/" or "/." at the end says stays.

    Raises InvalidParameter when it is empty.
    """
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    if posixpath.basename(path.rstrip("/")) == ".":
        return cleaned.rstrip("/") + "/."
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def locate(root_fd: int, path: str, ref: str) -> Place:
    """Find what a path (of `absolute`) names. Raises NotFound, Internal in dockerd's words."""
    whole = path.endswith(("/", "/."))
    parent, _, name = path.rpartition("/")
    try:
        if whole:
            fd = openat2(root_fd, os.fsencode(path), _DIRECTORY, resolve=_INSIDE)
            return Place(fd, b"", _shown(path), os.fstat(fd))
        fd = openat2(root_fd, os.fsencode(parent or "/"), _DIRECTORY, resolve=_INSIDE)
        try:
            found = os.stat(os.fsencode(name), dir_fd=fd, follow_symlinks=False)
        except BaseException:
            os.close(fd)
            raise
        return Place(fd, os.fsencode(name), name, found)
    except OSError as exc:
        raise _failure(exc, path, ref) from exc


def open_directory(root_fd: int, path: str, ref: str) -> int:
    """Open the directory that a path names, following a link at its end; the caller closes it.

    Raises NotFound, InvalidParameter, Internal.
    """
    try:
        fd = openat2(root_fd, os.fsencode(path), _PATH, resolve=_INSIDE)
    except OSError as exc:
        raise _failure(exc, path, ref) from exc
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidParameter("extraction point is not a directory")
    return fd


def path_stat(root_fd: int, path: str, ref: str) -> PathStat:
    """Return what HEAD tells of a path. Raises NotFound, Internal."""
    place = locate(root_fd, path, ref)
    os.close(place.parent_fd)
    found = place.found
    is_link = stat.S_ISLNK(found.st_mode)
    return PathStat(
        name=place.shown,
        size=found.st_size,
        mode=go_mode(found.st_mode),
        mtime=format_ns(found.st_mtime_ns),
        linkTarget=follow(root_fd, path) if is_link else "",
    )


def go_mode(mode: int) -> int:
    """Return Unix mode bits as Go's os.FileMode."""
    result = mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _GO_BITS:
        if mode & bit:
            result |= go_bit
    return result


def follow(root_fd: int, path: str) -> str:
    """Return where a path leads when every link in it is followed within the root.

    What does not exist stays as it is written. Raises Internal for a loop.
    """
    pending = [part for part in path.split("/") if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        target = _read_link(root_fd, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise Internal(f"too many links in {path}")
        if target.startswith("/"):
            done = []
        pending = [word for word in target.split("/") if word not in ("", ".")] + pending
    return "/" + "/".join(done)


def _read_link(root_fd: int, path: str) -> str | None:
    """The text of the link at a path without links in its middle, None when it is none."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
    try:
        fd = openat2(root_fd, os.fsencode(path), _PATH | os.O_NOFOLLOW, resolve=resolve)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def _shown(path: str) -> str:
    if path.endswith("/."):
        return "."
    return posixpath.basename(path.rstrip("/")) or "/"


def _failure(exc: OSError, path: str, ref: str) -> NotFound | Internal:
    if exc.errno == errno.ENOENT:
        return NotFound(f"Could not find the file {path} in container {ref}")
    return Internal(f"lstat {path}: {os.strerror(exc.errno or 0).lower()}")
