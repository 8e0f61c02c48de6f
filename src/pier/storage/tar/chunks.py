"""A stream of byte chunks with the three ways in which a tar reader takes from it."""

import os
from collections.abc import Iterator

from pier.storage.tar.errors import TruncatedError


class Chunks:
    """Takes bytes off an iterator of non-empty chunks without joining or copying large ones."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self.offset = 0  # bytes taken so far

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes, or b"" when the stream is at its end. Raises TruncatedError."""
        at = self._at
        end = at + size
        if end <= len(self._chunk):
            self._at = end
            self.offset += size
            return self._chunk[at:end]
        parts = [self._chunk[at:]]
        have = len(parts[0])
        while have < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                if have:
                    raise TruncatedError
                self._chunk, self._at = b"", 0
                return b""
            parts.append(chunk)
            have += len(chunk)
        self._chunk = parts[-1]
        self._at = len(self._chunk) - (have - size)
        parts[-1] = self._chunk[: self._at]
        self.offset += size
        return b"".join(parts)

    def views(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes piece by piece. Raises TruncatedError."""
        self.offset += size
        while size:
            if self._at == len(self._chunk):
                self._chunk, self._at = next(self._chunks, b""), 0
                if not self._chunk:
                    raise TruncatedError
            view = memoryview(self._chunk)[self._at : self._at + size]
            self._at += len(view)
            size -= len(view)
            yield view

    def copy(self, fd: int, size: int) -> None:
        """Write the next `size` bytes to a descriptor. Raises TruncatedError and OSError."""
        end = self._at + size
        if end <= len(self._chunk):
            # The case of nearly every file of an image: one write out of one chunk.
            written = os.write(fd, memoryview(self._chunk)[self._at : end])
            self._at += written
            self.offset += written
            if written == size:
                return
            size -= written
        for view in self.views(size):
            done = 0
            while done < len(view):
                done += os.write(fd, view[done:])

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises TruncatedError."""
        end = self._at + size
        if end <= len(self._chunk):
            self._at = end
            self.offset += size
            return
        for _ in self.views(size):
            pass

    def skip_or_end(self, size: int) -> bool:
        """Pass over `size` bytes; return False where the stream ends before that."""
        try:
            self.skip(size)
        except TruncatedError:
            return False
        return True

    def drain(self) -> None:
        """Read the stream to its end, for whoever counts and hashes it on the way."""
        for chunk in self._chunks:
            self.offset += len(chunk)
        self._chunk, self._at = b"", 0
