"""Starting a container: bundle, keeper, waiting clients, process; and all of it undone on failure.

The way of every `docker run`, so each step is a few system calls: no thread, no subprocess, one
small transaction.
"""

import asyncio
import functools
import logging
from collections.abc import Callable

from pier.engine import etc_files, foreign_runtimes, health_state
from pier.engine.container import Container, Run
from pier.engine.exits import Exits
from pier.engine.joins import PREFIX, joined_namespaces
from pier.engine.keepers import Keeper, Started, forget_failure
from pier.engine.oci import build_spec
from pier.engine.own_options import is_traced
from pier.engine.removal import Remover
from pier.engine.services import Services
from pier.engine.start_errors import CREATE_FAILURE_TEXT, UNKNOWN_FAILURE, translate_start
from pier.engine.states import RUNNING, Move, move
from pier.errors import Conflict, Internal, NotModified, PierError, StartFailed
from pier.model.gotime import format_ns
from pier.runtime.protocol import Packet

log = logging.getLogger(__name__)

FEW_CLIENTS = 32


class Launcher:
    def __init__(self, services: Services, exits: Exits, remover: Remover) -> None:
        self._services = services
        self._exits = exits
        self._remover = remover
        self._run_started: Callable[[Run], None] = _nobody

    def connect(self, *, run_started: Callable[[Run], None]) -> None:
        """Say, once, who minds runs from their start on: health checks, time limits."""
        self._run_started = run_started

    def found(self, run: Run) -> None:
        """A run of an earlier pierd goes on: whoever minds runs minds it as well."""
        self._run_started(run)

    async def start(self, container: Container) -> None:
        """Start a container for a user. Raises NotModified, Conflict, InvalidParameter, Internal."""
        _check_startable(container)
        async with container.lock:
            _check_startable(container)
            container.backoff.reset()
            container.record.stopped_by_user = False
            container.record.RestartCount = 0
            await self._launch(container)

    def restart_later(self, container: Container, delay_s: float) -> None:
        """Start a container whose policy wants it back, after the delay."""
        loop = asyncio.get_running_loop()

        def restart() -> None:
            self._services.tasks.spawn(
                self._restart(container, timer), name=f"restart of {container.id}"
            )

        timer = loop.call_later(delay_s, restart)
        container.restart_timer = timer

    async def _restart(self, container: Container, timer: asyncio.TimerHandle) -> None:
        async with container.lock:
            if container.restart_timer is not timer:
                return  # a stop came in between, and took it back
            container.restart_timer = None
            try:
                await self._launch(container)
            except PierError as exc:
                log.warning("container %s was not restarted: %s", container.id, exc.message)

    async def _launch(self, container: Container) -> None:
        """Start, with the lock held. On failure nothing is left but code and error in the state."""
        if container.run is not None:
            await container.run.gone
        services = self._services
        services.traces.start(container.id, wanted=is_traced(container.record.HostConfig))
        try:
            await self._services.volume_mounts.hold(container)
            run = self._prepare(container)
            await self._run(container, run)
        except StartFailed as exc:
            code, failure = translate_start(exc, container.record.Config.WorkingDir)
            self._record_failure(container, code, failure.message)
            raise failure from exc
        except PierError as exc:
            self._record_failure(container, UNKNOWN_FAILURE, exc.message)
            raise
        except OSError as exc:
            failure = Internal(CREATE_FAILURE_TEXT.replace("{}", str(exc)))
            self._record_failure(container, UNKNOWN_FAILURE, failure.message)
            raise failure from exc

    def _prepare(self, container: Container) -> Run:
        """Write what the keeper reads."""
        services = self._services
        record = container.record
        directories = services.directories
        mark = functools.partial(services.traces.mark, record.Id)
        mark("network is allocated")
        network = services.networks.endpoints.allocate(container)
        mark("/etc/hosts and the like")
        if not record.HostConfig.NetworkMode.startswith(PREFIX):  # else it shares the other's files
            etc_files.write_all(
                record, directories.data(record.Id), services.networks.surroundings(record)
            )
        mark("config.json is made")
        spec, keeper_config = build_spec(
            record,
            exec_root=services.settings.exec_root,
            data_root=services.settings.data_root,
            filters=services.filters,
            cdi_spec_dirs=services.settings.cdi_spec_dirs,
            settings=services.settings,
            sandbox=joined_namespaces(container, services.store, network),
        )
        if record.HostConfig.Links:
            env = spec["process"]["env"]
            env[:0] = services.networks.link_environment(record)
        if container.unrecorded_env:
            spec["process"]["env"] += container.unrecorded_env
        runtime = None
        if entry := foreign_runtimes.find(record.HostConfig.Runtime, services.settings):
            runtime = foreign_runtimes.adapt(
                *(record, entry, spec, keeper_config),
                settings=services.settings,
                filters=services.filters,
            )
        mark("bundle is written")
        if services.traces.get(record.Id) is not None:
            keeper_config["trace"] = True
        directories.write_bundle(record.Id, spec, keeper_config, runtime)
        return Run(container, cgroup=keeper_config["cgroup"])

    async def _run(self, container: Container, run: Run) -> None:
        """Spawn the keeper and start the process; a failure waits until the keeper is gone."""
        container.run = run
        mark = functools.partial(self._services.traces.mark, container.id)
        mark("a keeper is asked for")
        try:
            run.keeper = await self._services.keepers.spawn(container.id, self._exits.listener(run))
            # Before anything is executed, while the keeper makes itself ready.
            mark("network is attached")
            self._services.networks.endpoints.attach(container)
            mark("clients are handed over")
            attached = await _hand_over_held(container, run.keeper)
            mark("waits for the keeper's start")
            begun = await run.keeper.start()
            for answer in attached:
                # There long since, for they were asked before.
                await answer
        except BaseException:
            await self._abandon(container, run)
            raise
        mark("start is recorded")
        self.record_start(container, run, begun)
        mark("")
        self._services.traces.write(container.id)

    async def _abandon(self, container: Container, run: Run) -> None:
        """Let the keeper of a start that failed end, and wait until nothing is left of it."""
        run.exited = True
        container.run = None
        if run.keeper is None:
            await asyncio.get_running_loop().run_in_executor(
                self._services.executor, self._services.keepers.clean, container.id, run.cgroup
            )
            return
        if not run.gone.done():
            try:
                await run.keeper.bye()
            except (PierError, OSError):
                log.debug("the keeper of %s ended before its farewell", container.id)
        await run.gone

    def record_start(self, container: Container, run: Run, begun: Started) -> None:
        """Record that the process runs, and let what happened to it meanwhile be looked at.

        When is the keeper's word, as when it ended is: pierd may hear of both at once.
        """
        state = container.record.State
        move(state, Move.STARTED)
        state.Pid = begun.pid
        state.StartedAt = format_ns(begun.at)
        state.ExitCode = 0
        state.Error = ""
        state.OOMKilled = False
        health_state.begin(container.record)
        self._exits.save(container)
        self._services.events.container(container.record, "start")
        self._run_started(run)
        self._exits.started(run)

    def _record_failure(self, container: Container, code: int, message: str) -> None:
        state = container.record.State
        gave_up = state.Status == "restarting"
        move(state, Move.GAVE_UP if gave_up else Move.START_FAILED)
        state.ExitCode = code
        state.Error = message
        self._services.networks.endpoints.release(container)
        self._services.volume_mounts.give_up(container)
        container.drop_held()
        if container.record.HostConfig.AutoRemove:
            self._remover.discard(container, volumes=True)
            return
        self._exits.save(container)
        if gave_up:
            # Of a user's start nobody else is told: `docker run` would say the failure twice.
            container.tell_exit()


async def _hand_over_held(container: Container, keeper: Keeper) -> list[asyncio.Future[Packet]]:
    """Give the keeper the clients that attached before the start; return its answers to come."""
    answers: list[asyncio.Future[Packet]] = []
    while container.held:
        client = container.held.pop(0)
        try:
            answer = keeper.attach_nowait(
                client.fd,
                stdin=client.stdin,
                stdout=client.stdout,
                stderr=client.stderr,
                detach_keys=client.detach_keys,
                pending=client.pending,
            )
        finally:
            client.close()
        # A start that fails says why.
        answer.add_done_callback(forget_failure)
        answers.append(answer)
        if len(answers) % FEW_CLIENTS == 0:
            # Before so many fill the channel.
            await answer
    return answers


def _nobody(_run: Run) -> None:
    pass


def _check_startable(container: Container) -> None:
    status = container.record.State.Status
    if status == "paused":
        raise Conflict("cannot start a paused container, try unpause instead")
    if status in RUNNING:
        raise NotModified("Container is already started")
    if container.is_removing or status in ("removing", "dead"):
        raise Conflict("container is marked for removal and cannot be started")
