"""The files of one container's log, read as one stream across rotations.

Blocking, meant for a thread: `LogReader.read` answers what there is now, and can be asked again
when more was written. A file keeps its inode when it is rotated, so the reader knows where it is
by inode and not by name; one that was compressed meanwhile says which inode it was
(`runtime.log_compress`).
"""

import contextlib
import os
import zlib
from collections import deque
from typing import Self

from pier.engine.logs import LogQuery, Renderer
from pier.runtime.log_compress import original

CHUNK_BYTES = 512 * 1024
TAIL_BLOCK_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"  # a log's own files begin with "{"


class LogFile:
    """One file of a log, open. `inode` is that of the file as it was written.

    A compressed one is unpacked into a temporary file when its content is first wanted.
    """

    def __init__(self, fd: int) -> None:
        """Take over a descriptor."""
        self._fd = fd
        self.origin_ns: int | None = None
        self.inode = os.fstat(fd).st_ino
        head = os.pread(fd, 64, 0)
        self._compressed = head.startswith(_MAGIC)
        if self._compressed and (origin := original(head)):
            self.inode, self.origin_ns = origin

    @staticmethod
    def open(path: str) -> "LogFile":
        """Open `path`, or else `path`.gz. Raises FileNotFoundError when there is neither."""
        try:
            return LogFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return LogFile(os.open(f"{path}.gz", os.O_RDONLY | os.O_CLOEXEC))

    @property
    def raw_fd(self) -> int:
        """A descriptor of what is on disk."""
        return self._fd

    @property
    def fd(self) -> int:
        """A descriptor of the plain content, with the file's position."""
        if self._compressed:
            self._compressed = False
            plain_fd = _unpacked(self._fd)
            os.close(self._fd)
            self._fd = plain_fd
        return self._fd

    def is_same(self, other: "LogFile") -> bool:
        """Tell whether both are one file, one of them perhaps compressed since the other was opened.

        An inode is used again once a file is gone; that with the same time of writing is the same.
        """
        if self.inode != other.inode:
            return False
        both_plain = self.origin_ns is None and other.origin_ns is None
        return both_plain or self.written_ns == other.written_ns

    @property
    def written_ns(self) -> int:
        """When the file was last written, before it was compressed."""
        return os.fstat(self._fd).st_mtime_ns if self.origin_ns is None else self.origin_ns

    def close(self) -> None:
        os.close(self._fd)


def _unpacked(fd: int) -> int:
    """Return a descriptor of a nameless file with what a gzip file holds; damage ends it early."""
    import tempfile  # noqa: PLC0415 - rare, and a follower waits for it

    unpack = zlib.decompressobj(_GZIP)
    with tempfile.TemporaryFile() as file:
        with contextlib.suppress(zlib.error):
            while data := os.read(fd, CHUNK_BYTES):
                file.write(unpack.decompress(data))
            file.write(unpack.flush())
        file.seek(0)
        return os.dup(file.fileno())


class LogReader:
    """Reads the log at `path` from where the query wants it. Owns descriptors: `close` it.

    A missing log is an empty one: it may appear later. `files` are those that somebody has opened
    before, oldest first: the log may have been removed since.
    """

    def __init__(self, path: str, query: LogQuery, files: list[LogFile] | None = None) -> None:
        self._path = path
        self._renderer = Renderer(query)
        self._files: deque[LogFile] = deque(files or open_all(path))
        self._rest = b""
        if query.tail >= 0:
            self._seek_tail(query.tail)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._files:
            self._files.popleft().close()

    @property
    def finished(self) -> bool:
        """No later line can be wanted: the query's `until` was passed."""
        return self._renderer.past_until

    def read(self) -> bytes:
        """Return the next rendered lines, some hundred kilobytes at most; b"" when none are left.

        A chunk of the file in which nothing was selected does not count as none left.
        """
        while not self.finished:
            data = self._read_lines()
            if not data:
                return b""
            if rendered := self._renderer.render(data):
                return rendered
        return b""

    def _read_lines(self) -> bytes:
        """Read raw whole lines; b"" at the end of the newest file."""
        while True:
            data = self._read_chunk()
            if not data:
                return b""
            end = data.rfind(b"\n") + 1
            if not end:
                self._rest += data
                continue
            lines = self._rest + data[:end]
            self._rest = data[end:]
            return lines

    def _read_chunk(self) -> bytes:
        while True:
            if not self._files and not self._find_successors(None):
                return b""
            current = self._files[0]
            data = os.read(current.fd, CHUNK_BYTES)
            if data:
                return data
            if self._was_truncated(current.fd):
                continue
            if len(self._files) == 1:
                if _inode(self._path) in (current.inode, None) or not self._find_successors(
                    current
                ):
                    return b""
                # It was rotated; what was written between our read and the renaming is in it.
                data = os.read(current.fd, CHUNK_BYTES)
                if data:
                    return data
            self._files.popleft().close()
            self._rest = b""

    def _was_truncated(self, current: int) -> bool:
        """Start the file again when it shrank: a log of one file is rotated by emptying it."""
        if os.fstat(current).st_size >= os.lseek(current, 0, os.SEEK_CUR):
            return False
        os.lseek(current, 0, os.SEEK_SET)
        self._rest = b""
        return True

    def _find_successors(self, last: LogFile | None) -> bool:
        """Queue the files newer than `last`, oldest first; tell whether any are."""
        found = open_all(self._path)
        first = 0
        if last is not None:
            first = next((n for n, file in enumerate(found, 1) if file.is_same(last)), 0)
        for file in found[:first]:
            file.close()
        self._files.extend(found[first:])
        return first < len(found)

    def _seek_tail(self, count: int) -> None:
        """Drop older files and seek, so that `count` lines are left to read."""
        missing = count
        for index in range(len(self._files) - 1, -1, -1):
            file = self._files[index]
            offset, missing = _tail_offset(file.fd, missing)
            if missing == 0:
                os.lseek(file.fd, offset, os.SEEK_SET)
                for _ in range(index):
                    self._files.popleft().close()
                return


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def open_all(path: str) -> list[LogFile]:
    """Open the log's files, oldest first; the caller closes them.

    The newest is opened first: a rotation meanwhile shows a file twice, which `is_same` tells,
    where the other order would miss one. It also leaves one number free for a moment.
    """
    opened: list[LogFile] = []
    number = 0
    missing = 0
    while missing < 2:
        try:
            file = LogFile.open(f"{path}.{number}" if number else path)
        except FileNotFoundError:
            missing += 1
        else:
            missing = 0
            if any(file.is_same(other) for other in opened):
                file.close()
            else:
                opened.append(file)
        number += 1
    opened.reverse()
    return opened


def _tail_offset(fd: int, count: int) -> tuple[int, int]:
    """Return where the last `count` lines of a file begin, and how many lines it lacks for that."""
    end = os.fstat(fd).st_size
    if count == 0:
        return end, 0
    position = end
    newlines = 0  # seen so far; the one that ends the file's last line is the first of them
    while position > 0:
        size = min(TAIL_BLOCK_BYTES, position)
        position -= size
        block = os.pread(fd, size, position)
        here = block.count(b"\n")
        if newlines + here <= count:
            newlines += here
            continue
        # The newline number count + 1 from the end is in this block: the lines begin after it.
        index = len(block)
        for _ in range(count + 1 - newlines):
            index = block.rfind(b"\n", 0, index)
        return position + index + 1, 0
    return 0, count - newlines
