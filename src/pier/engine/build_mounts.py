"""Cache mounts on their way from a client, and to it."""

import asyncio
import io
import os
from concurrent.futures import Executor, Future
from functools import partial
from typing import IO, cast

from pier.build.cache_mounts import CacheMounts
from pier.build.context import Context
from pier.build.mount_archive import read_archive, write_archive
from pier.build.pier_session import PierSession
from pier.build.session import ClientSession, FileWriter
from pier.build.threads import finished
from pier.engine.build_exports import ClassicReceiver
from pier.errors import InvalidParameter

CLIENTS_NAME = "cache-mounts"
NUMBER = "-1"
"""The export's number, beside those of the outputs."""


async def bring(
    session: ClientSession | None, context: Context, mounts: CacheMounts, executor: Executor
) -> None:
    """Take an archive of the client's in the place of what there is. Raises PierError, OSError."""
    if not isinstance(session, PierSession):
        raise InvalidParameter("cache mounts come by a session of pier build")
    place = context.directory()
    path = os.path.join(place, "archive")
    await session.fetch(CLIENTS_NAME, path)
    into = context.directory()
    names = await finished(executor, partial(read_archive, path, into))
    mounts.take(into, names)


async def send(
    names: set[str], mounts: CacheMounts, receiver: ClassicReceiver, executor: Executor
) -> None:
    """Send mounts as an archive. Raises PierError, OSError."""
    found = mounts.paths(names)
    loop = asyncio.get_running_loop()
    async with await receiver.send_file(NUMBER, {}) as writer:
        piped = _Piped(writer, loop)
        out = cast("IO[bytes]", piped)
        work = loop.run_in_executor(executor, partial(write_archive, out, found))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            piped.stop()  # it may wait for a client that never fetches
            await asyncio.wait([work])
            work.exception()  # looked at
            raise


class _Piped(io.RawIOBase):
    """A file whose content goes to a client; `write` blocks a thread until it is taken."""

    def __init__(self, writer: FileWriter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._writer = writer
        self._loop = loop
        self._writing: Future[None] | None = None
        self._is_over = False

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(memoryview(cast("bytes", data)))
        if self._is_over:
            raise BrokenPipeError
        self._writing = asyncio.run_coroutine_threadsafe(self._writer.write(raw), self._loop)
        self._writing.result()
        return len(raw)

    def stop(self) -> None:
        """Let whoever writes fail."""
        self._is_over = True
        if self._writing is not None:
            self._writing.cancel()
