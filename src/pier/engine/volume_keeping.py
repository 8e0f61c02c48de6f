"""What Pier does with whole volumes beyond Docker: backup, restore, clone.

A backup is a tar: `volume.json` with the volume's record, then `data/` and all that is in it, with
owners, modes, xattrs and times. Containers that use the volume are paused while it is read, unless
that is not wanted. A volume that is restored or cloned appears with its data, or not at all.
"""

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import BinaryIO

import msgspec

from pier.engine.commit import paused
from pier.engine.containers import Containers
from pier.engine.copying import inside
from pier.engine.produce import produce
from pier.engine.services import Services
from pier.engine.states import ALIVE
from pier.errors import Internal, InvalidParameter
from pier.model.api_volumes import ANONYMOUS_LABEL, Volume, VolumeRecord
from pier.storage.copy import copy_tree
from pier.storage.decompress import Decompressed
from pier.storage.extract import extract
from pier.storage.layers import MAX_ENTRIES
from pier.storage.pack import Packer, joined
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader
from pier.storage.tar.writer import END

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RECORD = "volume.json"
_DATA = "data"


class VolumeKeeping:
    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._containers = containers

    def backup(self, name: str, *, pause: bool) -> AsyncIterator[bytes]:
        """Return the tar in pieces. Raises NotFound at once, Internal and OSError on the way."""
        return self._backup(self._services.volumes.record(name), pause=pause)

    async def _backup(self, record: VolumeRecord, *, pause: bool) -> AsyncGenerator[bytes]:
        async with self._readable(record, "backup", pause=pause) as path:
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            made = produce(
                joined(_archive(record, path)),
                self._services.executor,
                done=lambda: ended.set_result(None),
            )
            assert isinstance(made, AsyncGenerator)
            try:
                async with contextlib.aclosing(made):
                    async for piece in made:
                        yield piece
            finally:
                await ended  # a thread may still read what is unmounted, or goes on, from here on

    async def restore(self, name: str, archive: BinaryIO) -> Volume:
        """Make a volume of a backup. Raises Conflict when there is one of that name,
        InvalidParameter for what is no backup, Internal for a full disk.
        """
        volumes = self._services.volumes
        volumes.check_free(name)
        staged = self._services.directories.staging()

        def work() -> VolumeRecord:
            os.mkdir(staged, 0o700)
            fd = os.open(staged, _DIRECTORY)
            try:
                reader = TarReader(iter(Decompressed(archive)), max_entries=MAX_ENTRIES)
                extract(reader, fd)
                reader.drain()
                found = os.open(_RECORD, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
                with open(found, "rb") as file:
                    record = msgspec.json.decode(file.read(), type=VolumeRecord)
                os.close(os.open(_DATA, _DIRECTORY, dir_fd=fd))
            except (TarError, msgspec.DecodeError, UnicodeDecodeError, FileNotFoundError) as exc:
                raise InvalidParameter(f"not the backup of a volume: {exc}") from exc
            except OSError as exc:
                reason = (exc.strerror or str(exc)).lower()
                raise Internal(f"restoring volume {name}: {reason}") from exc
            finally:
                os.close(fd)
            return record

        try:
            # Not the engine's own threads: a client may take as long as it likes.
            old = await asyncio.to_thread(work)
            return volumes.adopt(name, _labels(old), f"{staged}/{_DATA}")
        finally:
            self._services.directories.discard_staged(staged)

    async def clone(self, name: str, new: str, *, pause: bool) -> Volume:
        """Make a local volume with another one's data and labels, by reflinks where the file system
        has them. Raises NotFound, Conflict, InvalidParameter, Internal.
        """
        volumes = self._services.volumes
        record = volumes.record(name)
        volumes.check_free(new)
        staged = self._services.directories.staging()

        def work(path: str) -> None:
            os.mkdir(staged, 0o700)
            with contextlib.ExitStack() as held:
                source_fd = os.open(path, _DIRECTORY)
                held.callback(os.close, source_fd)
                target_fd = os.open(staged, _DIRECTORY)
                held.callback(os.close, target_fd)
                copy_tree(source_fd, target_fd)

        try:
            async with self._readable(record, "clone", pause=pause) as path:
                await asyncio.get_running_loop().run_in_executor(
                    self._services.executor, work, path
                )
            return volumes.adopt(new, _labels(record), staged)
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise Internal(f"cloning volume {name}: {reason}") from exc
        finally:
            self._services.directories.discard_staged(staged)

    @contextlib.asynccontextmanager
    async def _readable(
        self, record: VolumeRecord, what: str, *, pause: bool
    ) -> AsyncIterator[str]:
        """Hold a volume mounted, and its containers still. Yields where it is."""
        services = self._services
        holder = f"{what}-{os.urandom(8).hex()}"
        async with contextlib.AsyncExitStack() as held:
            await services.volume_mounts.mount(record, holder)
            held.callback(services.volume_mounts.unmount, record.Name, holder)
            for user in services.volumes.users(record.Name) if pause else ():
                if user in services.store:
                    container = services.store.get(user)
                    if container.record.State.Status in ALIVE:
                        await held.enter_async_context(paused(self._containers, container))
            yield services.volumes.mountpoint(record.Name)


def _labels(record: VolumeRecord) -> dict[str, str]:
    return {key: value for key, value in (record.Labels or {}).items() if key != ANONYMOUS_LABEL}


def _archive(record: VolumeRecord, path: str) -> Iterator[bytes]:
    import tarfile  # noqa: PLC0415  # half a megabyte that few engines need

    text = msgspec.json.encode(record)
    member = tarfile.TarInfo(_RECORD)
    member.size, member.mode = len(text), 0o600
    head = io.BytesIO()
    with tarfile.open(fileobj=head, mode="w") as tar:
        tar.addfile(member, io.BytesIO(text))
    yield head.getvalue()[: tarfile.BLOCKSIZE * (1 + -(-len(text) // tarfile.BLOCKSIZE))]
    packer = Packer()
    fd = os.open(path, _DIRECTORY)
    yield from packer.pack(fd, b".", _DATA.encode(), os.fstat(fd))
    yield from inside(packer, fd, _DATA.encode() + b"/")  # which closes it
    yield END
