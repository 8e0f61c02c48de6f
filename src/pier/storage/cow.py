"""A directory of the host's with an upper directory over it: what differs, and writing it back.

The upper directory is overlayfs's and its content hostile; the source is the user's. Both are walked
by descriptors, following nothing. What is written back takes the place of what was there by a rename,
file by file: whoever reads the source sees a whole old file or a whole new one.
"""

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from typing import NamedTuple

from pier.storage.copy import TreeCopy, copy_metadata
from pier.storage.whiteouts import OPAQUE_XATTR, is_opaque, is_whiteout

MODIFIED, ADDED, DELETED = range(3)
"""As in Docker's answer to `GET /containers/{id}/changes`."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = b".pier-apply-"


class Difference(NamedTuple):
    """`path` is relative to the source; `kind` one of MODIFIED, ADDED, DELETED."""

    path: bytes
    kind: int


def make_upper(place: str, source: str) -> None:
    """Make `place`/upper, which looks like `source`, and `place`/work, unless they are there.

    Raises OSError: NotADirectoryError for a source that is a file.
    """
    if os.path.isdir(f"{place}/upper"):
        return
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.makedirs(f"{place}/work", mode=0o700, exist_ok=True)
        # By a rename: one that is there is as it should be.
        staged = f"{place}/upper.{secrets.token_hex(4)}"
        os.mkdir(staged, 0o700)
        staged_fd = os.open(staged, _DIRECTORY)
        try:
            copy_metadata(source_fd, staged_fd, os.fstat(source_fd))
        finally:
            os.close(staged_fd)
        os.rename(staged, f"{place}/upper")
    finally:
        os.close(source_fd)


def differences(source_fd: int, upper_fd: int, only: bytes = b"") -> Iterator[Difference]:
    """Yield what the upper directory changes of the source, a directory before what is in it.

    `only` is a path below both: nothing but that and what is in it is looked at. A file that is in
    both with the same kind, owner, mode, size and time is no difference. The descriptors stay the
    caller's. Raises OSError.
    """
    parts = only.split(b"/") if only else []
    for found in _walk(source_fd, upper_fd, b"", parts):
        yield found.difference


def write_back(
    source_fd: int, upper_fd: int, only: bytes = b"", *, settle: bool = False
) -> Iterator[Difference]:
    """Make the source what the two are together; yields what was done. Raises OSError.

    With `settle` what was written back is taken out of the upper directory, which nobody may have
    mounted then: later changes of the source are seen again. What was written back before an error
    stays so.
    """
    copier = TreeCopy(source_fd)
    directories: list[bytes] = []
    parts = only.split(b"/") if only else []
    for found in _walk(source_fd, upper_fd, b"", parts):
        _apply(found, copier)
        if found.kind == stat.S_IFDIR:
            directories.append(found.difference.path)
        elif settle and found.upper_fd >= 0:
            os.unlink(found.name, dir_fd=found.upper_fd)
        yield found.difference
    for path in reversed(directories):
        # Once more: the coming and going of its files has changed its times.
        _adorn(source_fd, upper_fd, path)
    if settle:
        _clear_opaque(upper_fd, parts)


class _Found(NamedTuple):
    """One difference, in the directories that have it. `source_fd` is -1 below what the source has
    not, `upper_fd` below what an opaque directory hides; `kind` is the upper one's S_IFMT, 0 for
    nothing.
    """

    difference: Difference
    name: bytes
    source_fd: int
    upper_fd: int
    kind: int


def _walk(source_fd: int, upper_fd: int, prefix: bytes, parts: list[bytes]) -> Iterator[_Found]:
    """Yield differences; their descriptors are good until the next one is asked for.

    `parts` is the way to what is asked for, nothing else is looked at.
    """
    names = sorted(os.fsencode(name) for name in os.listdir(upper_fd))
    if parts:
        names = [name for name in names if name == parts[0]]
    asked = len(parts) <= 1
    for name in names:
        inside, there = _lstat(upper_fd, name), _lstat(source_fd, name)
        if inside is None or stat.S_ISSOCK(inside.st_mode):
            continue
        path = prefix + name
        change = Difference(path, ADDED if there is None else MODIFIED)
        kind = stat.S_IFMT(inside.st_mode)
        if is_whiteout(inside):
            if there is not None and asked:
                yield _Found(Difference(path, DELETED), name, source_fd, upper_fd, 0)
        elif kind == stat.S_IFDIR:
            if asked and (there is None or not _is_same_directory(inside, there)):
                yield _Found(change, name, source_fd, upper_fd, kind)
            # The source's is opened now: who writes back has just made it.
            yield from _below(source_fd, upper_fd, name, path, parts[1:])
        elif asked and (there is None or not _is_same(source_fd, upper_fd, name, there, inside)):
            yield _Found(change, name, source_fd, upper_fd, kind)


def _below(
    source_fd: int, upper_fd: int, name: bytes, path: bytes, parts: list[bytes]
) -> Iterator[_Found]:
    inner_upper = inner_source = -1
    try:
        inner_upper = os.open(name, _DIRECTORY, dir_fd=upper_fd)
        if source_fd >= 0:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                inner_source = os.open(name, _DIRECTORY, dir_fd=source_fd)
        if inner_source >= 0 and is_opaque(inner_upper):
            present = set(os.listdir(inner_upper))
            for text in sorted(set(os.listdir(inner_source)) - present):
                hidden = os.fsencode(text)
                if not parts or hidden == parts[0]:
                    gone = Difference(path + b"/" + hidden, DELETED)
                    yield _Found(gone, hidden, inner_source, -1, 0)
        yield from _walk(inner_source, inner_upper, path + b"/", parts)
    except FileNotFoundError:
        return  # it went meanwhile
    finally:
        for fd in (inner_upper, inner_source):
            if fd >= 0:
                os.close(fd)


def _lstat(directory_fd: int, name: bytes) -> os.stat_result | None:
    if directory_fd < 0:
        return None
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_same_directory(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _is_same(
    source_fd: int, upper_fd: int, name: bytes, there: os.stat_result, inside: os.stat_result
) -> bool:
    if not _is_same_directory(inside, there):
        return False
    if stat.S_ISLNK(inside.st_mode):
        return os.readlink(name, dir_fd=source_fd) == os.readlink(name, dir_fd=upper_fd)
    if stat.S_ISREG(inside.st_mode):
        return (inside.st_size, inside.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    return inside.st_rdev == there.st_rdev


def _apply(found: _Found, copier: TreeCopy) -> None:
    """Do one difference to the source."""
    name, source_fd = found.name, found.source_fd
    if found.kind == 0:
        _remove(source_fd, name)
        return
    staged = _TEMPORARY + secrets.token_hex(8).encode()
    try:
        if found.kind == stat.S_IFDIR:
            there = _lstat(source_fd, name)
            if there is not None and stat.S_ISDIR(there.st_mode):
                return  # it is adorned at the end
            os.mkdir(staged, 0o700, dir_fd=source_fd)
        else:
            copier.file(found.upper_fd, name, source_fd, staged, found.difference.path)
        _put(source_fd, staged, name, is_directory=found.kind == stat.S_IFDIR)
    except BaseException:
        _remove(source_fd, staged)
        raise


def _put(directory_fd: int, staged: bytes, name: bytes, *, is_directory: bool) -> None:
    """Rename over what is there; a directory and a file cannot take each other's place at once."""
    there = _lstat(directory_fd, name)
    old = b""
    if there is not None and stat.S_ISDIR(there.st_mode) != is_directory:
        old = _TEMPORARY + secrets.token_hex(8).encode()
        os.rename(name, old, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    os.rename(staged, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    if old:
        _remove(directory_fd, old)


def _remove(directory_fd: int, name: bytes) -> None:
    """Remove a file or a tree; it may be gone already."""
    found = _lstat(directory_fd, name)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        shutil.rmtree(name, dir_fd=directory_fd)  # it follows nothing
    else:
        os.unlink(name, dir_fd=directory_fd)


def _adorn(source_fd: int, upper_fd: int, path: bytes) -> None:
    """Give a directory of the source what the upper one has: owner, mode, xattrs, times."""
    with contextlib.ExitStack() as held:
        pair = []
        for start in (upper_fd, source_fd):
            fd = start
            for part in path.split(b"/"):
                try:
                    fd = os.open(part, _DIRECTORY, dir_fd=fd)
                except (FileNotFoundError, NotADirectoryError):
                    return  # it went meanwhile
                held.callback(os.close, fd)
            pair.append(fd)
        copy_metadata(pair[0], pair[1], os.fstat(pair[0]))


def _clear_opaque(directory_fd: int, parts: list[bytes]) -> None:
    """Let directories show again what the source has in them; all of theirs was written back.

    `parts` is the way to those that are meant.
    """
    names = [os.fsencode(text) for text in os.listdir(directory_fd)]
    for name in names:
        if parts and name != parts[0]:
            continue
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=directory_fd)
        except OSError:
            continue  # no directory
        try:
            if len(parts) <= 1 and is_opaque(fd):
                os.removexattr(fd, OPAQUE_XATTR)
            _clear_opaque(fd, parts[1:])
        finally:
            os.close(fd)
