"""A client's session: its connection turned round, where the client serves and we call.

The services are BuildKit's (session/filesync, auth, secrets, sshforward).
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Self
from urllib.parse import quote

from pier.build.kept_contexts import Index
from pier.build.progress import Work
from pier.build.threads import finished
from pier.buildkit import send
from pier.buildkit.content import ClientPlace
from pier.buildkit.messages import session as messages
from pier.buildkit.messages.filesync import BytesMessage
from pier.buildkit.receive import Receiver
from pier.errors import NotFound, Unavailable
from pier.grpc.connection import Connection, check_end
from pier.grpc.status import Code, GrpcError
from pier.grpc.stream import Stream
from pier.storage.blobs import Blobs

_AUTH = "/moby.filesync.v1.Auth"
_SECRETS = "/moby.buildkit.secrets.v1.Secrets"
_SSH = "/moby.sshforward.v1.SSH"
_DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
_PULL = "/moby.upload.v1.Upload/Pull"
_HUB = "https://index.docker.io/v1/"
_CHUNK = 32 << 10
_SENT_CHUNK = 1 << 20
_BULK_BYTES, _BULK_S = 64 << 10, 0.003


class Session:
    """What a build asks of a client: `build.session.ClientSession`.

    `shared_key` names the client's directory from one build to the next, "" for none. What it serves is
    found by asking: clients announce their methods in headers, but dockerode's announce none.
    """

    def __init__(
        self,
        connection: Connection,
        session_id: str,
        shared_key: str,
        executor: Executor,
    ) -> None:
        self.id = session_id
        self.shared_key = shared_key
        self._connection = connection
        self._executor = executor
        self._relays: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for relay in self._relays:
            relay.cancel()
        self._connection.close()

    # Secrets, agents, passwords

    async def secret(self, name: str) -> bytes | None:
        request = messages.GetSecretRequest(ID=name)
        try:
            data = await self._connection.ask(f"{_SECRETS}/GetSecret", request.encode())
        except GrpcError as exc:
            if exc.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                return None
            raise
        return messages.GetSecretResponse.decode(data).data

    async def check_ssh(self, name: str) -> None:
        request = messages.CheckAgentRequest(ID=name or "default")
        try:
            await self._connection.ask(f"{_SSH}/CheckAgent", request.encode())
        except GrpcError as exc:
            if exc.code == Code.UNIMPLEMENTED:
                raise NotFound("no SSH key forwarded from the client") from exc
            raise

    async def ssh(self, name: str) -> socket.socket:
        stream = self._connection.call(
            f"{_SSH}/ForwardAgent", {"buildkit.ssh.id": [name or "default"]}
        )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        task = asyncio.create_task(_relay(stream, ours), name="ssh agent")
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        return theirs

    async def credentials(self, host: str) -> tuple[str, str]:
        name = _HUB if host in ("docker.io", "registry-1.docker.io", "index.docker.io") else host
        request = messages.CredentialsRequest(Host=name)
        try:
            data = await self._connection.ask(f"{_AUTH}/Credentials", request.encode())
        except GrpcError as exc:
            if exc.code == Code.UNIMPLEMENTED:
                return "", ""
            raise
        found = messages.CredentialsResponse.decode(data)
        return found.Username, found.Secret

    def cache_place(self, path: str, top: str, blobs: Blobs) -> ClientPlace:
        """A directory of the client's that keeps a build cache: `build.caches.places.Lender`."""
        return ClientPlace(self._connection, f"local:{path}", top, blobs)

    def image_place(self, store: str, top: str, blobs: Blobs) -> ClientPlace:
        """An OCI image layout that the client lends: `build.caches.places.Lender`."""
        return ClientPlace(self._connection, f"oci:{store}", top, blobs)

    def layout_place(self, blobs: Blobs) -> ClientPlace:
        """The directory of an image that is exported unpacked: `build.caches.places.Lender`."""
        return ClientPlace(self._connection, "export", "", blobs)

    # Files

    async def local(
        self,
        name: str,
        into: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
    ) -> int:
        receiver = await self.sync(name, into, {}, include=include, exclude=exclude, follow=follow)
        return receiver.transferred

    async def sync(
        self,
        name: str,
        into: str,
        index: Index,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
        work: Work | None = None,
    ) -> Receiver:
        """As `local`, for a directory whose content `index` tells; `work` hears of the progress."""
        metadata = {
            **_encoded("include-patterns", include),
            **_encoded("exclude-patterns", exclude),
            **_encoded("followpaths", follow),
            **_encoded("dir-name", [name]),
        }
        receiver = Receiver(into, index)
        stream = self._connection.call(_DIFF_COPY, metadata)
        started = _told(work, name, receiver, 0)
        try:
            while messages_ := await stream.receive_many():
                if sum(map(len, messages_)) > _BULK_BYTES:
                    # More is coming: fewer and larger turns of the thread.
                    await asyncio.sleep(_BULK_S)
                    messages_ += stream.receive_nowait()
                take = partial(receiver.take, messages_)
                for answer in await finished(self._executor, take):
                    await stream.send(answer)
                started = _told(work, name, receiver, started)
                if receiver.is_over:
                    stream.close()
            check_end(stream)
        except BaseException:
            stream.reset()
            raise
        finally:
            receiver.close()
        if not receiver.is_over:
            raise Unavailable("the client broke the transfer off")
        _told(work, name, receiver, started, done=True)
        return receiver

    async def upload(self, path: str) -> AsyncIterator[bytes]:
        """A file that the client gave such a URL: `build.fetching.Uploader`."""
        stream = self._connection.call(_PULL, {"urlpath": [path], "urlhost": ["buildkit-session"]})
        try:
            while (message := await stream.receive()) is not None:
                yield BytesMessage.decode(message).data
            check_end(stream)
        except BaseException:
            stream.reset()
            raise

    async def send_tree(self, exporter: str, directory: str) -> None:
        stream = self._connection.call(_SEND, _exporter(exporter))
        try:
            await send.send_tree(stream, directory, self._executor)
            check_end(stream)
        except BaseException:
            stream.reset()
            raise

    async def send_file(self, exporter: str, attributes: Mapping[str, str]) -> "FileSender":
        fields = {f"exporter-md-{key}": [value] for key, value in attributes.items()}
        return FileSender(self._connection.call(_SEND, {**_exporter(exporter), **fields}))


class FileSender:
    """`build.session.FileWriter`, and `build.export.exporter.Writer`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), _SENT_CHUNK):
            await self._stream.send(BytesMessage(data=data[at : at + _SENT_CHUNK]).encode())

    async def close(self) -> None:
        self._stream.close()
        while await self._stream.receive() is not None:
            pass
        check_end(self._stream)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not exc or exc[0] is None:
            await self.close()
        else:
            self._stream.reset()


def _exporter(exporter: str) -> dict[str, list[str]]:
    return {"buildkit-attachable-exporter-id": [exporter]} if exporter else {}


def _encoded(key: str, values: Sequence[str]) -> dict[str, list[str]]:
    """Headers for values that need not be ASCII: then they are escaped, and another header says so."""
    if not values:
        return {}
    if all(value.isascii() and value.isprintable() for value in values):
        return {key: list(values)}
    return {key: [quote(value, safe="") for value in values], f"{key}-encoded": ["1"]}


def _told(
    work: Work | None, name: str, receiver: Receiver, started: int, *, done: bool = False
) -> int:
    if work is None:
        return 0
    what = "dockerfile" if name == "dockerfile" else "context"
    return work.status(
        f"transferring {what}:", current=receiver.received, started=started, done=done
    )


async def _relay(stream: Stream, sock: socket.socket) -> None:
    """Pass on what goes between an agent's stream and a socket, until either ends."""
    loop = asyncio.get_running_loop()

    async def up() -> None:
        while data := await loop.sock_recv(sock, _CHUNK):
            await stream.send(BytesMessage(data=data).encode())
        stream.close()

    async def down() -> None:
        while (message := await stream.receive()) is not None:
            await loop.sock_sendall(sock, BytesMessage.decode(message).data)

    tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, GrpcError, Unavailable, OSError):
                await task
        stream.reset()
        sock.close()
