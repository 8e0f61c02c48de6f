"""`cow` binds: what a container wrote over a directory of the host's, shown and written back.

Beyond Docker (moby#41265). The directory is the lower one of an overlay whose upper one is the
container's own, so nothing of the host's changes until somebody asks for it: `pier apply`.
"""

import asyncio
import contextlib
import os
import posixpath
from collections.abc import Callable, Iterator

from msgspec import Struct

from pier.engine.container import Container
from pier.engine.mounts import cow_place
from pier.engine.root_files import check_readable
from pier.engine.services import Services
from pier.engine.states import ALIVE
from pier.engine.user_mounts import clean
from pier.errors import Internal, InvalidParameter
from pier.model.mounts import MountRecord
from pier.storage.cow import Difference, differences, write_back

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CowChange(Struct, frozen=True):
    """`Path` is as the container sees it, `Source` the host's. `Kind` is as in a container's
    changes: 0 modified, 1 added, 2 deleted.
    """

    Path: str
    Source: str
    Kind: int


class CopyOnWrite:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def changes(self, ref: str) -> list[CowChange]:
        """Return what differs from the host's directories. Raises NotFound, Conflict, Internal."""
        container = self._services.store.get(ref)
        check_readable(container, "diff")
        return await self._in_thread(lambda: self._collect(container, "", differences))

    async def apply(self, ref: str, path: str) -> list[CowChange]:
        """Write back what differs at `path` and below it, "" for all; return what was written.

        Of a container that does not run, what was written back is no longer in the layer: it
        sees the host's files again, also when they change. Raises NotFound, InvalidParameter,
        Conflict, Internal; what was written back before a failure stays so.
        """
        container = self._services.store.get(ref)
        check_readable(container, "apply")
        if not any(mount.cow for mount in container.record.mounts):
            raise InvalidParameter(f"container {ref} has no mount with cow")
        if container.record.State.Status in ALIVE:
            return await self._in_thread(lambda: self._collect(container, path, write_back))
        async with container.lock:
            settle = container.record.State.Status not in ALIVE
            if settle and container.run is not None:
                await container.run.gone

            def work(source_fd: int, upper_fd: int, only: bytes) -> Iterator[Difference]:
                return write_back(source_fd, upper_fd, only, settle=settle)

            return await self._in_thread(lambda: self._collect(container, path, work))

    async def _in_thread(self, work: Callable[[], list[CowChange]]) -> list[CowChange]:
        return await asyncio.get_running_loop().run_in_executor(self._services.executor, work)

    def _collect(
        self,
        container: Container,
        path: str,
        work: Callable[[int, int, bytes], Iterator[Difference]],
    ) -> list[CowChange]:
        found: list[CowChange] = []
        wanted = clean(path) if path else ""
        mounts = [mount for mount in container.record.mounts if mount.cow]
        chosen = [(mount, only) for mount in mounts if (only := _inside(mount, wanted)) is not None]
        if not chosen and wanted:
            raise InvalidParameter(f"{path} is in no mount with cow of container {container.name}")
        for mount, only in chosen:
            place = cow_place(self._services.directories.data(container.id), mount.Destination)
            with contextlib.ExitStack() as held:
                try:
                    upper_fd = _opened(held, f"{place}/upper")
                    source_fd = _opened(held, mount.Source)
                except FileNotFoundError:
                    continue  # it was never started, or its source has gone
                try:
                    for path_, kind in work(source_fd, upper_fd, os.fsencode(only)):
                        inner = os.fsdecode(path_)
                        shown = posixpath.join(mount.Destination, inner)
                        found.append(CowChange(shown, posixpath.join(mount.Source, inner), kind))
                except OSError as exc:
                    raise Internal(f"{mount.Destination} over {mount.Source}: {exc}") from exc
        return found


def _opened(held: contextlib.ExitStack, path: str) -> int:
    fd = os.open(path, _DIRECTORY)
    held.callback(os.close, fd)
    return fd


def _inside(mount: MountRecord, path: str) -> str | None:
    """Return what of a mount is wanted: "" for all, a path in it, None when it is elsewhere."""
    if not path or (mount.Destination + "/").startswith(path.rstrip("/") + "/"):
        return ""
    before = mount.Destination + "/"
    return path.removeprefix(before) if path.startswith(before) else None
