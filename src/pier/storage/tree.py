"""Removing a tree whose contents are hostile: never follows a link, bounded in stack and files."""

import os
import secrets
import stat

# Descriptors held open on the way down. A deeper directory is first renamed to the top, so that a
# tree of any depth, which a container may have made, is removed with this many.
MAX_DEPTH = 32


def remove_tree(dirfd: int, name: bytes) -> None:
    """Remove `name` in the directory `dirfd`, whatever it is; absent is fine.

    `dirfd` must be a directory that only we write to: deep directories of the tree are moved into
    it. Raises OSError for what cannot be removed, such as a mount point.
    """
    pending = [name]
    while pending:
        top = pending.pop()
        pending.extend(_remove(dirfd, dirfd, top, 0))


def _remove(top_fd: int, parent_fd: int, name: bytes, depth: int) -> list[bytes]:
    """Remove `name`; return the names in `top_fd` that were moved out of its depths."""
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return []
    except (IsADirectoryError, PermissionError):
        # Linux answers EISDIR, POSIX allows EPERM; a file that is immutable gives EPERM too.
        mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            raise
    else:
        return []
    if depth == MAX_DEPTH:
        moved = b"deep-" + secrets.token_hex(8).encode()
        os.rename(name, moved, src_dir_fd=parent_fd, dst_dir_fd=top_fd)
        return [moved]
    deferred: list[bytes] = []
    fd = os.open(
        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd
    )
    try:
        for child in _names(fd):
            deferred += _remove(top_fd, fd, child, depth + 1)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)
    return deferred


def _names(fd: int) -> list[bytes]:
    """List a directory by descriptor in bytes: os.listdir(fd) gives str with surrogates."""
    return [os.fsencode(name) for name in os.listdir(fd)]
