"""`pier build`'s side of a build: `ClientSession` over `channels`."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from pier.build.channels import Channel, Channels, Refused
from pier.build.context import unpack_archive
from pier.build.session import FileWriter
from pier.errors import NotFound, Unsupported

MAX_SECRET = 500 << 10  # as BuildKit's
_CHUNK = 64 << 10


class PierSession:
    """See `build.session.ClientSession`. `executor` packs and unpacks archives."""

    def __init__(self, identity: str, channels: Channels, executor: Executor) -> None:
        self._identity = identity
        self._channels = channels
        self._executor = executor
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def id(self) -> str:
        return self._identity

    async def secret(self, name: str) -> bytes | None:
        async with self._channels.asking({"kind": "secret", "id": name}) as channel:
            try:
                return await channel.read_all(MAX_SECRET)
            except Refused as exc:
                if str(exc) == "not found":
                    return None
                raise

    async def check_ssh(self, name: str) -> None:
        async with self._channels.asking({"kind": "agent", "id": name, "probe": True}) as channel:
            await channel.read_all(0)

    async def ssh(self, name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        task = asyncio.create_task(self._relay(name, ours), name="build agent")
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        return theirs

    async def credentials(self, host: str) -> tuple[str, str]:
        """None: the request that began the build has brought them all."""
        return "", ""

    async def local(
        self,
        name: str,
        into: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
    ) -> int:
        """Everything travels: `into` is empty. `follow` is not needed, since links come as such."""
        question = {
            "kind": "directory",
            "id": name,
            "include": list(include),
            "exclude": list(exclude),
        }
        archive = f"{into}.tar"
        try:
            async with self._channels.asking(question) as channel:
                total = await _to_file(channel, archive)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, unpack_archive, archive, into)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(archive)
        return total

    async def fetch(self, name: str, path: str) -> None:
        """Write a file of the client's, by what it calls it, to `path`. Raises PierError, OSError."""
        async with self._channels.asking({"kind": "file", "id": name}) as channel:
            await _to_file(channel, path)

    async def send_tree(self, exporter: str, directory: str) -> None:
        raise Unsupported("this client fetches what a build exports")

    async def send_file(self, exporter: str, attributes: Mapping[str, str]) -> FileWriter:
        raise Unsupported("this client fetches what a build exports")

    async def _relay(self, name: str, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        async def up(channel: Channel) -> None:
            while data := await loop.sock_recv(ours, _CHUNK):
                await channel.write(data)
            await channel.end()

        async def down(channel: Channel) -> None:
            while data := await channel.read():
                await loop.sock_sendall(ours, data)
            ours.shutdown(socket.SHUT_WR)

        with ours, contextlib.suppress(OSError, Refused):
            async with (
                self._channels.asking({"kind": "agent", "id": name}) as channel,
                asyncio.TaskGroup() as both,
            ):
                both.create_task(up(channel))
                both.create_task(down(channel))


class PierSessions:
    """The sessions that clients have open, by the IDs that they chose."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._open: dict[str, PierSession] = {}

    async def serve(
        self, identity: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Have a session as long as its connection lasts."""
        channels = Channels(reader, writer)
        self._open[identity] = PierSession(identity, channels, self._executor)
        try:
            await channels.run()
        finally:
            self._open.pop(identity, None)

    def get(self, identity: str) -> PierSession:
        """Raises NotFound."""
        found = self._open.get(identity)
        if found is None:
            raise NotFound(f"no such build session: {identity}")
        return found


async def _to_file(channel: Channel, path: str) -> int:
    total = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while piece := await channel.read():
            total += os.write(fd, piece)
    finally:
        os.close(fd)
    return total
