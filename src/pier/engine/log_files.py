"""The files of one container's log, read as one stream across rotations.

Blocking, meant for a thread: `LogReader.read` answers what there is now, and can be asked again
when more was written. A file keeps its inode when it is rotated, so the reader knows where it is
by inode and not by name.
"""

import contextlib
import os
from collections import deque

from pier.engine.logs import LogQuery, Renderer

CHUNK_BYTES = 512 * 1024
TAIL_BLOCK_BYTES = 64 * 1024


class LogReader:
    """Reads the log at `path` from where the query wants it. Owns descriptors: `close` it.

    A missing log is an empty one: it may appear later.
    """

    def __init__(self, path: str, query: LogQuery) -> None:
        self._path = path
        self._renderer = Renderer(query)
        self._files: deque[int] = deque(_open_all(path))
        self._rest = b""
        if query.tail >= 0:
            self._seek_tail(query.tail)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popleft())

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
            data = os.read(current, CHUNK_BYTES)
            if data:
                return data
            if self._was_truncated(current):
                continue
            if len(self._files) == 1:
                here = os.fstat(current).st_ino
                if _inode(self._path) in (here, None) or not self._find_successors(here):
                    return b""
                # It was rotated; what was written between our read and the renaming is in it.
                data = os.read(current, CHUNK_BYTES)
                if data:
                    return data
            os.close(self._files.popleft())
            self._rest = b""

    def _was_truncated(self, current: int) -> bool:
        """Start the file again when it shrank: a log of one file is rotated by emptying it."""
        if os.fstat(current).st_size >= os.lseek(current, 0, os.SEEK_CUR):
            return False
        os.lseek(current, 0, os.SEEK_SET)
        self._rest = b""
        return True

    def _find_successors(self, inode: int | None) -> bool:
        """Queue the files newer than the one with `inode`, oldest first; tell whether any are."""
        found = _open_all(self._path)
        inodes = [os.fstat(fd).st_ino for fd in found]
        first = inodes.index(inode) + 1 if inode in inodes else 0
        for fd in found[:first]:
            os.close(fd)
        self._files.extend(found[first:])
        return first < len(found)

    def _seek_tail(self, count: int) -> None:
        """Drop older files and seek, so that `count` lines are left to read."""
        missing = count
        for index in range(len(self._files) - 1, -1, -1):
            offset, missing = _tail_offset(self._files[index], missing)
            if missing == 0:
                os.lseek(self._files[index], offset, os.SEEK_SET)
                for _ in range(index):
                    os.close(self._files.popleft())
                return


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def _open_all(path: str) -> list[int]:
    """Open the log's files, oldest first; the caller closes them.

    The newest is opened first: a rotation meanwhile shows a file twice, which the inode tells,
    where the other order would miss one.
    """
    opened: list[int] = []
    seen: set[int] = set()
    number = 0
    with contextlib.suppress(FileNotFoundError):
        while True:
            name = f"{path}.{number}" if number else path
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            inode = os.fstat(fd).st_ino
            if inode in seen:
                os.close(fd)
            else:
                seen.add(inode)
                opened.append(fd)
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
