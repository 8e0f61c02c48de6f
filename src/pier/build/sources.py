"""What COPY and ADD take: names and wildcards in a tree, found, summed up, without following links
out of it.

The sum is of names, kinds, permissions and contents, not of times: a file that was only touched is
the same to the cache.
"""

import errno
import hashlib
import os
import posixpath
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from pier.build.context import INSIDE, outside
from pier.build.globs import has_wildcards, match_regex
from pier.build.ignore import Ignore
from pier.errors import Forbidden, NotFound
from pier.kernel.openat2 import openat2

_PATH = os.O_PATH | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 1 << 20


class Item(Struct, frozen=True):
    """One thing to copy: `path` below `root_fd`, which is somebody else's to close.

    `ignore` leaves out what is below it, by paths as `root_fd` has them, `exclude` by
    paths below the item. `keep_owner`: files stay
    whose they are. `unpack` takes an archive apart. `identity` is its sum, where that is known,
    `digests` are SHA-256 sums of files' contents, by their paths in `root_fd`, as far as known.
    Without `follow` a link is what is copied, and not what it leads to.
    """

    root_fd: int
    path: bytes
    ignore: Ignore
    exclude: Ignore = Ignore(())
    keep_owner: bool = False
    unpack: bool = False
    identity: str = ""
    follow: bool = True
    digests: Mapping[bytes, bytes] = {}

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    def wants(self, path: bytes, *, is_directory: bool) -> tuple[bool, bool]:
        """Tell whether something below it, by its path in `root_fd`, is copied, and looked into."""
        wanted, looked = True, is_directory
        if not (self.ignore or self.exclude):
            return wanted, looked
        inner = os.fsdecode(path[len(self.path) :].lstrip(b"/"))
        for rules, text in ((self.ignore, os.fsdecode(path)), (self.exclude, inner)):
            if rules and rules.ignores(text):
                wanted = False
                looked = looked and rules.may_take_back_below(text)
        return wanted, looked

    def open(self, flags: int = _PATH) -> int:
        """Open it, following a link where that is asked for; the caller closes it. Raises OSError."""
        flags |= 0 if self.follow else os.O_NOFOLLOW
        return openat2(self.root_fd, self.path or b".", flags, resolve=INSIDE)


def find(
    root_fd: int,
    source: str,
    rules: tuple[Ignore, Ignore],
    *,
    is_context: bool,
    keep_owner: bool,
    unpack: bool,
) -> list[Item]:
    """Return what a source names, sorted. `rules` are the context's, and --exclude's. Raises NotFound, Forbidden, InvalidParameter."""
    ignore, exclude = rules
    if outside(source):
        raise Forbidden(f"forbidden path outside the build context: {source} ()")
    path = posixpath.normpath("/" + source).lstrip("/")
    if has_wildcards(path):
        found = [p for p in _expand(root_fd, path) if _is_there(root_fd, p, ignore)]
    else:
        found = [os.fsencode(path)]
        if not _exists(root_fd, found[0]) or not _is_there(root_fd, found[0], ignore):
            where = "file not found in build context or excluded by .dockerignore: "
            raise NotFound(f"{where if is_context else ''}stat {path}: file does not exist")
    return [
        Item(root_fd, p, ignore, exclude, keep_owner, unpack)
        for p in found
        if not exclude.ignores(os.fsdecode(p.rpartition(b"/")[2]))
    ]


def _is_there(root_fd: int, path: bytes, ignore: Ignore) -> bool:
    """Tell whether a path is part of the context, or may be for what is below it."""
    text = os.fsdecode(path)
    if not text or not ignore.ignores(text):
        return True
    return ignore.may_take_back_below(text) and _exists(root_fd, path, os.O_DIRECTORY)


def _exists(root_fd: int, path: bytes, flags: int = 0) -> bool:
    try:
        os.close(openat2(root_fd, path or b".", _PATH | flags, resolve=INSIDE))
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise
        return False
    return True


def _expand(root_fd: int, pattern: str) -> list[bytes]:
    """Return the paths that fit a pattern, whose wildcards stay within a component."""
    found = [b""]
    for part in pattern.split("/"):
        longer: list[bytes] = []
        regex = match_regex(part) if has_wildcards(part) else None
        for parent in found:
            prefix = parent + b"/" if parent else b""
            if regex is None:
                path = prefix + os.fsencode(part)
                longer += [path] if _exists(root_fd, path) else []
            else:
                names = sorted(n for n in _names(root_fd, parent) if regex.match(os.fsdecode(n)))
                longer += [prefix + name for name in names]
        found = longer
    return found


def _names(root_fd: int, path: bytes) -> list[bytes]:
    try:
        fd = openat2(root_fd, path or b".", _LIST, resolve=INSIDE)
    except OSError:
        return []
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def total(items: Sequence[Item], files: dict[str, str] | None = None) -> str:
    """Return what the history calls them: `file:…`, `dir:…` or `multi:…`. Raises OSError.

    `files` gets a short sum of each by its path.
    """
    sums = [_sum(item, {} if files is None else files) for item in items]
    if len(sums) == 1:
        return sums[0]
    return "multi:" + hashlib.sha256("".join(sums).encode()).hexdigest()


def _sum(item: Item, files: dict[str, str]) -> str:
    if item.identity:
        files[os.fsdecode(item.name)] = item.identity
        return item.identity
    hasher = hashlib.sha256()
    fd = item.open()
    try:
        found = os.fstat(fd)
        kind = "dir" if stat.S_ISDIR(found.st_mode) else "file"
        if kind == "dir":
            inner = os.open(f"/proc/self/fd/{fd}", _LIST)
            try:
                for record in _records(inner, item.path, item):
                    hasher.update(record)
                    path = record.partition(b"\0")[0]
                    name = item.name + b"/" + path if item.name else path
                    files[name.decode("utf-8", "backslashreplace")] = f"{zlib.crc32(record):x}"
            finally:
                os.close(inner)
        else:
            hasher.update(item.name + b"\0" + _about(found, item))
            if stat.S_ISREG(found.st_mode):
                hasher.update(_content(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)))
            elif stat.S_ISLNK(found.st_mode):
                hasher.update(os.readlink(b"", dir_fd=fd))
            files[item.name.decode("utf-8", "backslashreplace")] = hasher.hexdigest()[:8]
    finally:
        os.close(fd)
    return f"{kind}:{hasher.hexdigest()}"


def _records(fd: int, path: bytes, item: Item) -> Iterator[bytes]:
    """Yield what counts of everything below a directory; paths are relative to the item."""
    for name, found in children(fd):
        inner = path + b"/" + name if path else name
        wanted, looked = item.wants(inner, is_directory=stat.S_ISDIR(found.st_mode))
        if not (wanted or looked):
            continue
        record = inner[len(item.path) :].lstrip(b"/") + b"\0" + _about(found, item)
        if stat.S_ISLNK(found.st_mode):
            record += os.readlink(name, dir_fd=fd)
        elif stat.S_ISREG(found.st_mode):
            known = item.digests.get(inner)
            record += known or _content(os.open(name, _READ, dir_fd=fd))
        if wanted:
            yield record + b"\0"
        if looked:
            inner_fd = os.open(name, _LIST | os.O_NOFOLLOW, dir_fd=fd)
            try:
                yield from _records(inner_fd, inner, item)
            finally:
                os.close(inner_fd)


def children(fd: int) -> list[tuple[bytes, os.stat_result]]:
    """Return what is in a directory, sorted by name, without sockets and whiteouts."""
    found = []
    for name in sorted(os.fsencode(text) for text in os.listdir(fd)):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        if not whiteout and not stat.S_ISSOCK(status.st_mode):
            found.append((name, status))
    return found


def _about(found: os.stat_result, item: Item) -> bytes:
    owner = b"%d:%d" % (found.st_uid, found.st_gid) if item.keep_owner else b""
    return b"%o\0%s\0%d\0" % (found.st_mode, owner, found.st_rdev)


def _content(fd: int) -> bytes:
    """Hash a file and close it."""
    hasher = hashlib.sha256()
    with open(fd, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.digest()
