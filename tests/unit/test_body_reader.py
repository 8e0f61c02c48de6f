"""Bodies that the loop receives and a thread reads."""

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from pier.engine import body_reader
from pier.engine.body_reader import BodyReader


def stream() -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = asyncio.Transport()  # as long as there is one, it is connected
    return StreamReader(protocol, 1 << 16, loop=loop)


def test_what_was_received_is_read_in_the_sizes_asked_for():
    async def read() -> list[bytes]:
        content = stream()
        reader = BodyReader(content)
        first = asyncio.create_task(asyncio.to_thread(reader.read, 5))
        content.feed_data(b"abc")
        content.feed_data(b"defg")
        content.feed_data(b"hi")
        content.feed_eof()
        return [
            await first,
            await asyncio.to_thread(reader.read),
            await asyncio.to_thread(reader.read),
            await asyncio.to_thread(reader.read, 1),
        ]

    assert asyncio.run(read()) == [b"abcde", b"fghi", b"", b""]


def test_no_more_is_received_than_fits_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body_reader, "AHEAD_BYTES", 8)

    async def read() -> tuple[bytes, bytes, bytes]:
        content = stream()
        reader = BodyReader(content)
        content.feed_data(b"0123456789")
        start = await asyncio.to_thread(reader.read, 1)
        content.feed_data(b"abcdefgh")
        taken = await asyncio.to_thread(reader.read, 9)
        # All of the first piece is taken, and the second was received for it; there is no room for
        # a third, which stays where the connection's flow control counts it.
        content.feed_data(b"rest")
        for _ in range(100):
            await asyncio.sleep(0)
        kept = content.read_nowait(-1)
        content.feed_eof()
        return start + taken, kept, await asyncio.to_thread(reader.read)

    assert asyncio.run(read()) == (b"0123456789", b"rest", b"abcdefgh")


def test_a_connection_that_breaks_raises_what_broke_it_at_every_read():
    async def read() -> None:
        content = stream()
        reader = BodyReader(content)
        waiting = asyncio.create_task(asyncio.to_thread(reader.read))
        content.set_exception(ConnectionResetError("gone"))
        for reading in (waiting, asyncio.to_thread(reader.read)):
            with pytest.raises(ConnectionResetError, match="gone"):
                await reading

    asyncio.run(read())


def test_close_ends_a_read_that_waits():
    async def read() -> None:
        content = stream()
        content.feed_data(b"a")
        reader = BodyReader(content)
        assert await asyncio.to_thread(reader.read, 1) == b"a"
        waiting = asyncio.create_task(asyncio.to_thread(reader.read, 1))
        reader.close()
        with pytest.raises(ConnectionResetError):
            await waiting

    asyncio.run(read())


def test_nothing_is_read_after_close():
    async def read() -> None:
        reader = BodyReader(stream())
        reader.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(reader.read, 1)

    asyncio.run(read())
