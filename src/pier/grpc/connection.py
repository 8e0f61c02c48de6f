"""HTTP/2 over one socket, for gRPC, either side of it (RFC 9113).

    loop reads ──▶ frames ──▶ streams ──▶ calls' tasks          (server: `serve` starts them)
    calls send ──▶ frames, as windows allow ──▶ one write a turn of the loop

Hand-made, since a build's context comes through here: a general library takes tens of
microseconds for a frame of 16 KiB, this a few. What it leaves out is what gRPC's peers never do:
push, priorities, upgrades.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hpack import Decoder, Encoder, HPACKError

from pier.errors import Unavailable
from pier.grpc import frames
from pier.grpc.status import Code, GrpcError
from pier.grpc.stream import Headers, Stream, encode_metadata, read_status

log = logging.getLogger(__name__)

WINDOW_BYTES = 4 << 20
CONNECTION_WINDOW_BYTES = 64 << 20
MAX_HEADER_BYTES = 16 << 20
MAX_BUFFER_BYTES = 1 << 20
MAX_STREAMS = 1000

Accept = Callable[[Stream], Awaitable[None]]


class Broken(Exception):
    """The other side does not keep to HTTP/2; `code` is RFC 9113's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Connection(asyncio.Protocol):
    """`accept` serves a stream that the other side began; None for a side that only calls.

    `is_client` begins with the preface. `pending` is what was read of the socket before. `closed`
    is done when the connection is gone. `skipped` may come first, and is passed over.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        accept: Accept | None = None,
        pending: bytes = b"",
        skipped: bytes = b"",
    ) -> None:
        self.window = WINDOW_BYTES
        self.send_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME
        self.is_full = False
        self.waiting: set[Stream] = set()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._accept = accept
        self._is_client = is_client
        self._pending = pending
        self._skipped = skipped
        self._next = 1 if is_client else 2
        self._last = 0
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._rest = b""
        self._preface = b"" if is_client else frames.PREFACE
        self._stream_window = frames.DEFAULT_WINDOW
        self._received = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._decoder = Decoder(MAX_HEADER_BYTES)
        self._encoder = Encoder()

    # The socket

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(MAX_BUFFER_BYTES)
        if self._is_client:
            self._write(frames.PREFACE)
        self._write(
            frames.settings(
                {
                    frames.SETTINGS_ENABLE_PUSH: 0,
                    frames.SETTINGS_INITIAL_WINDOW_SIZE: WINDOW_BYTES,
                    frames.SETTINGS_MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
                }
            )
        )
        self._write(frames.window_update(0, CONNECTION_WINDOW_BYTES - frames.DEFAULT_WINDOW))
        if self._pending:
            self.data_received(self._pending)
            self._pending = b""

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self._skipped:
            if len(data) < len(self._skipped) and self._skipped.startswith(data):
                self._rest = data
                return
            data, self._skipped = data.removeprefix(self._skipped), b""
        try:
            self._take_apart(data)
        except Broken as exc:
            log.info("gRPC connection: %s", exc)
            self._goodbye(exc.code)

    def connection_lost(self, exc: BaseException | None) -> None:
        gone = Unavailable("the connection is gone")
        for stream in list(self._streams.values()):
            stream.fail(gone)
            if stream.task is not None:
                stream.task.cancel()
        self._streams.clear()
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._give_room()

    def close(self) -> None:
        """End it, and every call on it. A second call does nothing."""
        if self._transport is not None:
            self._goodbye(frames.NO_ERROR)

    def _goodbye(self, code: int) -> None:
        payload = self._last.to_bytes(4, "big") + code.to_bytes(4, "big")
        self._write(frames.frame(frames.GOAWAY, 0, 0, payload))
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # Frames that come

    def _take_apart(self, data: bytes) -> None:
        if self._preface:
            size = len(frames.PREFACE)
            if not frames.PREFACE.startswith(data[:size]):
                raise Broken(frames.PROTOCOL_ERROR, "no HTTP/2 preface")
            if len(data) < size:
                self._rest = data
                return
            data, self._preface = data[size:], b""
        at, end = 0, len(data)
        view = memoryview(data)
        while end - at >= frames.HEADER_BYTES:
            size = int.from_bytes(view[at : at + 3], "big")
            if size > frames.DEFAULT_FRAME:
                raise Broken(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + frames.HEADER_BYTES
            if end - start < size:
                break
            kind, flags = view[at + 3], view[at + 4]
            stream = int.from_bytes(view[at + 5 : start], "big") & frames.MAX_WINDOW
            at = start + size
            self._frame(kind, flags, stream, view[start:at])
        self._rest = data[at:]
        if self._received >= CONNECTION_WINDOW_BYTES // 4:
            # The streams' windows bound what is held; the connection's is given back at once.
            self._write(frames.window_update(0, self._received))
            self._received = 0

    def _frame(  # noqa: C901, PLR0912 - one line a kind
        self, kind: int, flags: int, number: int, payload: memoryview
    ) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise Broken(frames.PROTOCOL_ERROR, "headers are broken off")
        match kind:
            case frames.DATA:
                self._data(flags, number, payload)
            case frames.HEADERS:
                inner = frames.unpadded(payload, flags)
                if inner is None or not number:
                    raise Broken(frames.PROTOCOL_ERROR, "broken HEADERS")
                self._block = (number, flags, bytearray(inner))
                self._headers_if_whole(flags)
            case frames.CONTINUATION:
                if self._block is None or self._block[0] != number:
                    raise Broken(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
                self._block[2].extend(payload)
                if len(self._block[2]) > MAX_HEADER_BYTES:
                    raise Broken(frames.PROTOCOL_ERROR, "headers are too large")
                self._headers_if_whole(flags)
            case frames.SETTINGS:
                self._settings(flags, bytes(payload))
            case frames.PING:
                if not flags & frames.ACK:
                    self._write(frames.frame(frames.PING, frames.ACK, 0, bytes(payload)))
            case frames.WINDOW_UPDATE:
                self._window_update(number, payload)
            case frames.RST_STREAM:
                self._was_reset(number, int.from_bytes(payload, "big"))
            case _:
                pass  # GOAWAY: the connection's end follows. Others are to be ignored.

    def _data(self, flags: int, number: int, payload: memoryview) -> None:
        self._received += len(payload)
        stream = self._streams.get(number)
        if stream is None:
            return  # reset here, and still on its way there
        inner = frames.unpadded(payload, flags & frames.PADDED)
        if inner is None:
            raise Broken(frames.PROTOCOL_ERROR, "broken DATA")
        stream.feed(inner, len(payload))
        if flags & frames.END_STREAM:
            stream.end()
            self._forget_if_over(stream)

    def _headers_if_whole(self, flags: int) -> None:
        if not flags & frames.END_HEADERS or self._block is None:
            return
        number, first_flags, block = self._block
        self._block = None
        try:
            headers: Headers = [
                (_text(name), _text(value)) for name, value in self._decoder.decode(bytes(block))
            ]
        except HPACKError as exc:
            raise Broken(frames.COMPRESSION_ERROR, f"headers: {exc}") from exc
        ends = bool(first_flags & frames.END_STREAM)
        stream = self._streams.get(number)
        if stream is None:
            if self._is_client or self._accept is None or not number % 2 or number <= self._last:
                return
            stream = self._begun(number, self._accept)
            if stream is None:
                return
        stream.begin(headers, end=ends)
        if ends:
            self._forget_if_over(stream)

    def _begun(self, number: int, accept: Accept) -> Stream | None:
        self._last = number
        if len(self._streams) >= MAX_STREAMS:
            code = frames.REFUSED_STREAM.to_bytes(4, "big")
            self._write(frames.frame(frames.RST_STREAM, 0, number, code))
            return None
        stream = self._streams[number] = Stream(self, number, self._stream_window)
        stream.task = self._loop.create_task(self._serve(stream, accept), name="gRPC call")
        self._tasks.add(stream.task)
        stream.task.add_done_callback(self._tasks.discard)
        return stream

    async def _serve(self, stream: Stream, accept: Accept) -> None:
        try:
            await accept(stream)
        except Exception:
            if not stream.is_gone:
                raise
            log.debug("a call whose caller is gone failed", exc_info=True)
        finally:
            if self._streams.get(stream.number) is stream:
                # What the other side still sends is nobody's.
                stream.end()
                if not stream.is_closed_here:
                    stream.reset(frames.INTERNAL_ERROR)
                self._streams.pop(stream.number, None)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        if len(payload) % 6:
            raise Broken(frames.FRAME_SIZE_ERROR, "broken SETTINGS")
        values = frames.read_settings(payload)
        if (window := values.get(frames.SETTINGS_INITIAL_WINDOW_SIZE)) is not None:
            if window > frames.MAX_WINDOW:
                raise Broken(frames.FLOW_CONTROL_ERROR, "window is too large")
            for stream in self._streams.values():
                stream.give_room(window - self._stream_window)
            self._stream_window = window
        if (size := values.get(frames.SETTINGS_MAX_FRAME_SIZE)) is not None:
            self.max_frame = min(max(size, frames.DEFAULT_FRAME), 1 << 20)
        if (table := values.get(frames.SETTINGS_HEADER_TABLE_SIZE)) is not None:
            self._encoder.header_table_size = min(table, 4096)
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _window_update(self, number: int, payload: memoryview) -> None:
        by = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        if number:
            if (stream := self._streams.get(number)) is not None:
                stream.give_room(by)
        else:
            self.send_window += by
            self._give_room()

    def _give_room(self) -> None:
        for stream in list(self.waiting):
            stream.give_room(0)

    def _was_reset(self, number: int, code: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if code == frames.NO_ERROR and stream.trailers is not None:
            stream.end()
            return
        stream.fail(GrpcError(Code.CANCELLED, "context canceled"))
        if stream.task is not None:
            stream.task.cancel()

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.is_closed_here and stream.task is None:
            self._streams.pop(stream.number, None)

    # Frames that go

    def send_headers(self, number: int, headers: Headers, *, end: bool = False) -> None:
        """Send a header block, cut into frames where it is long."""
        block = self._encoder.encode(list(headers), huffman=False)
        flags = frames.END_STREAM if end else 0
        pieces = [
            block[at : at + frames.DEFAULT_FRAME]
            for at in range(0, len(block), frames.DEFAULT_FRAME)
        ] or [b""]
        for index, piece in enumerate(pieces):
            kind = frames.CONTINUATION if index else frames.HEADERS
            is_last = index == len(pieces) - 1
            what = (0 if index else flags) | (frames.END_HEADERS if is_last else 0)
            self._write(frames.frame(kind, what, number, piece))

    def send_data(self, number: int, data: bytes, *, end: bool) -> None:
        self.send_window -= len(data)
        self._write(frames.frame(frames.DATA, frames.END_STREAM if end else 0, number, data))

    def credit(self, number: int, size: int) -> None:
        """Let the other side send that many bytes more on a stream."""
        self._write(frames.window_update(number, size))

    def reset(self, stream: Stream, code: int) -> None:
        if self._streams.pop(stream.number, None) is not None and self._transport is not None:
            payload = code.to_bytes(4, "big")
            self._write(frames.frame(frames.RST_STREAM, 0, stream.number, payload))
        stream.is_closed_here = True

    # Calls

    def call(self, path: str, metadata: Mapping[str, Sequence[str]] = {}) -> Stream:
        """Begin a call of the other side's method `/service/method`. Raises Unavailable."""
        if self._transport is None:
            raise Unavailable("the connection is gone")
        stream = Stream(self, self._next, self._stream_window)
        self._next += 2
        self._streams[stream.number] = stream
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *encode_metadata(metadata),
        ]
        self.send_headers(stream.number, headers)
        return stream

    async def ask(
        self,
        path: str,
        message: bytes,
        metadata: Mapping[str, Sequence[str]] = {},
    ) -> bytes:
        """Call a method with one message and one answer. Raises GrpcError, Unavailable."""
        stream = self.call(path, metadata)
        try:
            await stream.send(message, end=True)
            answer = await stream.receive()
            while await stream.receive() is not None:
                pass
            check_end(stream)
        except BaseException:
            stream.reset()
            raise
        self._streams.pop(stream.number, None)
        if answer is None:
            raise GrpcError(Code.INTERNAL, "no answer")
        return answer


def check_end(stream: Stream) -> None:
    """Raise GrpcError where a call that we made has ended badly; it has ended."""
    status = read_status(stream.trailers or stream.headers or [])
    if status.code:
        raise GrpcError(status.code, status.message, status.details)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
