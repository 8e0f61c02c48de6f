"""RUN --mount=type=cache: directories that steps share and no image has.

    <data-root>/build/<hash of the id>/     kept until `builder prune`, or the garbage collection
    <data-root>/build/uses.json             who used them, and when

`locked` lets one step at a time have it; `private` gives a step whose directory is taken another one,
empty at first. Made by their first user, whose uid, gid and mode they have.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Executor

import msgspec
from msgspec import Struct

from pier.build.mounts import StepMount
from pier.build.threads import finished
from pier.errors import Conflict
from pier.storage.root import DataRoot

_USES = "uses.json"


class Use(Struct, frozen=True):
    """`id` is the mount's own. Times are ns since the epoch."""

    id: str
    created_at: int
    used_at: int
    uses: int


class CacheMount(Struct, frozen=True):
    """One directory, `size` in bytes. `in_use`: a step has it."""

    name: str
    path: str
    use: Use
    size: int
    in_use: bool


class CacheMounts:
    """For pierd's loop."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._directory = root.join("build")
        self._users: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        self._filling = asyncio.Lock()
        self._uses = self._read_uses()

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
        name = name_of(mount, base)
        if mount.sharing == "private":
            number = 0
            while self._users[name]:
                number += 1
                name = f"{name[:32]}-{number}"
        self._users[name] += 1
        self._note(name, mount.id)
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

    def paths(self, names: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (ID, path) by names, of those that are there."""
        found = {}
        for name in names:
            path = os.path.join(self._directory, name)
            if os.path.isdir(path):
                use = self._uses.get(name)
                found[name] = (use.id if use else "", path)
        return found

    def take(self, place: str, names: Mapping[str, str]) -> None:
        """Take directories of `place` for the mounts of these names (and IDs) that nobody has now."""
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        for name, identity in names.items():
            if self._users[name]:
                raise Conflict(f"cache mount {identity or name} is in use by another build")
            path = os.path.join(self._directory, name)
            if os.path.isdir(path):
                self._root.discard(path)
            os.rename(os.path.join(place, name), path)
            self._note(name, identity)

    def all(self, measure: Callable[[str], int]) -> list[CacheMount]:
        """Return what there is. Blocking: each is measured."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            path = os.path.join(self._directory, name)
            if name == _USES or not os.path.isdir(path):
                continue
            changed = os.stat(path).st_mtime_ns
            use = self._uses.get(name) or Use("", changed, changed, 1)
            found.append(CacheMount(name, path, use, measure(path), bool(self._users[name])))
        return found

    def _note(self, name: str, identity: str) -> None:
        """Remember who used it and when; a crash in between forgets this use and nothing else."""
        now = time.time_ns()
        before = self._uses.get(name) or Use(identity, now, now, 0)
        self._uses[name] = Use(identity, before.created_at, now, before.uses + 1)
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        path = os.path.join(self._directory, _USES)
        with contextlib.suppress(OSError):  # a full disk must not end a build for this
            with open(f"{path}.new", "wb") as file:
                file.write(msgspec.json.encode(self._uses))
            os.replace(f"{path}.new", path)

    def _read_uses(self) -> dict[str, Use]:
        try:
            with open(os.path.join(self._directory, _USES), "rb") as file:
                return msgspec.json.decode(file.read(), type=dict[str, Use])
        except (OSError, msgspec.DecodeError):
            return {}

    def discard(self, names: Iterable[str]) -> list[str]:
        """Remove those of them that no step has now, and return their names."""
        free = [name for name in names if not self._users[name]]
        for name in free:
            self._uses.pop(name, None)
            self._root.discard(os.path.join(self._directory, name))
        return free


def name_of(mount: StepMount, base: str) -> str:
    """Return the directory's name; `base` says what it begins with, "" for nothing."""
    identity = f"{mount.id}\0{base}" if base else mount.id
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
