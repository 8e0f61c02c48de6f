"""`docker cp`: files out of a container's root, and archives into it."""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import BinaryIO, TypeVar

from pier.engine.container import Container
from pier.engine.container_paths import (
    Place,
    absolute,
    follow,
    locate,
    open_directory,
    path_stat,
)
from pier.engine.container_root import opened_root
from pier.engine.produce import produce
from pier.engine.services import Services
from pier.errors import Internal, InvalidParameter
from pier.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pier.model.api_containers import PathStat
from pier.model.container import ContainerRecord
from pier.runtime import users
from pier.storage.decompress import Decompressed
from pier.storage.extract import extract
from pier.storage.layers import MAX_ENTRIES
from pier.storage.pack import Packer, joined
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader
from pier.storage.tar.writer import END

T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_KERNELS = frozenset({b"dev", b"proc", b"sys"})


class Copying:
    """What the routes of /containers/{id}/archive do."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def stat(self, container: Container, ref: str, path: str) -> PathStat:
        """Raises NotFound, InvalidParameter, Internal."""
        path = absolute(path)
        async with opened_root(self._services, container) as root_fd:
            return await self._in_thread(lambda: path_stat(root_fd, path, ref))

    @contextlib.asynccontextmanager
    async def get(
        self, container: Container, ref: str, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """Hold what the path is, and its tar in pieces. Raises as `stat` does."""
        path = absolute(path)
        async with opened_root(self._services, container) as root_fd:
            shown, place = await self._in_thread(
                lambda: (path_stat(root_fd, path, ref), locate(root_fd, path, ref))
            )
            self._tell(container, "archive-path")
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            begun = False

            async def pieces() -> AsyncGenerator[bytes]:
                nonlocal begun
                begun = True
                made = produce(
                    archived(place), self._services.executor, done=lambda: ended.set_result(None)
                )
                assert isinstance(made, AsyncGenerator)
                async with contextlib.aclosing(made):
                    async for piece in made:
                        yield piece

            sent = pieces()
            try:
                yield shown, sent
            finally:
                await sent.aclose()
                if begun:
                    await ended  # a thread may be at work on what is closed now
                os.close(place.parent_fd)

    async def put(
        self,
        container: Container,
        ref: str,
        path: str,
        archive: BinaryIO,
        *,
        keep_kinds: bool,
        as_user: bool,
    ) -> None:
        """Unpack an archive in the directory `path`. Raises NotFound, InvalidParameter, Internal.

        With `keep_kinds` no directory is replaced by something else nor the other way round; with
        `as_user` everything belongs to the container's user.
        """
        path = absolute(path)
        record = container.record
        async with opened_root(self._services, container) as root_fd:

            def work() -> None:
                directory_fd = open_directory(root_fd, path, ref)
                try:
                    _check_writable(record, follow(root_fd, path))
                    reader = TarReader(iter(Decompressed(archive)), max_entries=MAX_ENTRIES)
                    owner = _owner(root_fd, record.Config.User) if as_user else None
                    extract(reader, directory_fd, owner=owner, keep_kinds=keep_kinds, shown=path)
                    reader.drain()
                except TarError as exc:
                    raise Internal(str(exc)) from exc
                except OSError as exc:
                    raise Internal(f"{path}: {(exc.strerror or str(exc)).lower()}") from exc
                finally:
                    os.close(directory_fd)

            try:
                await self._in_thread(work)
            finally:
                self._services.directories.sync_later()
        self._tell(container, "extract-to-dir")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Not the engine's own threads: a client may take as long as it likes.
        return await asyncio.to_thread(work)

    def _tell(self, container: Container, action: str) -> None:
        self._services.events.container(container.record, action)


def archived(place: Place) -> Iterator[bytes]:
    """Yield the tar of what is at a place, under its own name. Blocking. Raises OSError."""
    return joined(_archived(place))


def _archived(place: Place) -> Iterator[bytes]:
    packer = Packer()
    name = place.name or b"."
    shown = os.fsencode(place.shown)
    yield from packer.pack(place.parent_fd, name, shown.rstrip(b"/"), place.found)
    if stat.S_ISDIR(place.found.st_mode):
        fd = os.open(name, _DIRECTORY, dir_fd=place.parent_fd)
        # Of the root what the kernel shows there is left out, as with Docker. Its files may not
        # even be read; whoever asks for one of them by name gets it.
        unread = _KERNELS if place.is_root else frozenset()
        yield from inside(packer, fd, shown.rstrip(b"/") + b"/", unread)
    yield END


def inside(
    packer: Packer, directory_fd: int, prefix: bytes, unread: frozenset[bytes] = frozenset()
) -> Iterator[bytes]:
    """Yield the members of what is in a directory, whose descriptor is closed at the end.

    Of `unread` directories in it that are mounts, the name alone.
    """
    device = os.fstat(directory_fd).st_dev
    try:
        for name in sorted(os.fsencode(text) for text in os.listdir(directory_fd)):
            try:
                found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went meanwhile
            yield from packer.pack(directory_fd, name, prefix + name, found)
            if stat.S_ISDIR(found.st_mode) and not (name in unread and found.st_dev != device):
                try:
                    inner_fd = os.open(name, _DIRECTORY, dir_fd=directory_fd)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as exc:
                    if exc.errno != errno.ELOOP:
                        raise
                    continue
                yield from inside(packer, inner_fd, prefix + name + b"/")
    finally:
        os.close(directory_fd)


def _check_writable(record: ContainerRecord, path: str) -> None:
    """Refuse what lies on something read-only, in dockerd's words. `path` has no links in it."""
    holder = None
    for mount in record.mounts:
        if (path + "/").startswith(mount.Destination.rstrip("/") + "/"):
            holder = mount  # those nearer to the root come first
    if holder is not None:
        if not holder.RW:
            raise InvalidParameter("mounted volume is marked read-only")
    elif record.HostConfig.ReadonlyRootfs:
        raise InvalidParameter("container rootfs is marked read-only")


def _owner(root_fd: int, user: str) -> tuple[int, int] | None:
    """Return the IDs of the container's user, by its own files; None when it names none."""
    if not user:
        return None
    files: list[str] = []
    with contextlib.ExitStack() as held:
        for path in (users.PASSWD_PATH, users.GROUP_PATH):
            try:
                fd = openat2(root_fd, os.fsencode(path), os.O_PATH, resolve=_INSIDE)
            except OSError:
                files.append(os.devnull)
                continue
            held.callback(os.close, fd)
            files.append(f"/proc/self/fd/{fd}")
        try:
            found = users.lookup(user, passwd_path=files[0], group_path=files[1])
        except ValueError as exc:
            raise Internal(str(exc)) from exc
    return found.uid, found.gid
