"""Files become members of a tar: the opposite of `apply`, the same bytes for the same content.

What is read may be a container's, and change meanwhile: names are opened by descriptor and never
followed, a file that shrinks is filled up with zeros, one that grows is cut, what vanishes or turns
into something else is left out. Sockets are left out, as Docker does.

Holes. Which blocks of a file are allocated is the file system's business and would make the digest
depend on it. So a hole is what reads as zeros: a file that has at least 8 MiB of aligned 1 MiB
stretches of zeros is written as GNU sparse format 1.0, whether it is sparse on the disk or not;
any other file is written in full, since image-spec layer.md discourages sparse members.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator

from pier.storage.recipe import RecipeWriter, crc32
from pier.storage.tar import header
from pier.storage.tar.header import Entry
from pier.storage.tar.writer import encode, padding

CHUNK = 1 << 20

STRETCH = 1 << 20
SPARSE_FROM = 8 << 20
_ZEROS = bytes(STRETCH)

# Everything else is the host's own: security labels, and what overlayfs notes for itself.
_XATTRS = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")
_OVERLAY_XATTRS = "user.overlay."

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: header.REGULAR,
    stat.S_IFDIR: header.DIRECTORY,
    stat.S_IFLNK: header.SYMLINK,
    stat.S_IFCHR: header.CHARACTER,
    stat.S_IFBLK: header.BLOCK_DEVICE,
    stat.S_IFIFO: header.FIFO,
}
# A file that went away, or turned into something that cannot be opened so, since it was listed.
_GONE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.ESTALE})


class Packer:
    """One archive: knows which inodes it holds already, for hard links. Use it in one thread.

    What is younger than `not_after_ns` becomes as old as that. `recipe` is told all that is yielded,
    of files where it is: members must be called as the files are.
    """

    def __init__(
        self, not_after_ns: int | None = None, *, recipe: RecipeWriter | None = None
    ) -> None:
        self._links: dict[tuple[int, int], bytes] = {}
        self._not_after_ns = not_after_ns
        self._recipe = recipe

    def pack(
        self, parent_fd: int, name: bytes, path: bytes, found: os.stat_result
    ) -> Iterator[bytes]:
        """Yield the member for `name` in the directory `parent_fd`, to be called `path`.

        `found` is its lstat. Of a directory it is the directory alone. Raises OSError.
        """
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and kind != header.DIRECTORY:
            first = self._links.setdefault(key, path)
            if first != path:
                yield self._head(_link(path, first, found))
                return
        try:
            if kind == header.REGULAR:
                yield from self._regular(parent_fd, name, path)
            else:
                yield self._head(_special(parent_fd, name, path, kind, found))
        except OSError as exc:
            if exc.errno not in _GONE:
                raise
            # Never behind the header: from there on everything is read by descriptor.
            if self._links.get(key) == path:
                del self._links[key]

    def _regular(self, parent_fd: int, name: bytes, path: bytes) -> Iterator[bytes]:
        fd = os.open(name, _OPEN, dir_fd=parent_fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return
            entry = _entry(path, header.REGULAR, found)
            entry.xattrs = _read_xattrs(fd)
            entry.size = entry.stored = found.st_size
            if found.st_size >= SPARSE_FROM:
                entry.sparse = find_pieces(fd, found.st_size)
            pieces = entry.sparse if entry.sparse is not None else [(0, entry.size)]
            entry.stored = sum(length for _, length in pieces)
            yield self._head(entry)
            for offset, length in pieces:
                crc = 0
                for data in _content(fd, offset, length):
                    if self._recipe is not None:
                        crc = crc32(data, crc)
                    yield data
                if self._recipe is not None and length:
                    self._recipe.file(path, offset, length, crc)
            if rest := padding(entry.stored):
                yield self.own(rest)
        finally:
            os.close(fd)

    def _head(self, entry: Entry) -> bytes:
        if self._not_after_ns is not None:
            entry.mtime_ns = min(entry.mtime_ns, self._not_after_ns)
        return self.own(encode(entry))

    def empty(self, path: bytes) -> bytes:
        """Return a member that only has a name: how layer.md writes a whiteout."""
        entry = Entry()
        entry.name = path
        return self.own(encode(entry))

    def own(self, data: bytes) -> bytes:
        """Return bytes of the archive that are no file's."""
        if self._recipe is not None:
            self._recipe.own(data)
        return data


def joined(pieces: Iterable[bytes], size: int = CHUNK) -> Iterator[bytes]:
    """Gather small pieces into chunks of about `size`: whoever hashes or writes them has fewer."""
    parts: list[bytes] = []
    total = 0
    for piece in pieces:
        parts.append(piece)
        total += len(piece)
        if total >= size:
            yield b"".join(parts)
            parts.clear()
            total = 0
    if parts:
        yield b"".join(parts)


def _content(fd: int, offset: int, size: int) -> Iterator[bytes]:
    """Yield exactly `size` bytes, zeros for what the file does not have any more."""
    while size:
        data = os.pread(fd, min(size, CHUNK), offset) or bytes(min(size, CHUNK))
        yield data
        offset += len(data)
        size -= len(data)


def find_pieces(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return (offset, length) of what is not zeros, None when too little of the file is.

    A file that ends in a hole has an empty piece at its end, for GNU tar.
    """
    pieces: list[tuple[int, int]] = []
    offset = data_at = 0
    while offset < size:
        if offset + STRETCH > data_at:  # else the file system says that all of it is a hole
            data_at = _next_data(fd, max(offset, data_at), size)
        if data_at < offset + STRETCH:
            data = os.pread(fd, min(STRETCH, size - offset), offset)
            if data != _ZEROS[: len(data)]:
                if pieces and sum(pieces[-1]) == offset:
                    pieces[-1] = (pieces[-1][0], pieces[-1][1] + len(data))
                else:
                    pieces.append((offset, len(data)))
        offset += STRETCH
    stored = sum(length for _, length in pieces)
    if size - stored < SPARSE_FROM:
        return None
    if not pieces or sum(pieces[-1]) != size:
        pieces.append((size, 0))
    return pieces


def _next_data(fd: int, offset: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return size
        return offset  # a file system that knows nothing of holes


def _special(parent_fd: int, name: bytes, path: bytes, kind: int, found: os.stat_result) -> Entry:
    entry = _entry(path, kind, found)
    if kind == header.SYMLINK:
        entry.linkname = os.readlink(name, dir_fd=parent_fd)
        return entry
    if kind == header.DIRECTORY:
        entry.name += b"/"
    elif kind != header.FIFO:
        entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    # No call reads xattrs relative to a directory before Linux 6.13.
    entry.xattrs = _read_xattrs(b"/proc/self/fd/%d/%s" % (parent_fd, name))
    return entry


def _link(path: bytes, first: bytes, found: os.stat_result) -> Entry:
    entry = _entry(path, header.LINK, found)
    entry.linkname = first
    return entry


def _entry(path: bytes, kind: int, found: os.stat_result) -> Entry:
    entry = Entry()
    entry.name = path
    entry.type = kind
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = found.st_uid, found.st_gid
    entry.mtime_ns = found.st_mtime_ns
    return entry


def _read_xattrs(target: int | bytes) -> dict[str, bytes] | None:
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.EPERM):
            return None
        raise
    wanted = [n for n in names if n.startswith(_XATTRS) and not n.startswith(_OVERLAY_XATTRS)]
    if not wanted:
        return None
    found: dict[str, bytes] = {}
    for name in wanted:
        try:
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise
    return found
