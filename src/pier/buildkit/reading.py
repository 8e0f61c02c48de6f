"""Files of what a build came to, as frontends read them. Blocking; nothing leads out of the tree."""

import os
import stat

from pier.build.context import INSIDE
from pier.build.globs import has_wildcards, match_regex
from pier.buildkit.messages.filesync import Stat
from pier.buildkit.packets import stat_of
from pier.errors import InvalidParameter, NotFound
from pier.kernel.openat2 import openat2

MAX_BYTES = 16 << 20
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_file(root_fd: int, path: str, offset: int, length: int) -> bytes:
    """Return a file's bytes, all that follow `offset` for a length of 0. Raises PierError."""
    fd = _open(root_fd, path, _READ, "open")
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidParameter(f"read {path}: is a directory")
        wanted = length or max(0, found.st_size - offset)
        if wanted > MAX_BYTES:
            raise InvalidParameter(f"{path} is larger than {MAX_BYTES} bytes")
        file.seek(offset)
        return file.read(wanted)


def read_dir(root_fd: int, path: str, pattern: str) -> list[Stat]:
    """Describe what is in a directory, sorted; `pattern` is for the names, "" for all."""
    fd = _open(root_fd, path, _READ | os.O_DIRECTORY, "open")
    regex = match_regex(pattern) if pattern and has_wildcards(pattern) else None
    try:
        names = sorted(os.listdir(fd))
        if pattern:
            names = [n for n in names if (regex.match(n) if regex is not None else n == pattern)]
        return [_described(fd, name, name) for name in names]
    finally:
        os.close(fd)


def stat_file(root_fd: int, path: str) -> Stat:
    """Describe a file; a link is described itself."""
    directory, _, name = path.rstrip("/").rpartition("/")
    if not name:
        fd = _open(root_fd, "/", _READ | os.O_DIRECTORY, "stat")
        try:
            return stat_of("/", os.fstat(fd))
        finally:
            os.close(fd)
    fd = _open(root_fd, directory, _READ | os.O_DIRECTORY, "stat")
    try:
        return _described(fd, name, name)
    except FileNotFoundError:
        raise NotFound(f"stat {path}: no such file or directory") from None
    finally:
        os.close(fd)


def _described(fd: int, name: str, path: str) -> Stat:
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(found.st_mode) else ""
    return stat_of(path, found, link)


def _open(root_fd: int, path: str, flags: int, what: str) -> int:
    try:
        return openat2(root_fd, os.fsencode(path.lstrip("/") or "."), flags, resolve=INSIDE)
    except OSError as exc:
        text = os.strerror(exc.errno or 0).lower()
        raise NotFound(f"{what} {path}: {text}") from exc
