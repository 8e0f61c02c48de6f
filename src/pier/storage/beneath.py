"""Names of an archive resolved beneath a directory, whatever links the archive itself has made."""

import errno
import os

from pier.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pier.storage.tar.errors import TarError

PATH_MAX = 4096

# Directories kept open: consecutive entries of an archive are nearly always of the same one.
KEPT = 32

_PLAIN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def clean(name: bytes) -> bytes:
    """Return an archive's name relative to the root: no leading slash, no ".", no inner "..".

    b"" is the root itself. Raises TarError for a name that climbs out, in the words of Docker.
    An absolute name is one beneath the root, as Docker takes it.
    """
    if b"//" not in name and b"." not in name[:1] and b"/." not in name:
        # The usual case.
        cleaned = name.strip(b"/")
    else:
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if not parts:
                    raise TarError(f'"{os.fsdecode(name)}" is outside of the archive\'s root')
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        cleaned = b"/".join(parts)
    if len(cleaned) >= PATH_MAX:
        raise TarError("archive has a path longer than 4095 bytes")
    return cleaned


class Beneath:
    """A root directory in which an archive is unpacked. One thread; close it at the end.

    Links in the middle of a path are followed as a process chrooted into the root would, which is
    what Docker does (an entry `bin/sh` after `bin -> usr/bin` is `usr/bin/sh`); openat2(2) keeps
    the walk inside. The last component is never followed.
    """

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd  # stays the caller's to close
        self._kept: dict[bytes, int] = {b"": root_fd}

    def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop what is known of paths: to be called when a directory or link was replaced."""
        for path, fd in self._kept.items():
            if path:
                os.close(fd)
        self._kept = {b"": self.root_fd}

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the directory that holds a cleaned path, and the last component.

        Missing directories are made. The descriptor stays ours and is good until the next call.
        """
        directory, _, name = path.rpartition(b"/")
        fd = self._kept.get(directory)
        return (self._open(directory) if fd is None else fd), name

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """As `parent`, but make nothing, and the descriptor is the caller's to close.

        Raises FileNotFoundError, TarError.
        """
        directory, _, name = path.rpartition(b"/")
        if not directory:
            return os.dup(self.root_fd), name
        return self._open_directory(directory), name

    def open(self, path: bytes, flags: int) -> int:
        """Open a cleaned path, following no link at its end; the caller closes it."""
        if not path:
            return os.open(b".", flags | os.O_CLOEXEC, dir_fd=self.root_fd)
        return openat2(self.root_fd, path, flags | os.O_NOFOLLOW, resolve=_INSIDE)

    def _open(self, directory: bytes) -> int:
        try:
            fd = self._open_directory(directory)
        except FileNotFoundError:
            fd = self._make(directory)
        if len(self._kept) > KEPT:
            self.forget()
        self._kept[directory] = fd
        return fd

    def _make(self, directory: bytes) -> int:
        """Make a directory and those above it that are missing; return a descriptor for it."""
        missing: list[bytes] = []
        fd = -1
        while fd < 0:
            directory, _, name = directory.rpartition(b"/")
            missing.append(name)
            try:
                fd = self._open_directory(directory) if directory else os.dup(self.root_fd)
            except FileNotFoundError:
                continue
        for name in reversed(missing):
            try:
                os.mkdir(name, 0o755, dir_fd=fd)
                os.chmod(name, 0o755, dir_fd=fd)  # whatever our umask
                inner_fd = os.open(name, _PLAIN, dir_fd=fd)
            except FileExistsError as exc:
                raise TarError(f"{os.fsdecode(name)}: dangling link in the path") from exc
            finally:
                os.close(fd)
            fd = inner_fd
        return fd

    def _open_directory(self, directory: bytes) -> int:
        try:
            return openat2(self.root_fd, directory, os.O_PATH | os.O_DIRECTORY, resolve=_INSIDE)
        except OSError as exc:
            if exc.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                text = os.strerror(exc.errno).lower()
                raise TarError(f"{os.fsdecode(directory)}: {text}") from exc
            raise
