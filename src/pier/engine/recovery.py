"""After a start of pierd: what the last one left is found, ended, or cleared away.

The database says which containers there should be, keepers say which live. Whatever neither knows
is refuse of a pierd that was killed in the middle of something.
"""

import asyncio
import contextlib
import logging

from pier.engine.container import Container, Run
from pier.engine.execs import Execs
from pier.engine.exits import KEEPER_KILLED, KILLED, Exits
from pier.engine.keepers import ExitRecord, Started
from pier.engine.launch import Launcher
from pier.engine.oci import cgroup_path
from pier.engine.restart import starts_with_engine
from pier.engine.services import Services
from pier.engine.states import RUNNING, Move, move
from pier.errors import PierError
from pier.model.gotime import now_ns

log = logging.getLogger(__name__)


class Recovery:
    def __init__(self, services: Services, exits: Exits, launcher: Launcher, execs: Execs) -> None:
        self._services = services
        self._exits = exits
        self._launcher = launcher
        self._execs = execs

    async def run(self) -> None:
        """Make memory, database, directories and keepers agree; then apply restart policies."""
        ran = {container.id for container in self._services.store if _is_running(container)}
        await self._clear_unknown()
        self._services.writable.recover()
        for container in self._services.store:
            await self._recover(container)
        self._services.volume_mounts.recover(ran)
        for container in self._services.store:
            self._start_by_policy(container, ran=container.id in ran)

    async def _clear_unknown(self) -> None:
        """Containers that the database does not know were removed, or never fully made."""
        services = self._services
        for container_id in services.directories.bundle_ids():
            if container_id not in services.store:
                await self._clean(container_id, self._cgroup(container_id, ""))
        for container_id in services.directories.data_ids():
            if container_id not in services.store:
                services.directories.discard(container_id)

    async def _recover(self, container: Container) -> None:
        """Take up a container's run again, or end it honestly."""
        services = self._services
        status = container.record.State.Status
        cgroup = self._cgroup(container.id, container.record.HostConfig.CgroupParent)
        if status == "removing":
            move(container.record.State, Move.REMOVE_FAILED)
            self._exits.save(container)
        if status == "restarting":
            # The delay it was in is over; its policy is asked below, as if it had just ended.
            move(container.record.State, Move.GAVE_UP)
            self._exits.save(container)
        if status not in ("running", "paused"):
            await self._adopt(container, cgroup)
            return
        run = Run(container, cgroup=cgroup, starting=False)
        container.run = run
        run.keeper = await services.keepers.reconnect(container.id, self._exits.listener(run))
        if run.keeper is None:
            found = services.keepers.exit_record(container.id)
            await self._clean(container.id, cgroup)
            self._end(container, run, found)
            return
        with contextlib.suppress(PierError):
            # Also a barrier: an exit from before is handled when this is answered.
            await self._agree(container, run)

    async def _adopt(self, container: Container, cgroup: str) -> None:
        """Take up a run that was never recorded: its pierd was killed between start and record."""
        keepers = self._services.keepers
        run = Run(container, cgroup=cgroup)
        run.keeper = await keepers.reconnect(container.id, self._exits.listener(run))
        found = None
        if run.keeper is not None:
            with contextlib.suppress(PierError):
                found = await run.keeper.state()
        if found is None or found.status not in ("running", "paused"):
            run.exited = True
            if run.keeper is not None:
                await run.keeper.bye()
            await self._clean(container.id, cgroup)
            return
        container.run = run
        self._launcher.record_start(container, run, Started(found.pid, found.at or now_ns()))
        await self._agree(container, run)

    async def _agree(self, container: Container, run: Run) -> None:
        """Ask a keeper that was found how its container is, and record that."""
        assert run.keeper is not None
        found = await run.keeper.state()
        state = container.record.State
        if found.status in ("running", "paused"):
            self._execs.adopt(run, found.execs)
        if run.exited:
            return
        if found.status == "stopped":
            # It ended while nobody listened, and its keeper waits for someone who wants to know.
            record = self._services.keepers.exit_record(container.id)
            if record is not None:
                self._exits.exited(run, record)
            return
        paused = found.status == "paused"
        if paused != state.Paused:
            move(state, Move.PAUSED if paused else Move.RESUMED)
            self._exits.save(container)
        self._launcher.found(run)

    def _end(self, container: Container, run: Run, found: ExitRecord | None) -> None:
        """End a run whose keeper is gone; without its last word it was killed."""
        run.gone.set_result(None)
        if found is None:
            self._exits.exited(run, ExitRecord(KILLED, oom=False, at=now_ns()), KEEPER_KILLED)
        else:
            self._exits.exited(run, found)

    async def _clean(self, container_id: str, cgroup: str) -> None:
        services = self._services
        if not services.keepers.clean_nowait(container_id, cgroup):
            await asyncio.get_running_loop().run_in_executor(
                services.executor, services.keepers.clean, container_id, cgroup
            )

    def _start_by_policy(self, container: Container, *, ran: bool) -> None:
        record = container.record
        if record.State.Status != "exited" or container.is_removed:
            return
        if starts_with_engine(
            record.HostConfig.RestartPolicy,
            code=record.State.ExitCode,
            restart_count=record.RestartCount,
            stopped_by_user=record.stopped_by_user,
            ran=ran,
        ):
            self._services.tasks.spawn(
                self._start(container), name=f"start of {container.id} by its restart policy"
            )

    async def _start(self, container: Container) -> None:
        try:
            await self._launcher.start(container)
        except PierError as exc:
            log.warning("container %s was not started: %s", container.id, exc.message)

    def _cgroup(self, container_id: str, parent: str) -> str:
        """The cgroup of a container that may be half gone: as its bundle says, or as by rule."""
        named = self._services.directories.read_cgroup(container_id)
        return named or cgroup_path(parent or self._services.settings.cgroup_parent, container_id)


def _is_running(container: Container) -> bool:
    return container.record.State.Status in RUNNING
