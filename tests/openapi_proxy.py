"""Stands between the clients and the engine, and holds every answer against the OpenAPI document.

    python openapi_proxy.py LISTEN UPSTREAM REPORT

Passes bytes on as they are and reads along until a connection is hijacked. What is wrong is
written to REPORT, a line each, once.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable

from openapi_schema import Specifications

MAX_BODY = 4 << 20
HIJACKED = "application/vnd.docker.raw-stream"


class Messages:
    """Takes one direction of a connection apart into HTTP messages.

    `has_no_body` says of an answer's status whether a body follows; `on_message` gets the start
    line, the headers and the body, cut at MAX_BODY.
    """

    def __init__(
        self,
        on_message: Callable[[str, dict[str, str], bytes], None],
        has_no_body: Callable[[str], bool],
        ends_with_connection: bool,
    ) -> None:
        self._on_message = on_message
        self._has_no_body = has_no_body
        self._ends_with_connection = ends_with_connection
        self._buffer = b""
        self._start = ""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._left: int | None = 0
        self._chunked = False
        self._in_body = False

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def end(self) -> None:
        """The connection ended: so does a message that had no length, or was cut."""
        if self._in_body and self._ends_with_connection:
            self._finish()

    def _step(self) -> bool:
        if not self._in_body:
            return self._head()
        if self._chunked and not self._left:
            return self._chunk_head()
        if self._left is None:
            self._take(len(self._buffer))
            return False
        if self._left:
            count = min(self._left, len(self._buffer))
            self._take(count)
            self._left -= count
        if not self._left and not self._chunked:
            self._finish()
        return bool(self._buffer)

    def _head(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        self._buffer = rest
        self._start, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        self._headers = {name.lower(): value.strip() for name, _, value in pairs}
        if self._start.startswith("HTTP/1.1 100"):
            return True
        self._body.clear()
        self._in_body = True
        self._chunked = "chunked" in self._headers.get("transfer-encoding", "")
        length = self._headers.get("content-length")
        self._left = int(length) if length else 0
        if self._has_no_body(self._start):
            self._left, self._chunked = 0, False
        elif not length and not self._chunked and self._ends_with_connection:
            self._left = None
        if self._left == 0 and not self._chunked:
            self._finish()
        return True

    def _chunk_head(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        if not line:  # the end of the chunk before
            self._buffer = rest
            return True
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            if len(rest) < 2:
                return False
            self._buffer = rest[2:]
            self._finish()
            return True
        self._buffer, self._left = rest, size
        return True

    def _take(self, count: int) -> None:
        if len(self._body) < MAX_BODY:
            self._body += self._buffer[:count]
        self._buffer = self._buffer[count:]

    def _finish(self) -> None:
        self._in_body = False
        self._on_message(self._start, self._headers, bytes(self._body))


class Observer:
    """Reads along on both directions of one connection."""

    def __init__(self, check: Callable[[str, str, int, bytes], None]) -> None:
        self._check = check
        self._asked: deque[tuple[str, str]] = deque()
        self._opaque = False
        self.requests = Messages(self._request, lambda _: False, ends_with_connection=False)
        self.answers = Messages(self._answer, self._is_empty, ends_with_connection=True)

    def up(self, data: bytes) -> None:
        if not self._opaque:
            self._guarded(self.requests, data)

    def down(self, data: bytes) -> None:
        if not self._opaque:
            self._guarded(self.answers, data)

    def end(self) -> None:
        if not self._opaque:
            self.answers.end()

    def _guarded(self, messages: Messages, data: bytes) -> None:
        try:
            messages.feed(data)
        except (ValueError, IndexError):
            self._opaque = True

    def _request(self, start: str, headers: dict[str, str], body: bytes) -> None:
        method, path, _ = start.split(" ", 2)
        self._asked.append((method, path))

    def _is_empty(self, start: str) -> bool:
        status = int(start.split()[1])
        method = self._asked[0][0] if self._asked else ""
        return method == "HEAD" or status < 200 or status in (204, 304)

    def _answer(self, start: str, headers: dict[str, str], body: bytes) -> None:
        status = int(start.split()[1])
        if not self._asked:
            self._opaque = True
            return
        method, path = self._asked.popleft()
        raw = headers.get("content-type") == HIJACKED and "content-length" not in headers
        self._opaque = status == 101 or raw
        self._check(method, path, status, body if not raw else b"")


async def main(listen: str, upstream: str, report: str) -> None:
    specification = Specifications()
    told: set[str] = set()

    def check(method: str, path: str, status: int, body: bytes) -> None:
        for problem in specification.check(method, path, status, body):
            if problem not in told:
                told.add(problem)
                with open(report, "a") as file:
                    file.write(problem + "\n")

    async def pump(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        observe: Callable[[bytes], None],
    ) -> None:
        try:
            while data := await reader.read(1 << 18):
                observe(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.close()

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        serving.add(task)  # asyncio itself holds tasks by weak references only
        observer = Observer(check)
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(upstream)
        except OSError:
            writer.close()
            return
        up = asyncio.ensure_future(pump(reader, up_writer, observer.up))
        try:
            await pump(up_reader, writer, observer.down)
        finally:
            serving.discard(task)
            observer.end()
            up.cancel()
            up_writer.close()
            writer.close()

    server = await asyncio.start_unix_server(serve, listen)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    asyncio.run(main(*sys.argv[1:]))
