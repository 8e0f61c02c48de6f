"""A directory of the client's as a place for a cache or an image: a content store of its session's.

The client itself keeps `index.json`: it tells the digest to be read, and writes the one that the
answer to Solve names (`cache.manifest`, `containerimage.descriptor`; buildkit client/solve.go, session/content).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO

from pier.buildkit.messages import content
from pier.errors import InvalidParameter, NotFound
from pier.grpc.connection import Connection, check_end
from pier.grpc.status import Code, GrpcError
from pier.grpc.stream import Stream
from pier.model.digest import Digest, digest_of
from pier.model.oci import Descriptor
from pier.storage.blobs import Blobs

_SERVICE = "/containerd.services.content.v1.Content"
_STORE = "buildkit-attachable-store-id"
_PIECE = 1 << 20

_Read = Callable[[int], Awaitable[bytes]]


class ClientPlace:
    """`build.caches.places.Place`. `top` is the digest of what is read, "" for one to write to."""

    def __init__(self, connection: Connection, store: str, top: str, blobs: Blobs) -> None:
        self._connection = connection
        self._metadata = {_STORE: [store]}
        self._store = store
        self._top = top
        self._blobs = blobs

    async def manifest(self, digest: str = "") -> tuple[str, bytes]:
        wanted = digest or self._top
        if not wanted:
            raise NotFound(f"no build cache in {self._store}")
        return "", await self.small(wanted, 4 << 20)

    async def small(self, digest: str, limit: int) -> bytes:
        found = bytearray()
        async for piece in self.blob(digest):
            found += piece
            if len(found) > limit:
                raise InvalidParameter(f"content {digest} is larger than {limit} bytes")
        return bytes(found)

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        stream = self._connection.call(f"{_SERVICE}/Read", self._metadata)
        try:
            await stream.send(content.ReadContentRequest(digest).encode(), end=True)
            while (message := await stream.receive()) is not None:
                yield content.ReadContentResponse.decode(message).data
            check_end(stream)
        except BaseException:
            stream.reset()
            raise

    async def put_layer(self, diff_id: str, descriptor: Descriptor) -> None:
        with self._blobs.open(Digest(descriptor.digest)) as file:
            await self._write(descriptor.digest, descriptor.size, _reading(file))

    async def put_small(self, data: bytes) -> None:
        left = [data]

        async def once(_size: int) -> bytes:
            return left.pop() if left else b""

        await self._write(digest_of(data), len(data), once)

    async def put_top(self, media_type: str, data: bytes) -> None:
        await self.put_small(data)

    async def _write(self, digest: str, size: int, read: _Read) -> None:
        try:
            await self._connection.ask(
                f"{_SERVICE}/Info", content.InfoRequest(digest).encode(), self._metadata
            )
        except GrpcError as exc:
            if exc.code != Code.NOT_FOUND:
                raise
        else:
            return
        stream = self._connection.call(f"{_SERVICE}/Write", self._metadata)
        try:
            await self._send(stream, digest, size, read)
            stream.close()
            while await stream.receive() is not None:
                pass
            check_end(stream)
        except GrpcError as exc:
            stream.reset()
            if exc.code != Code.ALREADY_EXISTS:
                raise
        except BaseException:
            stream.reset()
            raise

    async def _send(self, stream: Stream, digest: str, size: int, read: _Read) -> None:
        """Write a blob: every message is answered before the next one goes."""
        ref = f"pier-{digest}"
        request = content.WriteContentRequest(content.STAT, ref, size, digest)
        answer = await _asked(stream, request)
        if answer.offset:
            # Somebody broke off: from the start again is not offered, so all of it is skipped.
            left = answer.offset
            while left and (piece := await read(min(left, _PIECE))):
                left -= len(piece)
        offset = answer.offset
        while piece := await read(_PIECE):
            request = content.WriteContentRequest(content.WRITE, ref, size, digest, offset, piece)
            await _asked(stream, request)
            offset += len(piece)
        await _asked(stream, content.WriteContentRequest(content.COMMIT, ref, size, digest, offset))


async def _asked(
    stream: Stream, request: content.WriteContentRequest
) -> content.WriteContentResponse:
    await stream.send(request.encode())
    answer = await stream.receive()
    if answer is None:
        check_end(stream)
        raise InvalidParameter("the client's content store ended a write early")
    return content.WriteContentResponse.decode(answer)


def _reading(file: BinaryIO) -> _Read:
    async def read(size: int) -> bytes:
        return await asyncio.to_thread(file.read, size)

    return read
