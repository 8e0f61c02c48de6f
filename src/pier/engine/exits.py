"""What follows when a container's process has ended, or its keeper is gone.

Everything up to telling the waiters happens in one step of the loop, so that nobody sees half an
exit: state, database, events, and for `--rm` the removal. What takes time (the keeper's farewell,
the wait before a restart) follows in tasks.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable

from pier.engine import health_state
from pier.engine.container import Container, Run
from pier.engine.keepers import ExitRecord
from pier.engine.own_options import own_options
from pier.engine.removal import Remover
from pier.engine.restart import restarts_after_exit
from pier.engine.services import Services
from pier.engine.states import Move, move
from pier.errors import PierError
from pier.model.api_containers import WaitResponse
from pier.model.gotime import SECOND, format_ns, now_ns, parse_rfc3339
from pier.runtime.protocol import Packet

log = logging.getLogger(__name__)

KILLED = 137
CLEANING_DELAY_S = 0.002
CLOSE_TIMEOUT_S = 2.0
KEPT_DEPARTED = 64
KEEPER_KILLED = "the keeper of this container was killed"


class Exits:
    def __init__(self, services: Services, remover: Remover) -> None:
        self._services = services
        self._remover = remover
        self._closing = False
        self._ending: set[Run] = set()
        self.departed: dict[str, WaitResponse] = {}
        """How the last that removed themselves ended, by their whole IDs."""

    def connect(
        self,
        *,
        restart_later: Callable[[Container, float], None],
        exec_exited: Callable[[str, int], None],
        run_ended: Callable[[Run], None],
    ) -> None:
        """Say, once, who starts a container again after a delay in seconds, and who minds execs."""
        self._restart_later = restart_later
        self.exec_exited = exec_exited
        self._run_ended = run_ended

    async def close(self) -> None:
        """Wait for the keepers of what has ended, not for ever; from then on hear no more.

        A lost channel means now that pierd ends, not the keeper. What happens meanwhile the next
        pierd finds in the bundles.
        """
        ending = [run.gone for run in self._ending]
        if ending:
            await asyncio.wait(ending, timeout=CLOSE_TIMEOUT_S)
        self._closing = True

    def listener(self, run: Run) -> "RunListener":
        return RunListener(run, self)

    def exited(self, run: Run, exit_record: ExitRecord, error: str = "") -> None:
        """Record the end of a run, and all that follows from it. Only the first call counts."""
        if run.starting:
            run.early_exit = exit_record
            return
        if run.exited or self._closing:
            return
        run.exited = True
        traces = self._services.traces
        traces.mark(run.container.id, "exit is recorded")
        if not run.gone.done():
            self._ending.add(run)
        container = run.container
        record = container.record
        state = record.State
        ran_s = max(0, exit_record.at - parse_rfc3339(state.StartedAt)) / SECOND
        comes_back = self._comes_back(container, exit_record.code)
        move(state, Move.WILL_RESTART if comes_back else Move.EXITED)
        state.ExitCode = exit_record.code
        state.OOMKilled = state.OOMKilled or exit_record.oom
        state.FinishedAt = format_ns(exit_record.at)
        state.Error = error
        health_state.end(record)
        is_discarded = (
            record.HostConfig.AutoRemove
            and not comes_back
            and not container.is_removing
            and not container.is_restarted_by_user
        )
        if comes_back:
            record.RestartCount += 1
        self._services.networks.endpoints.release(container)
        if not comes_back:
            # Before anybody is told: who starts the next one has what is mounted anew.
            self._let_go(run)
        if not is_discarded:
            self.save(container)
        self._services.events.container(
            record, "die", {"exitCode": str(exit_record.code), "execDuration": str(int(ran_s))}
        )
        if not run.ended.done():
            run.ended.set_result(None)
        self._run_ended(run)
        container.tell_exit()
        if comes_back:
            options = own_options(record.HostConfig)
            delay_s = container.backoff.next_delay(
                ran_s, first_s=options.restart_delay_s, longest_s=options.restart_delay_max_s
            )
            self._restart_later(container, delay_s)
        elif is_discarded:
            traces.mark(container.id, "container is removed")
            self._remember(container)
            self._remover.discard(container, volumes=True)
        traces.mark(container.id, "waits for the keeper's end")
        self._services.tasks.spawn(_farewell(run), name=f"farewell to the keeper of {record.Id}")

    def _remember(self, container: Container) -> None:
        """Keep how it ended: clients that start it and then ask come late when it was quick."""
        self.departed[container.id] = container.exit_response()
        while len(self.departed) > KEPT_DEPARTED:
            del self.departed[next(iter(self.departed))]

    def started(self, run: Run) -> None:
        """The start is recorded: what happened meanwhile may now be looked at."""
        run.starting = False
        if run.early_exit is not None:
            self.exited(run, run.early_exit)
        elif run.gone.done():
            self.exited(run, ExitRecord(KILLED, oom=False, at=now_ns()), KEEPER_KILLED)

    def gone(self, run: Run) -> None:
        """The keeper ended. Without an exit told it was killed: its container is ended as well."""
        if self._closing:
            if not run.gone.done():
                run.gone.set_result(None)
            return
        if run.exited or run.early_exit is not None:
            # Those who wait for the exit come first: they are about to be answered.
            asyncio.get_running_loop().call_later(CLEANING_DELAY_S, self._clean, run)
            return
        found = self._services.keepers.exit_record(run.container.id)
        self._clean(run, lambda: self._lost(run, found))

    def _lost(self, run: Run, found: ExitRecord | None) -> None:
        """The end of a run whose keeper was killed, perhaps after it had written its last word."""
        if found is not None:
            self.exited(run, found)
        elif not run.starting:
            self.exited(run, ExitRecord(KILLED, oom=False, at=now_ns()), KEEPER_KILLED)

    def _clean(self, run: Run, then: Callable[[], None] | None = None) -> None:
        """Take away what a run had outside its data directory; a new run may begin.

        At once when the keeper has left no cgroup; else a thread waits for its processes.
        """
        self._services.traces.mark(run.container.id, "bundle is removed")
        if self._services.keepers.clean_nowait(run.container.id, run.cgroup):
            self._cleaned(run, then)
            return
        name = f"cleaning after {run.container.id}"
        self._services.tasks.spawn(self._clean_in_thread(run, then), name=name)

    async def _clean_in_thread(self, run: Run, then: Callable[[], None] | None) -> None:
        services = self._services
        try:
            await asyncio.get_running_loop().run_in_executor(
                services.executor, services.keepers.clean, run.container.id, run.cgroup
            )
        except OSError:
            log.exception("what container %s left was not cleaned away", run.container.id)
        self._cleaned(run, then)

    def _cleaned(self, run: Run, then: Callable[[], None] | None) -> None:
        self._ending.discard(run)
        self._services.traces.end(run.container.id)
        self._let_go(run)
        if not run.gone.done():
            run.gone.set_result(None)
        if then is not None:
            then()

    def _let_go(self, run: Run) -> None:
        """Unmount what only this run had of volumes, once, and tell it."""
        if run.has_volumes:
            run.has_volumes = False
            self._services.volume_mounts.let_go(run.container)

    def traced(self, run: Run, packet: Packet) -> None:
        """The keeper said where the time of the start went."""
        self._services.traces.take(run.container.id, packet)

    def out_of_memory(self, run: Run) -> None:
        run.container.record.State.OOMKilled = True
        self.tell(run, "oom", {})

    def tell(self, run: Run, action: str, more: dict[str, str]) -> None:
        self._services.events.container(run.container.record, action, more)

    def save(self, container: Container) -> None:
        """Write the record; a full disk must not stop the world that the record is about."""
        try:
            self._services.store.save(container)
        except sqlite3.Error:
            log.exception("the state of container %s was not written", container.id)

    def _comes_back(self, container: Container, code: int) -> bool:
        record = container.record
        return (
            not container.is_removing
            and not container.is_restarted_by_user
            and restarts_after_exit(
                record.HostConfig.RestartPolicy,
                code=code,
                restart_count=record.RestartCount,
                stopped_by_user=record.stopped_by_user,
            )
        )


class RunListener:
    """A keeper's events (`keepers.KeeperEvents`), led to where they are handled."""

    def __init__(self, run: Run, exits: Exits) -> None:
        self._run = run
        self._exits = exits

    def exited(self, record: ExitRecord) -> None:
        self._exits.exited(self._run, record)

    def exec_exited(self, exec_id: str, code: int) -> None:
        self._exits.exec_exited(exec_id, code)

    def oom(self) -> None:
        self._exits.out_of_memory(self._run)

    def detached(self, exec_id: str | None) -> None:
        more = {"execID": exec_id} if exec_id else {}
        self._exits.tell(self._run, "exec_detach" if exec_id else "detach", more)

    def traced(self, packet: Packet) -> None:
        self._exits.traced(self._run, packet)

    def gone(self) -> None:
        self._exits.gone(self._run)


async def _farewell(run: Run) -> None:
    """Let the keeper end. It may have done so already."""
    if run.keeper is not None:
        with contextlib.suppress(PierError, OSError):
            await run.keeper.bye()
