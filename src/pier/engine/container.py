"""A container as the engine holds it in memory: its record, and what lives only while pierd does.

Plain data and the bookkeeping of those who wait. Moves between states are decided in `states` and
made in `launch`, `exits`, `stopping` and `removal`; all run in the event loop's one thread, so a
step without an `await` in it is atomic. A `Run` is one life of the container: one keeper.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET

from pier.engine.keepers import ExitRecord, Keeper
from pier.engine.restart import Backoff
from pier.engine.stats_sample import Sample
from pier.errors import Conflict, Unavailable
from pier.model.api_containers import WaitError, WaitResponse
from pier.model.container import ContainerRecord
from pier.model.gotime import parse_rfc3339

EXECS_START_S = 2.0


@dataclass(slots=True)
class HeldClient:
    """A client that attached before the start. `fd` is ours, and closed once it was handed over."""

    fd: int
    stdin: bool
    stdout: bool
    stderr: bool
    detach_keys: bytes
    pending: bytes

    def close(self) -> None:
        os.close(self.fd)


@dataclass(slots=True, eq=False)
class Run:
    """One life: from the spawning of a keeper until that keeper is gone and cleaned away.

    `early_exit` keeps an exit that was told before the start was finished (`true` ends sooner than
    the answer to its start is looked at).
    """

    container: "Container"
    cgroup: str
    keeper: Keeper | None = None
    starting: bool = True
    exited: bool = False
    early_exit: ExitRecord | None = None
    has_volumes: bool = True
    """Not yet told that what it had mounted is given up."""
    sample: Sample | None = None
    """The last that was read of what it uses."""
    health: "asyncio.Task[None] | None" = None
    """Probes its health, while it is neither paused nor over."""
    limits: "asyncio.Task[None] | None" = None
    """Ends it when its time is up, or when nothing happens in it."""
    gone: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ended: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Done when the exit was recorded: followers of the log end."""


class Container:
    """Owns its held clients' descriptors until they are handed over or dropped."""

    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.created_ns = parse_rfc3339(record.Created)
        """When it was made, which never changes; lists sort by it."""
        self.lock = asyncio.Lock()
        """Held by whoever changes the container over several steps: start, pause, resume, remove."""
        self.run: Run | None = None
        self.held: list[HeldClient] = []
        self.execs: set[str] = set()
        self.starting_execs: set[asyncio.Event] = set()
        """What is set as each of those has started, or failed."""
        self.is_pausing = False
        """It is about to be frozen; no further exec begins."""
        self.backoff = Backoff()
        self.restart_timer: asyncio.TimerHandle | None = None
        self.is_removing = False
        self.is_removed = False
        self.is_restarted_by_user = False
        """A `docker restart` is under way: its stop neither removes nor restarts by policy."""
        self.unrecorded_env: Sequence[str] = ()
        """Variables of its process that no record may have: secrets of a build's step."""
        self._exit_waiters: set[asyncio.Future[WaitResponse]] = set()
        self._removal_waiters: set[asyncio.Future[WaitResponse]] = set()

    @property
    def id(self) -> str:
        return self.record.Id

    @property
    def name(self) -> str:
        return self.record.Name

    @property
    def keeper(self) -> Keeper:
        """The keeper of a container with processes; Conflict when there are none."""
        if self.run is None or self.run.keeper is None or self.run.exited:
            raise Conflict(f"container {self.id} is not running")
        return self.run.keeper

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Turn a keeper that went meanwhile into what that means: Conflict, it is not running."""
        try:
            yield
        except Unavailable as exc:
            raise Conflict(f"container {self.id} is not running") from exc

    @contextlib.asynccontextmanager
    async def pausing(self) -> AsyncIterator[None]:
        """Let no exec begin and those on their way start, or fail, first: one that is frozen before
        it runs answers its client when somebody thaws it. Waits two seconds at most.
        """
        self.is_pausing = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXECS_START_S):
                    for started in tuple(self.starting_execs):
                        await started.wait()
            yield
        finally:
            self.is_pausing = False

    def wait_exit(self) -> "asyncio.Future[WaitResponse]":
        """A future for the next exit, or the removal."""
        return _waiter(self._exit_waiters)

    def wait_removed(self) -> "asyncio.Future[WaitResponse]":
        return _waiter(self._removal_waiters)

    def exit_response(self) -> WaitResponse:
        """What those who wait are told."""
        state = self.record.State
        error = WaitError(Message=state.Error) if state.Error else UNSET
        return WaitResponse(StatusCode=state.ExitCode, Error=error)

    def tell_exit(self) -> None:
        _tell(self._exit_waiters, self.exit_response())

    def tell_removed(self) -> None:
        """Tell all who wait; removed is removed, whatever went wrong before."""
        response = WaitResponse(StatusCode=self.record.State.ExitCode)
        _tell(self._exit_waiters, response)
        _tell(self._removal_waiters, response)

    def drop_held(self) -> None:
        """Close the clients that wait for a start which failed or will not come."""
        while self.held:
            self.held.pop().close()

    def cancel_restart(self) -> None:
        if self.restart_timer is not None:
            self.restart_timer.cancel()
            self.restart_timer = None


def _waiter(waiters: "set[asyncio.Future[WaitResponse]]") -> "asyncio.Future[WaitResponse]":
    future: asyncio.Future[WaitResponse] = asyncio.get_running_loop().create_future()
    waiters.add(future)
    future.add_done_callback(waiters.discard)
    return future


def _tell(waiters: "set[asyncio.Future[WaitResponse]]", response: WaitResponse) -> None:
    for future in list(waiters):
        if not future.done():
            future.set_result(response)
    waiters.clear()
