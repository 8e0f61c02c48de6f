"""Contexts that one request brings for the build of another: who comes first waits a little."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pier.build.failures import BuildFailed
from pier.errors import Conflict

WAIT_S = 5.0

Body = AsyncIterator[bytes]


class _Meeting:
    """`body` is there when it was brought, `wanted` when the build is, `over` when it was read."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.body: asyncio.Future[Body] = loop.create_future()
        self.wanted = asyncio.Event()
        self.over = asyncio.Event()


class Uploads:
    """For pierd's loop."""

    def __init__(self) -> None:
        self._meetings: dict[str, _Meeting] = {}

    async def bring(self, build_id: str, body: Body) -> None:
        """Offer a body; return when the build has read it. Raises BuildFailed where there is none."""
        meeting = self._meetings.setdefault(build_id, _Meeting())
        if meeting.body.done():
            raise Conflict(f"build {build_id} has a context already")
        meeting.body.set_result(body)
        try:
            async with _in_time():
                await meeting.wanted.wait()
            await meeting.over.wait()
        finally:
            self._forget(build_id, meeting)

    @contextlib.asynccontextmanager
    async def taken(self, build_id: str) -> AsyncIterator[Body]:
        """Have the body for the time of a block. Raises BuildFailed where nobody brings one."""
        meeting = self._meetings.setdefault(build_id, _Meeting())
        meeting.wanted.set()
        try:
            async with _in_time():
                body = await asyncio.shield(meeting.body)
            yield _told(body, meeting.over)
        finally:
            meeting.over.set()
            self._forget(build_id, meeting)

    def _forget(self, build_id: str, meeting: _Meeting) -> None:
        if self._meetings.get(build_id) is meeting:
            del self._meetings[build_id]


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WAIT_S):
            yield
    except TimeoutError:
        raise BuildFailed("context deadline exceeded") from None


async def _told(body: Body, over: asyncio.Event) -> Body:
    async for piece in body:
        yield piece
    over.set()
