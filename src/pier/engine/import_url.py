"""`docker import URL`: the engine fetches the archive itself, and tells how far it came."""

from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, cast

import aiohttp
import msgspec

from pier.engine.body_reader import BodyReader
from pier.engine.progress import Tell
from pier.engine.registries import Registries
from pier.registry.errors import Unreachable
from pier.registry.progress import Progress

Import = Callable[[Callable[[Tell], BinaryIO]], AsyncIterator[bytes]]


async def import_url(registries: Registries, url: str, run: Import) -> AsyncIterator[bytes]:
    """Yield the lines of an import: where it comes from, how far it is, and what `run` tells.

    `run(open)` imports what `open(tell)` opens. Closing this ends the download, and so the import.
    Raises PierError, before the first line when the server does not give the file.
    """
    async with registries.fetch(url) as response:
        content = _Counted(response, url)
        yield msgspec.json.encode({"status": f"Downloading from {url}"}) + b"\r\n"

        def opened(tell: Tell) -> BinaryIO:
            content.progress = Progress(tell)
            return cast("BinaryIO", content)

        try:
            async for line in run(opened):
                yield line
        finally:
            content.close()


class _Counted(BodyReader):
    """An answer's body that tells how much of it was read."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        super().__init__(response.content)
        self._url = url
        self._total = response.content_length or -1
        self._done = 0
        self.progress: Progress | None = None

    def read(self, size: int = -1) -> bytes:
        """As BodyReader's. Raises Unreachable when the server broke off."""
        try:
            data = super().read(size)
        except (aiohttp.ClientError, OSError) as exc:
            raise Unreachable(f'Get "{self._url}": unexpected EOF') from exc
        self._done += len(data)
        if self.progress is not None and data:
            self.progress.bar("", "Importing", self._done, self._total)
        return data
