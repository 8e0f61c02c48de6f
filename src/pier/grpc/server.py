"""Serving gRPC: a table of methods, and what each sees of its call."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from pier.grpc.message import Message
from pier.grpc.status import Code, GrpcError, Status, status_of
from pier.grpc.stream import Stream, metadata_of, status_trailers

log = logging.getLogger(__name__)


class Call:
    """`metadata` are the caller's headers by name, in lower case."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.metadata: Mapping[str, Sequence[str]] = metadata_of(stream.headers or ())

    def value(self, key: str) -> str:
        """Return the first value of a header, "" without one."""
        values = self.metadata.get(key)
        return values[0] if values else ""

    async def send(self, message: Message) -> None:
        """Send one of several answers. Raises Unavailable when the caller is gone."""
        await self._stream.send(message.encode())


class Method(Struct, frozen=True):
    """`handle` gets the call and its `request`; it returns the answer, or None where it sent them."""

    request: type[Message]
    handle: Callable[..., Awaitable[Message | None]]


class Server:
    """What is at which "/service/method". Give `accept` to a `Connection`."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    async def accept(self, stream: Stream) -> None:
        """Serve one call. Raises whatever it fails with when the caller is gone."""
        headers = await stream.wait_headers()
        path = dict(headers).get(":path", "")
        stream.send_headers([(":status", "200"), ("content-type", "application/grpc")])
        try:
            answer = await self._handle(path, stream)
            if answer is not None:
                await stream.send(answer.encode())
            status = Status()
        except Exception as exc:
            if stream.is_gone:
                raise
            status = status_of(exc)
            if status.code == Code.UNKNOWN:
                log.debug("gRPC %s failed", path, exc_info=True)
        stream.send_headers(status_trailers(status), end=True)

    async def _handle(self, path: str, stream: Stream) -> Message | None:
        method = self._methods.get(path)
        if method is None:
            service, _, name = path.strip("/").rpartition("/")
            known = any(p.startswith(f"/{service}/") for p in self._methods)
            what = f"method {name} for service {service}" if known else f"service {service}"
            raise GrpcError(Code.UNIMPLEMENTED, f"unknown {what}")
        request = await stream.receive()
        if request is None:
            raise GrpcError(Code.INTERNAL, "no request")
        return await method.handle(Call(stream), method.request.decode(request))
