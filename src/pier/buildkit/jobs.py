"""The builds that are going on, by the references that clients give them, and their histories."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

from pier.build.export.exporter import Receiver
from pier.build.result import BuildResult
from pier.buildkit.board import Board
from pier.buildkit.messages import control, gateway
from pier.errors import NotFound

T = TypeVar("T")

# A client asks for a build's status before, or a moment after, it asks for the build itself.
WAIT_S = 5.0


class Solve(Protocol):
    """What a frontend, or the client itself, has asked to be solved: one reference's content."""

    def start(self) -> None: ...

    async def evaluate(self) -> object:
        """Wait until there is a result. Raises GrpcError."""
        ...

    async def result(self, config: bytes = b"") -> BuildResult:
        """Return it as an image; `config` is the configuration that a frontend gave, in JSON, for
        one that has none of its own. Raises GrpcError.
        """
        ...

    async def look(self, work: Callable[[int], T]) -> T:
        """Return what `work` makes of the root directory of the result, in a thread."""
        ...

    async def close(self) -> None: ...


class Job:
    """One Control.Solve. `returned` is what the client's own frontend came to.

    `provenance` are predicates by their types, as the history has them. `client` is who passwords
    are asked of and outputs go to, None for the session that the request names.
    """

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self.board = Board()
        self.created_at = time.time_ns()
        self.returned: asyncio.Future[gateway.Result] = asyncio.get_running_loop().create_future()
        self.solves: dict[str, Solve] = {}
        self.request = control.SolveRequest()
        self.client: Receiver | None = None
        self.provenance: list[tuple[str, bytes]] = []

    def solve_of(self, ref: str) -> Solve:
        """Raises NotFound."""
        if ref not in self.solves:
            raise NotFound(f"no such ref: {ref}")
        return self.solves[ref]

    async def close(self) -> None:
        self.board.close()
        if not self.returned.done():
            self.returned.cancel()
        elif not self.returned.cancelled():
            self.returned.exception()  # looked at
        for solve in self.solves.values():
            await solve.close()


class Jobs:
    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, asyncio.Future[Job]] = {}

    @contextlib.asynccontextmanager
    async def running(self, ref: str) -> AsyncIterator[Job]:
        """Have a job for the time of a block; leaving it ends whatever it is doing."""
        if ref in self._jobs:
            raise NotFound(f"job ID {ref} exists")
        job = self._jobs[ref] = Job(ref)
        waiter = self._waiting.pop(ref, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(job)
        try:
            yield job
        finally:
            del self._jobs[ref]
            closing = asyncio.ensure_future(job.close())
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                await closing
                raise

    def get(self, ref: str) -> Job | None:
        return self._jobs.get(ref)

    async def wait(self, ref: str) -> Job:
        """Return a job that is there or comes soon. Raises NotFound."""
        if (job := self._jobs.get(ref)) is not None:
            return job
        if ref not in self._waiting:
            self._waiting[ref] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(self._waiting[ref])
        except TimeoutError:
            self._waiting.pop(ref, None)
            raise NotFound(f"no such job {ref}") from None
