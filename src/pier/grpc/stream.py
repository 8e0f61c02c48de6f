"""One stream of an HTTP/2 connection, as gRPC uses it: headers, messages both ways, trailers.

A message travels as a byte that says whether it is compressed, its length in four bytes, and itself
(github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md). What was received and is not yet taken counts against
the window that the other side may fill, so a slow reader holds up the sender and nobody else.
"""

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pier.grpc import frames
from pier.grpc.status import Code, GrpcError, Status

if TYPE_CHECKING:
    from pier.grpc.connection import Connection

MAX_MESSAGE_BYTES = 64 << 20
_PREFIX = 5

Headers = Sequence[tuple[str, str]]


class Stream:
    """`headers` are what the other side began with, `trailers` what it ended with, None before."""

    def __init__(self, connection: "Connection", number: int, window: int) -> None:
        self._connection = connection
        self.number = number
        self.headers: Headers | None = None
        self.trailers: Headers | None = None
        self.task: asyncio.Task[None] | None = None
        self.send_window = window
        self._buffer = bytearray()
        self._messages: deque[tuple[bytes, int]] = deque()  # with what they cost of the window
        self._early = 0  # bytes of `_buffer` that were given back already
        self._owed = 0  # bytes that were taken and are not yet given back
        self._failure: BaseException | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.is_closed_here = False

    # What the connection tells

    def begin(self, headers: Headers, *, end: bool) -> None:
        if self.headers is None:
            self.headers = headers
        else:
            self.trailers = headers
        if end:
            self.end()
        self._wake()

    def feed(self, payload: memoryview, counted: int) -> None:
        """Take a DATA frame's payload; `counted` bytes of window went with it, padding too."""
        self._owed += counted - len(payload)
        self._buffer += payload
        self._take_apart()
        self._wake()

    def end(self) -> None:
        """The other side sends no more."""
        self._ended = True
        self._wake()

    def fail(self, exc: BaseException) -> None:
        """Nothing comes or goes any more: reset, or the connection is gone."""
        if self._failure is None:
            self._failure = exc
        self._wake()
        self.give_room(0)

    def give_room(self, by: int) -> None:
        self.send_window += by
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _take_apart(self) -> None:
        buffer = self._buffer
        at, end = 0, len(buffer)
        with memoryview(buffer) as view:
            while end - at >= _PREFIX:
                size = int.from_bytes(view[at + 1 : at + _PREFIX], "big")
                if buffer[at] or size > MAX_MESSAGE_BYTES:
                    what = "is compressed" if buffer[at] else "is too large"
                    self.fail(GrpcError(Code.RESOURCE_EXHAUSTED, f"a message {what}"))
                    break
                if end - at < _PREFIX + size:
                    break
                message = bytes(view[at + _PREFIX : at + _PREFIX + size])
                self._messages.append((message, _PREFIX + size - self._early))
                self._early = 0
                at += _PREFIX + size
        if at:
            del buffer[:at]
        # A message larger than the window must be let in all the same: what of it is here is given
        # back at once, and not again when it is taken.
        if len(buffer) - self._early > self._connection.window // 2:
            self._give_back(len(buffer) - self._early)
            self._early = len(buffer)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What its user does

    async def wait_headers(self) -> Headers:
        """Wait for the other side's headers. Raises GrpcError, Unavailable."""
        while self.headers is None:
            await self._wait()
        return self.headers

    async def receive(self) -> bytes | None:
        """Return the next message, None at the end. Raises GrpcError, Unavailable."""
        while not self._messages:
            if self._ended and self._failure is None:
                return None
            await self._wait()
        message, cost = self._messages.popleft()
        self._give_back(cost)
        return message

    async def receive_many(self) -> list[bytes]:
        """Return all messages that are here, at least one, none at the end. As `receive`."""
        while not self._messages:
            if self._ended and self._failure is None:
                return []
            await self._wait()
        return self.receive_nowait()

    def receive_nowait(self) -> list[bytes]:
        """Return the messages that are here, which may be none."""
        taken = list(self._messages)
        self._messages.clear()
        self._give_back(sum(cost for _, cost in taken))
        return [message for message, _ in taken]

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _give_back(self, size: int) -> None:
        self._owed += size
        if self._owed >= self._connection.window // 4 and not self._ended:
            self._connection.credit(self.number, self._owed)
            self._owed = 0

    async def send(self, message: bytes, *, end: bool = False) -> None:
        """Send a message; waits for the other side's window. Raises GrpcError, Unavailable."""
        data = b"\0" + len(message).to_bytes(4, "big") + message
        at = 0
        while at < len(data):
            if self._failure is not None:
                raise self._failure
            room = min(self.send_window, self._connection.send_window, self._connection.max_frame)
            if room <= 0 or self._connection.is_full:
                await self._wait_room()
                continue
            piece = data[at : at + room]
            at += len(piece)
            self.send_window -= len(piece)
            last = end and at == len(data)
            self._connection.send_data(self.number, piece, end=last)
        if end:
            self.is_closed_here = True

    async def _wait_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        self._connection.waiting.add(self)
        try:
            await self._room
        finally:
            self._room = None
            self._connection.waiting.discard(self)

    @property
    def is_gone(self) -> bool:
        """Whether nobody is there any more to hear of the end."""
        return self._failure is not None

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        self._connection.send_headers(self.number, headers, end=end)
        self.is_closed_here = self.is_closed_here or end

    def close(self) -> None:
        """Send no more. A second call does nothing."""
        if not self.is_closed_here and self._failure is None:
            self.is_closed_here = True
            self._connection.send_data(self.number, b"", end=True)

    def reset(self, code: int = frames.CANCEL) -> None:
        """Break it off, whatever is still to come."""
        self._connection.reset(self, code)


def encode_metadata(metadata: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(key.lower(), value) for key, values in metadata.items() for value in values]


def metadata_of(headers: Headers) -> dict[str, list[str]]:
    """Headers by name, several of one name in their order, without HTTP/2's own."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith(":"):
            found.setdefault(name, []).append(value)
    return found


def status_trailers(status: Status) -> list[tuple[str, str]]:
    """`grpc-message` is percent-encoded; the whole status goes along where it has details."""
    message = quote(status.message, safe=_PLAIN)
    trailers = [("grpc-status", str(status.code)), ("grpc-message", message)]
    if status.details:
        data = base64.b64encode(status.encode()).decode().rstrip("=")
        trailers.append(("grpc-status-details-bin", data))
    return trailers


_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def read_status(headers: Headers) -> Status:
    """Return what a call's trailers say of its end."""
    fields = dict(headers)
    if "grpc-status" not in fields:
        answer = fields.get(":status", "missing")
        return Status(Code.UNKNOWN, f"unexpected HTTP status {answer}")
    text = fields["grpc-status"]
    code = int(text) if text.isdecimal() else int(Code.UNKNOWN)
    details = fields.get("grpc-status-details-bin", "")
    if details and code:
        try:
            data = base64.b64decode(details + "=" * (-len(details) % 4))
            return Status.decode(data)
        except (binascii.Error, ValueError):
            pass
    return Status(code, unquote(fields.get("grpc-message", "")))
