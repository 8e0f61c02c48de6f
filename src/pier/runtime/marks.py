"""Where the time of a start goes: marks, each the beginning of a phase that lasts until the next.

Only where a trace was asked for (`KeeperConfig.trace`); else `unmarked` is called in their place. They
stand in memory that a keeper and the processes it clones share, so that a mark is no system call and
outlives whoever made it. Times are CLOCK_MONOTONIC in nanoseconds, the same clock in every process.
"""

import mmap
import os
import time

SIZE = 1 << 14


class Marks:
    """The marks of one process: lines of "nanoseconds phase", the phase "" for the end of the last."""

    def __init__(self, fd: int | None = None) -> None:
        """Make new marks, or go on where `fd`, of another process's marks, stands."""
        self.fd = fd if fd is not None else os.memfd_create("marks")
        if fd is None:
            os.ftruncate(self.fd, SIZE)
        self._memory = mmap.mmap(self.fd, SIZE)

    def __call__(self, phase: str, at_ns: int = 0) -> None:
        """Begin a phase, now or at another time. What finds no room is dropped."""
        line = f"{at_ns or time.monotonic_ns()} {phase}\n".encode()
        if self._memory.tell() + len(line) < SIZE:
            self._memory.write(line)

    def read(self) -> list[tuple[int, str]]:
        """What was marked so far, by whichever process."""
        text = self._memory[:].rstrip(b"\0").decode()
        pairs = (line.partition(" ") for line in text.splitlines())
        return [(int(at), phase) for at, _, phase in pairs]
