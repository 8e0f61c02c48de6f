"""How far a stream has come, on a terminal: one line on stderr that is drawn anew and goes at the end.

Where stderr is no terminal nothing is drawn: what is long says nothing more than before.
"""

import os
import sys
import time

from pier.cli.progress import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import IO, Self

EVERY_S = 0.1
_CLEAR = "\x1b[2K\r"


class Meter:
    """Counts bytes of `what`, of `total` when that is known. A context manager."""

    def __init__(self, what: str, total: int = 0) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._next = 0.0
        self._out = sys.stderr if sys.stderr.isatty() else None

    def add(self, count: int) -> None:
        self._done += count
        if self._out is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        columns = os.get_terminal_size(self._out.fileno()).columns or 80
        self._out.write(_CLEAR + line(self._what, self._done, self._total, columns) + "\r")
        self._out.flush()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        value: "BaseException | None",
        trace: "TracebackType | None",
    ) -> None:
        if self._out is not None and self._next:
            self._out.write(_CLEAR)
            self._out.flush()


def metered(chunks: "Iterable[bytes]", what: str) -> "Iterator[bytes]":
    """Pass a stream on, and show how far it has come."""
    with Meter(what) as meter:
        for chunk in chunks:
            meter.add(len(chunk))
            yield chunk


class MeteredFile:
    """A file to be sent, whose reading is shown."""

    def __init__(self, file: "IO[bytes]", meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        """What there is, up to `size` bytes: a pipe is not waited for until it has so many."""
        data: bytes = getattr(self._file, "read1", self._file.read)(size)
        self._meter.add(len(data))
        return data
