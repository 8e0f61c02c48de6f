"""Data directories made ahead: a new container takes one by a rename.

Making one costs a millisecond on ext4 (six entries), a rename a tenth of it, and it is on the way
of every `docker run`. The housekeeper makes the next one while nobody waits. They lie in staging/,
which the next start empties should this pierd not get to `close`.
"""

import asyncio
import os
from collections import deque

from pier.engine import etc_files
from pier.storage.root import DataRoot

READY = 8
REFILL_DELAY_S = 0.02


class ReadyDirectories:
    """Shared by the loop (`take`) and the housekeeper (`_fill`) through a deque, which is safe."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._ready: deque[str] = deque()
        self._closed = False
        root.later(self._fill)

    def take(self, path: str) -> None:
        """Make a data directory appear at `path`. Raises OSError, and leaves nothing then."""
        try:
            ready = self._ready.popleft()
        except IndexError:
            ready = self._make()
        else:
            asyncio.get_running_loop().call_later(REFILL_DELAY_S, self._root.later, self._fill)
        try:
            os.rename(ready, path)
        except OSError:
            self._root.discard(ready)
            raise

    def close(self) -> None:
        """Take those away that nobody took. The data root is closed after this."""
        self._closed = True
        self._root.settle()
        while self._ready:
            self._root.discard(self._ready.popleft())

    def _fill(self) -> None:
        while len(self._ready) < READY and not self._closed:
            self._ready.append(self._make())

    def _make(self) -> str:
        path = self._root.staging("staging")
        os.mkdir(path, 0o710)
        try:
            # The container's root takes its mode and owner from the upper directory.
            os.mkdir(f"{path}/upper", 0o755)
            os.mkdir(f"{path}/work", 0o700)
            for name in etc_files.NAMES:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(f"{path}/{name}", flags, 0o644))
        except OSError:
            self._root.discard(path)
            raise
        return path
