"""gRPC over HTTP/2 by hand, both sides against each other over a socket pair."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.errors import NotFound, Unavailable
from pier.grpc import frames
from pier.grpc.connection import WINDOW_BYTES, Connection, check_end
from pier.grpc.message import Message
from pier.grpc.server import Call, Method, Server
from pier.grpc.status import Any, Code, GrpcError
from pier.grpc.stream import Stream


class Text(Message):
    text: Annotated[str, 1] = ""
    count: Annotated[int, 2] = 0


async def _echo(call: Call, request: Text) -> Text:
    return Text(request.text + call.value("x-tail"))


async def _many(call: Call, request: Text) -> None:
    for number in range(request.count):
        await call.send(Text(request.text, number))


async def _fail(call: Call, request: Text) -> Text:
    if request.text:
        raise GrpcError(Code.ABORTED, "100 % ü\n", [Any("a/b", b"\x01")])
    raise NotFound("no such thing")


METHODS = {
    "/s/Echo": Method(Text, _echo),
    "/s/Many": Method(Text, _many),
    "/s/Fail": Method(Text, _fail),
}


@asynccontextmanager
async def pair(
    accept: Callable[[Stream], Awaitable[None]] | None = None,
) -> AsyncIterator[tuple[Connection, Connection]]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    client = Connection(is_client=True)
    server = Connection(is_client=False, accept=accept or Server(METHODS).accept)
    for connection, sock in ((client, ours), (server, theirs)):
        sock.setblocking(False)
        await loop.connect_accepted_socket(lambda c=connection: c, sock)
    try:
        yield client, server
    finally:
        client.close()
        server.close()
        await asyncio.wait_for(asyncio.gather(client.closed, server.closed), 10)


def test_calls() -> None:
    async def run() -> None:
        async with pair() as (client, _):
            metadata = {"X-Tail": ["!"]}
            data = await client.ask("/s/Echo", Text("hello").encode(), metadata)
            assert Text.decode(data).text == "hello!"
            answers = await asyncio.gather(
                *(client.ask("/s/Echo", Text(str(n)).encode()) for n in range(200))
            )
            assert [Text.decode(a).text for a in answers] == [str(n) for n in range(200)]

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, frames.DEFAULT_FRAME, WINDOW_BYTES, 3 * WINDOW_BYTES + 7])
def test_messages_of_any_size(size: int) -> None:
    async def run() -> None:
        async with pair() as (client, _):
            data = await client.ask("/s/Echo", Text("x" * size).encode())
            assert len(Text.decode(data).text) == size

    asyncio.run(run())


def test_many_answers_wait_for_a_slow_reader() -> None:
    async def run() -> None:
        async with pair() as (client, _):
            stream = client.call("/s/Many")
            await stream.send(Text("y" * 100_000, 300).encode(), end=True)
            found = []
            while messages := await stream.receive_many():
                found += [Text.decode(message).count for message in messages]
                await asyncio.sleep(0)
            check_end(stream)
            assert found == list(range(300))

    asyncio.run(run())


def test_errors_travel_with_their_details() -> None:
    async def run() -> None:
        async with pair() as (client, _):
            with pytest.raises(GrpcError, match="no such thing") as caught:
                await client.ask("/s/Fail", b"")
            assert caught.value.code == Code.NOT_FOUND
            with pytest.raises(GrpcError) as caught:
                await client.ask("/s/Fail", Text("x").encode())
            assert caught.value.message == "100 % ü\n"
            assert caught.value.details == [Any("a/b", b"\x01")]
            with pytest.raises(GrpcError, match="unknown method Nothing for service s") as caught:
                await client.ask("/s/Nothing", b"")
            assert caught.value.code == Code.UNIMPLEMENTED
            with pytest.raises(GrpcError, match="unknown service t"):
                await client.ask("/t/Nothing", b"")

    asyncio.run(run())


def test_long_headers_are_cut_into_frames() -> None:
    async def run() -> None:
        async with pair() as (client, _):
            tail = "z" * 50_000
            data = await client.ask("/s/Echo", b"", {"x-tail": [tail]})
            assert Text.decode(data).text == tail

    asyncio.run(run())


def test_a_call_that_is_broken_off_is_cancelled_there() -> None:
    async def run() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def accept(stream: Stream) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with pair(accept) as (client, _):
            stream = client.call("/s/Echo")
            await begun.wait()
            stream.reset()
            await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(run())


def test_a_connection_that_ends_fails_its_calls() -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def accept(stream: Stream) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with pair(accept) as (client, server):
            stream = client.call("/s/Echo")
            await begun.wait()
            server.close()
            with pytest.raises(Unavailable):
                await stream.receive()
            await client.closed
            with pytest.raises(Unavailable):
                client.call("/s/Echo")

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_a_server_outlives_any_bytes(data: bytes, with_preface: bool) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            theirs.setblocking(False)
            server = Connection(is_client=False, accept=Server(METHODS).accept)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: server, theirs)
            await loop.sock_sendall(ours, (frames.PREFACE if with_preface else b"") + data)
            ours.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(server.closed, 10)

    asyncio.run(run())


def test_what_was_read_before_is_not_lost() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            pending = (
                frames.PREFACE + frames.settings({}) + frames.frame(frames.PING, 0, 0, b"x" * 8)
            )
            server = Connection(is_client=False, accept=None, pending=pending)
            await loop.connect_accepted_socket(lambda: server, theirs)
            data = b""
            while frames.frame(frames.PING, frames.ACK, 0, b"x" * 8) not in data:
                data += await loop.sock_recv(ours, 4096)
            server.close()
            await server.closed

    asyncio.run(run())


@pytest.mark.parametrize("cut", [0, 2, 5])
def test_the_end_of_a_body_without_chunks_is_passed_over(cut: int) -> None:
    """As Node's clients send it before they turn their connection round."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        end = b"0\r\n\r\n"
        client = Connection(is_client=True, pending=end[:cut], skipped=end)
        theirs.sendall(end[cut:])
        server = Connection(is_client=False, accept=Server(METHODS).accept)
        for connection, sock in ((client, ours), (server, theirs)):
            sock.setblocking(False)
            await loop.connect_accepted_socket(lambda c=connection: c, sock)
        try:
            answer = await client.ask("/s/Echo", Text("hi").encode())
            assert Text.decode(answer).text == "hi"
        finally:
            client.close()
            server.close()

    asyncio.run(work())
