"""What arrives over HTTP, read from threads."""

import asyncio
import queue

from aiohttp import StreamReader

# How far the loop is ahead of the thread. What is less waits in the client's socket, and the client
# for it; a round trip between the two for each piece took as long as writing it to files.
AHEAD_BYTES = 4 << 20


class BodyReader:
    """A body (a request's, an answer's) as a binary file that a thread reads; the loop receives it.

    It is received from the first read on, AHEAD_BYTES ahead at most, until `close`. Reads raise
    ConnectionError when the other end went away. Not for the loop's own thread, which it would wait
    for.
    """

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._parts: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        # Of the loop's thread.
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._received = 0
        self._is_closed = False
        # Of the reading thread.
        self._buffer = b""
        self._taken = 0
        self._is_begun = False
        self._end: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end; the rest of the body when negative."""
        parts = []
        wanted = size
        while wanted != 0:
            part = self._buffer or self._receive()
            if not part:
                break
            taken = part if wanted < 0 else part[:wanted]
            self._buffer = part[len(taken) :]
            parts.append(taken)
            wanted = wanted if wanted < 0 else wanted - len(taken)
        return b"".join(parts)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Receive no more: reads that wait, and later ones, raise ConnectionError. For the loop."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()

    def _receive(self) -> bytes:
        """Return the next piece, b"" at the end."""
        if self._end is not None:
            raise self._end
        if not self._is_begun:
            self._is_begun = True
            self._loop.call_soon_threadsafe(self._begin)
        part = self._parts.get()
        if isinstance(part, BaseException):
            self._end = part
            raise part
        if not part:
            self._parts.put(b"")  # for the next read
        self._taken += len(part)
        if not self._room.is_set() and self._received - self._taken < AHEAD_BYTES // 2:
            self._loop.call_soon_threadsafe(self._room.set)
        return part

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._fill())
        self._task.add_done_callback(self._ended)
        if self._is_closed:
            self._task.cancel()

    async def _fill(self) -> None:
        self._room.set()
        while part := await self._content.readany():
            self._parts.put(part)
            self._received += len(part)
            if self._received - self._taken >= AHEAD_BYTES:
                self._room.clear()
                # It may have been taken between the look and the clearing.
                if self._received - self._taken >= AHEAD_BYTES:
                    await self._room.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._parts.put(ConnectionResetError("the body is not received any more"))
        else:
            self._parts.put(task.exception() or b"")
