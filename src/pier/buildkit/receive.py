"""A tree that a client sends, taken into a directory: only what differs from the last time travels.

Blocking, for a thread: `Receiver.take` is given packets as they arrive and returns what to answer.
Nothing below the directory is anybody else's, and no path that a client names leads out of it: every
parent of a file is a directory that the same client sent before the file.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence

from pier.build.kept_contexts import Index
from pier.buildkit import packets
from pier.buildkit.messages.filesync import Stat
from pier.errors import InvalidParameter
from pier.grpc.status import Code, GrpcError
from pier.storage.tree import remove_tree

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_FILES = 4_000_000


class _Open:
    """A file that is arriving."""

    def __init__(self, path: bytes, described: Stat) -> None:
        self.path = path
        self.described = described
        self.fd = -1
        self.hasher = hashlib.sha256()


class Receiver:
    """`index` is what the directory has: stats' bytes by path. It is `taken` afterwards.

    `received` are the bytes that came over the wire, `is_over` whether the client has said its last.
    """

    def __init__(self, directory: str, index: Index) -> None:
        self._base = os.fsencode(directory) + b"/"
        self._old = dict(index)
        self._directories: dict[bytes, Stat] = {b"": Stat(mode=1 << 31 | 0o755)}
        self._links: list[tuple[bytes, Stat]] = []
        self._awaited: dict[int, _Open] = {}
        self._count = 0
        self._has_all_stats = False
        self._is_finished = False
        self.taken: Index = {}
        self.received = 0
        self.transferred = 0
        self.is_over = False

    def take(self, messages: Sequence[bytes]) -> list[bytes]:
        """Take packets; return those to send. Raises GrpcError, BadMessage, OSError."""
        answers: list[bytes] = []
        has_all = False
        for raw in messages:
            self.received += len(raw)
            packet = packets.read_packet(raw)
            if packet.kind == packets.DATA:
                self._data(packet.id, packet.data)
            elif packet.kind == packets.STAT:
                if packet.body:
                    self._stat(packet.body, answers)
                else:
                    self._remove_rest()
                    has_all = True
            elif packet.kind == packets.FIN:
                self.is_over = True
                return answers
            elif packet.kind == packets.ERR:
                text = packet.body.decode("utf-8", "replace")
                raise GrpcError(Code.UNKNOWN, f"error from sender: {text}")
        self._has_all_stats = self._has_all_stats or has_all
        if self._has_all_stats and not self._awaited and not self._is_finished:
            self._is_finished = True
            self._finish()
            answers.append(packets.FIN_PACKET)
        return answers

    def close(self) -> None:
        """Give up the files that are still open."""
        for file in self._awaited.values():
            if file.fd >= 0:
                os.close(file.fd)
        self._awaited.clear()

    def _stat(self, body: bytes, answers: list[bytes]) -> None:
        number = self._count
        self._count += 1
        if self._count > _MAX_FILES:
            raise InvalidParameter("the build context has too many files")
        path = packets.path_of(body)
        parent = path.rpartition(b"/")[0]
        if parent not in self._directories or path in self.taken or _is_odd(path):
            raise InvalidParameter(f"invalid path from sender: {os.fsdecode(path)}")
        before, known = self._old.pop(path, (None, b""))
        self.taken[path] = (body, known if before == body else b"")
        described = Stat.decode(body)
        mode = packets.mode_of(described.mode)
        if before == body and not described.linkname:
            if stat.S_ISDIR(mode):
                self._directories[path] = described
            return
        was_directory = before is not None and _is_directory(before)
        if before is not None and not (was_directory and stat.S_ISDIR(mode)):
            self._remove(path, is_directory=was_directory)
        if stat.S_ISDIR(mode):
            if not was_directory:
                os.mkdir(self._base + path, 0o700)
            self._directories[path] = described
        elif described.linkname and stat.S_ISREG(mode):
            self._links.append((path, described))
        elif stat.S_ISREG(mode):
            self._awaited[number] = _Open(path, described)
            answers.append(packets.request(number))
        else:
            self._make_special(path, mode, described)

    def _make_special(self, path: bytes, mode: int, described: Stat) -> None:
        place = self._base + path
        if stat.S_ISLNK(mode):
            os.symlink(os.fsencode(described.linkname), place)
        elif stat.S_ISSOCK(mode):
            del self.taken[path]  # nothing can be built of one
            return
        else:
            os.mknod(place, mode, os.makedev(described.devmajor, described.devminor))
            os.chmod(place, stat.S_IMODE(mode))
        os.lchown(place, described.uid, described.gid)
        os.utime(place, ns=(described.modTime, described.modTime), follow_symlinks=False)

    def _data(self, number: int, data: memoryview) -> None:
        file = self._awaited.get(number)
        if file is None:
            raise InvalidParameter(f"invalid file request {number}")
        if file.fd < 0:
            file.fd = os.open(self._base + file.path, _CREATE, 0o600)
        if data:
            self.transferred += len(data)
            file.hasher.update(data)
            while data:
                data = data[os.write(file.fd, data) :]
            return
        described, fd = file.described, file.fd
        if described.uid or described.gid:
            os.fchown(fd, described.uid, described.gid)
        os.fchmod(fd, stat.S_IMODE(packets.mode_of(described.mode)))
        for name, value in described.xattrs.items():
            with contextlib.suppress(OSError):
                os.setxattr(fd, name, value)
        os.utime(fd, ns=(described.modTime, described.modTime))
        os.close(fd)
        self.taken[file.path] = (self.taken[file.path][0], file.hasher.digest())
        del self._awaited[number]

    def _remove_rest(self) -> None:
        """What the client does not have any more, the deepest first."""
        for path, (body, _) in sorted(self._old.items(), reverse=True):
            if path.rpartition(b"/")[0] in self._directories and path in self._old:
                self._remove(path, is_directory=_is_directory(body))
        self._old = {}

    def _remove(self, path: bytes, *, is_directory: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(self._base + path)
                return
            parent, _, name = path.rpartition(b"/")
            fd = os.open(self._base + parent, _DIRECTORY)
            try:
                remove_tree(fd, name)
            finally:
                os.close(fd)
        prefix = path + b"/"
        for below in [p for p in self._old if p.startswith(prefix)]:
            del self._old[below]

    def _finish(self) -> None:
        for path, described in self._links:
            target = os.fsencode(described.linkname)
            if target not in self.taken or target in self._directories:
                raise InvalidParameter(f"invalid link from sender: {described.linkname}")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._base + path)
            os.link(self._base + target, self._base + path, follow_symlinks=False)
        # The deepest first: what is made below changes a directory's time.
        for path in sorted(self._directories, reverse=True):
            described = self._directories[path]
            place = self._base + path
            os.chmod(place, stat.S_IMODE(packets.mode_of(described.mode)))
            if path:
                os.chown(place, described.uid, described.gid)
                os.utime(place, ns=(described.modTime, described.modTime))


def _is_directory(body: bytes) -> bool:
    return bool(Stat.decode(body).mode >> 31)


def _is_odd(path: bytes) -> bool:
    """Tell whether a path is none that a walk of a tree gives."""
    return any(part in (b"", b".", b"..") for part in path.split(b"/")) or b"\0" in path
