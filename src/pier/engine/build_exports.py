"""Exports to a client of the classic API, whose answer is lines of JSON and nothing else.

    pierd                                       client
      {"aux": {"Export": {"ID": token, "Number": 0, "Type": "oci", …}}}  ──▶
                                                ◀──  GET /pier/build/export?id=token
      the file (200, chunked)                   ──▶
      … and the build goes on when it was taken

The build waits for whoever fetches; it ends with its client, as every build does.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Self

from pier.build.session import FileWriter
from pier.errors import NotFound, Unavailable
from pier.storage.merged import MergedDirectory, tree_tar

_Tell = Callable[[Mapping[str, Any]], None]
_AHEAD = 4


class _File:
    """A file on its way, `build.session.FileWriter`: pieces in a queue, None at its end."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        self._taken = asyncio.Event()
        self._broken = False
        self.fetched = False

    async def write(self, data: bytes) -> None:
        await self._put(data)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self._broken = True
            while not self._pieces.empty():
                self._pieces.get_nowait()
            self._pieces.put_nowait(None)
            return
        await self._put(None)
        await self._taken.wait()
        if self._broken:
            raise Unavailable("the client broke off the transfer of an export")

    async def _put(self, piece: bytes | None) -> None:
        if self._broken:
            raise Unavailable("the client broke off the transfer of an export")
        await self._pieces.put(piece)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield it all; an end that is none, or nobody who takes it, is told to both sides."""
        whole = False
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            whole = not self._broken
        finally:
            if not whole:
                self._broken = True
                while not self._pieces.empty():
                    self._pieces.get_nowait()
            self._taken.set()
        if not whole:
            raise Unavailable("the build broke off the export")


class Exports:
    """Files that wait for who fetches them, by their tokens."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def fetch(self, token: str) -> AsyncIterator[bytes]:
        """Take a file. Raises NotFound for one that is not there, or was fetched."""
        file = self._files.get(token)
        if file is None or file.fetched:
            raise NotFound(f"no such export: {token}")
        file.fetched = True
        return file.pieces()

    def add(self) -> tuple[str, _File]:
        token = secrets.token_hex(16)
        self._files[token] = _File()
        return token, self._files[token]

    def forget(self, token: str) -> None:
        self._files.pop(token, None)


class ClassicReceiver:
    """The client of one build, as exporters see it: `build.export.exporter.Receiver`."""

    def __init__(
        self,
        exports: Exports,
        tell: _Tell,
        credentials: Callable[[str], Awaitable[tuple[str, str]]],
    ) -> None:
        self._exports = exports
        self._tell = tell
        self._credentials = credentials
        self._tokens: list[str] = []

    def close(self) -> None:
        for token in self._tokens:
            self._exports.forget(token)

    async def credentials(self, host: str) -> tuple[str, str]:
        return await self._credentials(host)

    async def send_file(self, exporter: str, attributes: Mapping[str, str]) -> FileWriter:
        token, file = self._exports.add()
        self._tokens.append(token)
        told = {"ID": token, "Number": int(exporter or 0), "Attributes": dict(attributes)}
        self._tell({"aux": {"Export": told}})
        return file

    async def send_tree(self, exporter: str, directory: str) -> None:
        """Send it as a tar, which the client unpacks."""
        loop = asyncio.get_running_loop()
        with MergedDirectory.open([directory]) as root:
            pieces = tree_tar(root)
            async with await self.send_file(exporter, {}) as writer:
                while piece := await loop.run_in_executor(None, next, pieces, b""):
                    await writer.write(piece)
