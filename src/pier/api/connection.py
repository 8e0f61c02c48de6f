"""One client's connection: HTTP until a request hijacks it.

aiohttp's parser knows upgrades to WebSocket only, and drops or misreads what follows a request
that hijacks Docker's way: those bytes are the container's stdin. So the boundary behind such a
request is found here, before the parser sees it, and what comes after is kept aside.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from pier.errors import InvalidParameter

MAX_HEAD_BYTES = 64 << 10
MAX_PENDING_BYTES = 64 << 10

_HIJACK = re.compile(
    rb"(?:POST (?:/v[0-9.]+)?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start|grpc|session"
    rb"|pier/build/session)(?:\?[^ ]*)?"
    # A log that is followed, whose connection is given away without a word of the client.
    rb"|GET (?:/v[0-9.]+)?/containers/[^/ ?]+/logs\?(?:[^ ]*&)?follow=[^ ]*) HTTP/1\.1\r\n"
)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_TO_H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*\r\n", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


def hijack_body_length(head: bytes) -> int | None:
    """Return the body length of a request that may hijack its connection, None for any other.

    `head` ends with the first CRLF of its empty line. Chunked bodies are not looked through: no
    client sends one here, but for Node's, which announce one for BuildKit's streams and send none.
    """
    if not _HIJACK.match(head):
        return None
    if _TRANSFER_ENCODING.search(head):
        return 0 if _TO_H2C.search(head) else None
    length = _CONTENT_LENGTH.search(head)
    return int(length[1]) if length else 0


class Connection(web.RequestHandler):
    """aiohttp's protocol of one connection, which can also give the connection away.

    Between requests it holds incoming bytes until a request's head is whole. `_tail` is None while
    it speaks HTTP, and collects what follows a hijacking request.
    """

    __slots__ = ("_body_left", "_head", "_is_upgraded", "_payload", "_stream_task", "_tail")

    def __init__(self, server: "ConnectionServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._head = b""
        self._payload: Any = None
        self._body_left = 0
        self._tail: bytearray | None = None
        self._is_upgraded = False
        self._stream_task: asyncio.Task[Any] | None = None

    def upgrade(self) -> None:
        """From here on aiohttp gets everything as it comes: frames of a WebSocket."""
        self._is_upgraded = True

    def data_received(self, data: bytes) -> None:
        if self._is_upgraded:
            super().data_received(data)
        elif self._tail is not None:
            self._keep(data)
        elif self._body_left:
            self._receive_body(data)
        elif not data or not self._is_between_requests():
            super().data_received(data)
        else:
            self._receive_head(self._head + data)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp narrows it to None
        """Keep a half-closed connection that is being hijacked: the client ended stdin only."""
        return self._tail is not None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.cancel_stream()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self._payload is None or self._payload.is_eof()

    def _receive_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0 and len(data) < MAX_HEAD_BYTES:
            self._head = data
            return
        self._head = b""
        length = hijack_body_length(data[: end + 2]) if end >= 0 else None
        if length is None:
            self._parse(data)
            return
        behind = end + 4 + length
        self._body_left = max(0, behind - len(data))
        self._parse(data[:behind])
        if not self._body_left:
            self._tail = bytearray(data[behind:])

    def _receive_body(self, data: bytes) -> None:
        body = data[: self._body_left]
        self._body_left -= len(body)
        super().data_received(body)
        if not self._body_left:
            self._tail = bytearray(data[len(body) :])

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._payload = self._messages[-1][1]

    def _keep(self, data: bytes) -> None:
        assert self._tail is not None
        self._tail += data
        if len(self._tail) >= MAX_PENDING_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def take(self) -> tuple[int, bytes]:
        """Return a new descriptor of the client's socket, the caller's to close, and what it sent.

        From here on nothing is read from the socket. Raises InvalidParameter when the request was
        not recognised as hijacking (chunked, or pipelined behind another), ConnectionResetError
        when the client is gone.
        """
        if self._tail is None:
            raise InvalidParameter("the connection cannot be hijacked by this request")
        if self.transport is None:
            raise ConnectionResetError("client disconnected")
        self.transport.pause_reading()
        pending = bytes(self._tail)
        self._tail.clear()
        return os.dup(self.transport.get_extra_info("socket").fileno()), pending

    @property
    def can_be_taken(self) -> bool:
        """Whether `take` is possible: the request was recognised as one that may hijack."""
        return self._tail is not None

    def let_go(self) -> None:
        """Drop the socket without shutting it down: others hold descriptors of it."""
        if self.transport is not None:
            self.transport.abort()

    def speak_http(self) -> None:
        """Go on with HTTP after a request that could have hijacked the connection and did not."""
        if self._tail is not None:
            data, self._tail = bytes(self._tail), None
            if self.transport is not None:
                self.transport.resume_reading()
            if data:
                self.data_received(data)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Cancel the current task, for the time of the block, when the client goes away.

        Other handlers run to their end whether or not the client waits for them.
        """
        self._stream_task = asyncio.current_task()
        try:
            yield
        finally:
            self._stream_task = None

    def cancel_stream(self) -> None:
        """End what `stream` marked: the client is gone, or pierd stops."""
        if self._stream_task is not None:
            self._stream_task.cancel()


class ConnectionServer(web.Server):
    """aiohttp's server, which makes our connections."""

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def cancel_streams(self) -> None:
        """End every endless answer (events, logs, wait), so that stopping need not wait."""
        for connection in self.connections:
            assert isinstance(connection, Connection)
            connection.cancel_stream()
