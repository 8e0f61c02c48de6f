"""Several layers seen as one tree, as overlayfs would show them, without mounting anything.

For reading a container's or image's files in pierd: no privileges, no mount, no process. A name is
what the uppermost layer that has it says; a whiteout hides it; a directory is merged with those
below it down to one that is opaque (kernel overlayfs.rst, "whiteouts and opaque directories";
redirects and metacopy are never used here, see `kernel.overlay`).
"""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from pier.storage.pack import Packer, joined
from pier.storage.tar.writer import END
from pier.storage.whiteouts import is_opaque, is_whiteout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Node(NamedTuple):
    """A name in a directory: `parent_fd` is the layer's directory that has it."""

    parent_fd: int
    found: os.stat_result


class MergedDirectory:
    """A directory of the merged tree. It owns its descriptors: close it, or use it in a `with`."""

    def __init__(self, fds: list[int]) -> None:
        """`fds` are descriptors of one directory in each layer that has it, uppermost first."""
        self._fds = fds

    @classmethod
    def open(cls, paths: Iterable[str]) -> Self:
        """Open the roots of layers, uppermost first. Raises OSError."""
        fds: list[int] = []
        try:
            for path in paths:
                fds.append(os.open(path, _DIRECTORY))
                if is_opaque(fds[-1]):
                    break
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return cls(fds)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def nodes(self) -> dict[bytes, Node]:
        """Return what is in it, sorted by name."""
        found: dict[bytes, Node | None] = {}
        for fd in self._fds:
            for text in os.listdir(fd):
                name = os.fsencode(text)
                if name in found:
                    continue
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found[name] = None if is_whiteout(status) else Node(fd, status)
        return {name: node for name, node in sorted(found.items()) if node is not None}

    def enter(self, name: bytes) -> "MergedDirectory | None":
        """Open a directory in it, None when there is none. The caller closes it."""
        inner: list[int] = []
        for fd in self._fds:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break  # a whiteout, or a file that takes the place of what is below
            try:
                inner.append(os.open(name, _DIRECTORY, dir_fd=fd))
            except (FileNotFoundError, NotADirectoryError):
                break
            if is_opaque(inner[-1]):
                break
        return MergedDirectory(inner) if inner else None

    def is_same(self, other: "MergedDirectory") -> bool:
        """Tell whether both are merged of the very same directories."""
        return [_inode(fd) for fd in self._fds] == [_inode(fd) for fd in other._fds]  # noqa: SLF001

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the lstat of a path, following no link on the way, None when it is not there."""
        parent, _, name = path.rpartition(b"/")
        directory: MergedDirectory = self
        try:
            for part in parent.split(b"/") if parent else ():
                inner = directory.enter(part)
                if directory is not self:
                    directory.close()
                if inner is None:
                    return None
                directory = inner
            node = directory.nodes().get(name)
            return node.found if node else None
        finally:
            if directory is not self:
                directory.close()

    def walk(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes, Node]]:
        """Yield (path, name, node) of everything below, a directory before what is in it.

        A node's descriptor is good until the next one is asked for.
        """
        for name, node in self.nodes().items():
            path = prefix + name
            yield path, name, node
            if stat.S_ISDIR(node.found.st_mode) and (inner := self.enter(name)) is not None:
                with inner:
                    yield from inner.walk(path + b"/")


def _inode(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def tree_tar(root: MergedDirectory) -> Iterator[bytes]:
    """Yield the tar of a whole tree, without an entry for the root itself. Raises OSError."""
    return joined(_whole(root))


def _whole(root: MergedDirectory) -> Iterator[bytes]:
    yield from tree_members(root, Packer())
    yield END


def tree_members(root: MergedDirectory, packer: Packer, prefix: bytes = b"") -> Iterator[bytes]:
    """Yield a tree's members for a tar that holds more than it, their names behind `prefix`."""
    for path, name, node in root.walk():
        yield from packer.pack(node.parent_fd, name, prefix + path, node.found)
