"""Giving a client's connection away: the streams of attach and exec, and logs that are followed.

The answer's head is written straight to the socket, since the keeper writes right behind it. Then
the keeper has the descriptor and pierd drops its own without a shutdown, which would end the
connection for everyone. From here on pierd has no part in the stream.
"""

import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from pier.api.answers import HEADERS
from pier.api.call import Call
from pier.api.errors import message_of
from pier.api.streaming import RAW_STREAM, stream_type

log = logging.getLogger(__name__)

HandOver = Callable[[int, bytes], Awaitable[object]]

_COMMON = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
_STDOUT = 1


class Taken(web.StreamResponse):
    """The answer of a request whose connection is gone: aiohttp writes nothing, and closes."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def answer_head(call: Call, *, tty: bool) -> bytes:
    """Return the head: 101 when the client asked for an upgrade, else 200 and raw from there on."""
    if "Upgrade" not in call.request.headers:
        return f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n{_COMMON}\r\n".encode()
    kind = stream_type(call, tty=tty)
    return (
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\n"
        f"Connection: Upgrade\r\nUpgrade: tcp\r\n{_COMMON}\r\n"
    ).encode()


def chunked_head(call: Call, *, tty: bool) -> bytes:
    """Return the head of a stream in chunks, after which the connection ends."""
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {stream_type(call, tty=tty)}\r\n"
        f"Transfer-Encoding: chunked\r\nConnection: close\r\n{_COMMON}\r\n"
    ).encode()


async def hijack(call: Call, hand_over: HandOver, *, tty: bool) -> web.StreamResponse:
    """Answer, and pass the client's socket with what it already sent to `hand_over`.

    What can be refused must have been refused before. A failure of `hand_over` is told to the
    client as output, which is what dockerd does.
    """
    return await _give_away(
        call,
        answer_head(call, tty=tty),
        hand_over,
        lambda exc: _as_output(message_of(exc), tty=tty),
    )


async def give_stream(call: Call, hand_over: HandOver, *, tty: bool) -> web.StreamResponse:
    """Answer with chunks, which whoever gets the client's socket writes.

    A failure of `hand_over` ends the connection before its last chunk, which tells of it.
    """
    return await _give_away(call, chunked_head(call, tty=tty), hand_over, lambda _: b"")


async def _give_away(
    call: Call, head: bytes, hand_over: HandOver, told: Callable[[Exception], bytes]
) -> web.StreamResponse:
    connection = call.connection
    client_fd, pending = connection.take()
    try:
        os.write(client_fd, head)
        try:
            await hand_over(client_fd, pending)
        except Exception as exc:  # noqa: BLE001 - whatever failed, the stream is all that is left
            log.info("%s failed: %s", call.request.path, exc)
            os.write(client_fd, told(exc))
    finally:
        os.close(client_fd)
        connection.let_go()
    return Taken()


def _as_output(message: str, *, tty: bool) -> bytes:
    """Return a message as the container's standard output: a frame unless there is a TTY."""
    text = message.encode() + b"\r\n"
    return text if tty else bytes((_STDOUT, 0, 0, 0)) + len(text).to_bytes(4, "big") + text
