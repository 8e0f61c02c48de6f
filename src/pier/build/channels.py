"""Pier's own way for a build to ask its client: channels on one connection, opened by the engine.

    kind  1 byte    O open, D data, E end of what this side sends, X it failed
    id    4 bytes   the channel, big-endian, chosen by the engine
    size  4 bytes   of what follows, at most 1 MiB
    ...             O: JSON, what is asked for; D: bytes; X: why, as text

The client answers in the same channel. It can speak this with the standard library alone, which
BuildKit's sessions (gRPC over HTTP/2) do not allow; `cli/build_session.py` is the other side.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from pier.errors import PierError, Unavailable

_HEAD = struct.Struct(">cII")
_MAX = 1 << 20
_PIECE = 256 << 10
_WAITING = 32
"""Pieces that wait in a channel before the connection is not read any more."""
_GONE = "the build's client has gone"


class Refused(PierError):
    """The client cannot give what was asked for."""


class Channels:
    """One client's connection. `run` reads it until it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._open: dict[int, Channel] = {}
        self._last = 0
        self._sending = asyncio.Lock()
        self.has_ended = False

    async def run(self) -> None:
        """Give what comes to the channels that it is for. Ends with the connection."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    kind, number, size = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                    if size > _MAX:
                        return
                    data = await self._reader.readexactly(size)
                    if (channel := self._open.get(number)) is not None:
                        await channel.put(kind, data)
        finally:
            self.has_ended = True
            for channel in list(self._open.values()):
                channel.cut()
            self._writer.close()

    @contextlib.asynccontextmanager
    async def asking(self, question: Mapping[str, Any]) -> "AsyncIterator[Channel]":
        """Ask the client for something, in a channel of its own. Raises Unavailable."""
        if self.has_ended:
            raise Unavailable(_GONE)
        self._last += 1
        channel = Channel(self, self._last)
        self._open[self._last] = channel
        try:
            await self.send(b"O", channel.number, msgspec.json.encode(question))
            yield channel
        finally:
            del self._open[channel.number]

    async def send(self, kind: bytes, number: int, data: bytes = b"") -> None:
        """Raises Unavailable."""
        try:
            async with self._sending:
                self._writer.write(_HEAD.pack(kind, number, len(data)) + data)
                await self._writer.drain()
        except OSError as exc:
            raise Unavailable(_GONE) from exc


class Channel:
    def __init__(self, channels: Channels, number: int) -> None:
        self._channels = channels
        self.number = number
        self._pieces: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(_WAITING)
        self._is_cut = asyncio.Event()

    async def put(self, kind: bytes, data: bytes) -> None:
        await self._pieces.put((kind, data))

    def cut(self) -> None:
        self._is_cut.set()

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises Refused, Unavailable."""
        kind, data = await self._next()
        if kind == b"X":
            raise Refused(data.decode("utf-8", "replace"))
        return data if kind == b"D" else b""

    async def _next(self) -> tuple[bytes, bytes]:
        if self._pieces.empty():
            got = asyncio.ensure_future(self._pieces.get())
            cut = asyncio.ensure_future(self._is_cut.wait())
            try:
                await asyncio.wait((got, cut), return_when=asyncio.FIRST_COMPLETED)
                if got.done():
                    return got.result()
            finally:
                got.cancel()
                cut.cancel()
            raise Unavailable(_GONE)
        return self._pieces.get_nowait()

    async def read_all(self, limit: int) -> bytes:
        """Raises Refused, Unavailable; Refused for more than `limit` bytes as well."""
        data = b""
        while piece := await self.read():
            data += piece
            if len(data) > limit:
                raise Refused(f"more than {limit} bytes")
        return data

    async def write(self, data: bytes) -> None:
        """Raises Unavailable."""
        for start in range(0, len(data), _PIECE):
            await self._channels.send(b"D", self.number, data[start : start + _PIECE])

    async def end(self) -> None:
        await self._channels.send(b"E", self.number)
