"""RUN --mount=type=cache: directories that steps share and no image has.

    <data-root>/build/<hash of the id>/     kept until `builder prune`

`locked` lets one step at a time have it; `private` gives a step whose directory is taken another one,
empty at first. Made by their first user, whose uid, gid and mode they have.
"""

import asyncio
import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor

from pier.build.mounts import StepMount
from pier.build.threads import finished
from pier.storage.root import DataRoot


class CacheMounts:
    """For pierd's loop."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._directory = root.join("build")
        self._users: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        self._filling = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def held(
        self,
        mount: StepMount,
        base: str,
        fill: Callable[[str], None] | None,
        executor: Executor,
    ) -> AsyncIterator[str]:
        """Hold a directory for a step; yields its path. Raises PierError, OSError.

        One that begins with files is another one for each `base`; `fill` puts them into a
        directory, in a thread of `executor`.
        """
        identity = f"{mount.id}\0{base}" if base else mount.id
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        if mount.sharing == "private":
            number = 0
            while self._users[name]:
                number += 1
                name = f"{name[:32]}-{number}"
        self._users[name] += 1
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            if mount.sharing == "locked":
                async with lock:
                    yield await self._ready(name, mount, fill, executor)
            else:
                yield await self._ready(name, mount, fill, executor)
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]
                self._locks.pop(name, None)

    async def _ready(
        self,
        name: str,
        mount: StepMount,
        fill: Callable[[str], None] | None,
        executor: Executor,
    ) -> str:
        if fill is None:
            return self._made(name, mount)
        async with self._filling:
            return await finished(executor, lambda: self._filled(name, mount, fill))

    def _filled(self, name: str, mount: StepMount, fill: Callable[[str], None]) -> str:
        """Make a directory with what it begins with, at once or not at all. Blocking."""
        path = os.path.join(self._directory, name)
        if not os.path.exists(path):
            staged = self._root.staging("staging")
            os.mkdir(staged, 0o700)
            fill(staged)
            os.chown(staged, mount.uid, mount.gid)
            os.chmod(staged, mount.mode)
            os.makedirs(self._directory, mode=0o711, exist_ok=True)
            os.rename(staged, path)
        return path

    def _made(self, name: str, mount: StepMount) -> str:
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        path = os.path.join(self._directory, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            os.chown(path, mount.uid, mount.gid)
            os.chmod(path, mount.mode)
        return path

    def sizes(self, measure: Callable[[str], int]) -> dict[str, int]:
        """Return the bytes of each by its name. Blocking."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return {}
        return {name: measure(os.path.join(self._directory, name)) for name in names}

    def discard(self, names: Iterable[str]) -> list[str]:
        """Remove those of them that no step has now, and return their names."""
        free = [name for name in names if not self._users[name]]
        for name in free:
            self._root.discard(os.path.join(self._directory, name))
        return free
