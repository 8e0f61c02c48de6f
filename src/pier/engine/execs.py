"""Execs: further processes in running containers.

    created ──start──▶ starting ──▶ running ──▶ ended
                          └─failed──────────────▶ ended (126 or 127)

An exec lives in memory only. One that ended is kept for a while, so that a client can ask for its
exit code; one that was not started goes with its container's run.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from pier.engine.capture import Capture
from pier.engine.container import Container, Run
from pier.engine.exec_user import check_user
from pier.engine.keepers import KnownExec
from pier.engine.oci import build_exec
from pier.engine.services import Services
from pier.engine.start_errors import EXEC_FAILURE_TEXT, NOT_INVOKED, translate_exec
from pier.errors import Conflict, Internal, InvalidParameter, NotFound, PierError, StartFailed
from pier.model.api_execs import ExecCreateRequest, ExecInspect, IdResponse, ProcessConfig
from pier.model.detach_keys import parse_detach_keys

KEPT_AFTER_END_S = 300.0
KEPT_ENDED = 10_000
KEPT_UNKNOWN = 100
START_TIMEOUT_S = 10.0
KILLED = 137

ExecStatus = Literal["created", "starting", "running", "ended"]


@dataclass(slots=True, eq=False)
class Exec:
    """One exec and how far it is. `early_exit` came before the answer to its start."""

    id: str
    container: Container
    run: Run
    request: ExecCreateRequest
    detach_keys: bytes
    status: ExecStatus = "created"
    pid: int = 0
    code: int | None = None
    early_exit: int | None = None
    failure: str = ""
    """Why it did not start, in dockerd's words."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the start has succeeded or failed."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has ended, or failed to start."""

    @property
    def command(self) -> str:
        return " ".join(self.request.Cmd)


class Execs:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._execs: dict[str, Exec] = {}

        self._unknown: dict[str, int] = {}
        """Exit codes of execs that nobody knows here."""
        self._ended: deque[tuple[float, str]] = deque()
        """When each ended (monotonic seconds), oldest first."""

    def create(self, ref: str, request: ExecCreateRequest) -> IdResponse:
        """Make an exec in a running container. Raises NotFound, Conflict, InvalidParameter."""
        container = self._services.store.get(ref)
        _check_running(container, ref)
        if not request.Cmd:
            raise InvalidParameter("No exec command specified")
        assert container.run is not None
        if request.User:
            check_user(request.User, container.record.State.Pid)
        made = Exec(
            id=os.urandom(32).hex(),
            container=container,
            run=container.run,
            request=request,
            detach_keys=_detach_keys(request.DetachKeys),
        )
        self._execs[made.id] = made
        container.execs.add(made.id)
        self._tell(made, f"exec_create: {made.command}")
        return IdResponse(Id=made.id)

    def prepare_start(
        self, exec_id: str, *, tty: bool, detach: bool, console_size: tuple[int, int] | None
    ) -> "ExecStart":
        """Check that an exec can be started now. Raises NotFound, Conflict.

        The terminal was decided at its creation, as with dockerd, and `tty` says only whether the
        client reads a raw stream or frames; `console_size` is the terminal's first size.
        """
        found = self._get_alive(exec_id)
        if found.status == "ended":
            raise Conflict(f"exec command {found.id} has already run")
        if found.status != "created":
            raise Conflict(f"exec command {found.id} is already running")
        if console_size is not None:
            found.request = replace(found.request, ConsoleSize=console_size)
        return ExecStart(self, found, tty)

    async def inspect(self, exec_id: str) -> ExecInspect:
        """Describe an exec. Raises NotFound.

        Of one that runs the keeper is asked first: a client that saw its output end then sees its
        exit code, since every event from before the answer was delivered by then.
        """
        found = self._get(exec_id)
        if found.container.is_removed:
            raise NotFound(f"No such exec instance: {exec_id}")
        if found.status in ("starting", "running") and found.run.keeper is not None:
            with contextlib.suppress(PierError):
                await found.run.keeper.state()
        request = found.request
        return ExecInspect(
            ID=found.id,
            Running=found.status in ("starting", "running"),
            ExitCode=found.code,
            ProcessConfig=ProcessConfig(
                tty=request.Tty,
                entrypoint=request.Cmd[0],
                arguments=request.Cmd[1:],
                privileged=request.Privileged,
                user=request.User or UNSET,
            ),
            OpenStdin=request.AttachStdin,
            OpenStderr=request.AttachStderr,
            OpenStdout=request.AttachStdout,
            CanRemove=False,
            ContainerID=found.container.id,
            DetachKeys=found.detach_keys if request.DetachKeys else b"",
            Pid=found.pid,
        )

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Set the size of an exec's terminal, once it has started. Raises NotFound, also when it
        has ended, Conflict when the container is over, InvalidParameter when it did not start, Internal
        when it does not within 10 s.
        """
        found = self._get_alive(exec_id)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await found.settled.wait()
        except TimeoutError:
            raise Internal("timeout waiting for exec session ready") from None
        if found.status == "ended" and found.pid:
            raise NotFound(f"NotFound: process does not exist {exec_id}: not found")
        if found.status != "running" or found.run.keeper is None:
            raise InvalidParameter("exec process is not started")
        await found.run.keeper.resize(height, width, exec_id)

    def exited(self, exec_id: str, code: int) -> None:
        """A keeper tells that an exec's process ended."""
        found = self._execs.get(exec_id)
        if found is None:
            # Its keeper was found a moment ago, and is about to be asked for its execs.
            self._unknown[exec_id] = code
            while len(self._unknown) > KEPT_UNKNOWN:
                self._unknown.pop(next(iter(self._unknown)))
            return
        if found.status == "ended":
            return
        if found.status == "starting":
            found.early_exit = code
        else:
            self._end(found, code)

    def adopt(self, run: Run, known: Mapping[str, KnownExec]) -> None:
        """Take up the execs of an earlier pierd: those that run, and those that ended meanwhile."""
        for exec_id, entry in known.items():
            if exec_id in self._execs:
                continue
            request = msgspec.convert(entry.about, ExecCreateRequest)
            if not request.Cmd:
                continue
            made = Exec(
                id=exec_id,
                container=run.container,
                run=run,
                request=request,
                detach_keys=_detach_keys(request.DetachKeys),
                status="running",
                pid=entry.pid,
            )
            made.settled.set()
            self._execs[exec_id] = made
            run.container.execs.add(exec_id)
            code = self._unknown.pop(exec_id, entry.code)
            if code is not None:
                self._end(made, code)

    def run_ended(self, run: Run) -> None:
        """The container's run is over: what still runs was killed, what did not start is dropped."""
        for exec_id in list(run.container.execs):
            found = self._execs[exec_id]
            if found.run is not run:
                continue
            if found.status == "created":
                del self._execs[exec_id]
                run.container.execs.discard(exec_id)
            elif found.status == "running":
                self._end(found, KILLED)

    async def start(
        self, made: Exec, *, client_fd: int | None, pending: bytes, frames: bool = True
    ) -> None:
        """Start an exec that `prepare_start` let through, for a client or for none.

        Raises InvalidParameter or Internal when it cannot be started, in dockerd's words; a client
        whose socket was handed over reads them there instead.
        """
        services, request = self._services, made.request
        if made.status != "created":
            raise Conflict(f"exec command {made.id} is already running")
        _check_running(made.container, made.container.id)
        made.status = "starting"
        made.container.starting_execs.add(made.settled)
        try:
            config = build_exec(
                made.container.record,
                request,
                filters=services.filters,
                settings=services.settings,
            )
            if made.container.record.HostConfig.Links:
                # One that does not run any more has no address: no reason to keep people out.
                with contextlib.suppress(Conflict):
                    links = services.networks.link_environment(made.container.record)
                    config["process"]["env"][:0] = links
            self._tell(made, f"exec_start: {made.command}")
            with made.container.ending():
                made.pid = await made.container.keeper.exec(
                    made.id,
                    config,
                    client_fd=client_fd,
                    stdout=request.AttachStdout and client_fd is not None,
                    # Without frames there is one stream.
                    stderr=request.AttachStderr and frames and client_fd is not None,
                    frames=frames,
                    detach_keys=made.detach_keys,
                    pending=pending,
                    failure_text=EXEC_FAILURE_TEXT,
                    about=_about(request),
                )
        except StartFailed as exc:
            code, failure = translate_exec(exc)
            made.failure = failure.message
            self._forget_later(made, code)
            if client_fd is not None:
                return  # the keeper has written it to the client
            raise failure from exc
        except BaseException:
            self._forget_later(made, NOT_INVOKED)
            raise
        finally:
            made.container.starting_execs.discard(made.settled)
        made.status = "running"
        made.settled.set()
        if made.early_exit is not None:
            self._end(made, made.early_exit)
        elif made.run.exited:
            self._end(made, KILLED)

    async def probe(
        self, container: Container, command: list[str], timeout_s: float
    ) -> tuple[int, bytes]:
        """Run a health check's command; return its exit code and the first of its output.

        Raises TimeoutError with the output so far when it was killed for taking too long, Internal
        or InvalidParameter when it did not start. Nothing remembers it afterwards.
        """
        request = ExecCreateRequest(AttachStdout=True, AttachStderr=True, Cmd=command)
        made = self._execs[self.create(container.id, request).Id]
        try:
            with Capture() as capture:
                try:
                    async with asyncio.timeout(timeout_s):
                        await self.start(made, client_fd=capture.client_fd, pending=b"")
                        await capture.read(made.over)
                except TimeoutError:
                    raise TimeoutError(capture.output) from None
                finally:
                    capture.close_client()
                    await self._kill(made)
        finally:
            self._execs.pop(made.id, None)
        if made.failure:
            raise Internal(made.failure)
        assert made.code is not None
        return made.code, capture.output

    async def _kill(self, made: Exec) -> None:
        """End what a probe left running, with all that it started."""
        keeper = made.run.keeper
        if made.status == "running" and keeper is not None:
            with contextlib.suppress(PierError):
                await keeper.kill_exec(made.id)
                await made.over.wait()

    def _end(self, made: Exec, code: int) -> None:
        self._forget_later(made, code)
        self._tell(made, "exec_die", exitCode=str(code))

    def _forget_later(self, made: Exec, code: int) -> None:
        """Record the end; keep it for a while for those who ask, and drop those kept too long."""
        made.status, made.code = "ended", code
        made.settled.set()
        made.over.set()
        made.container.execs.discard(made.id)
        now = time.monotonic()
        self._ended.append((now, made.id))
        while self._ended and (
            self._ended[0][0] < now - KEPT_AFTER_END_S or len(self._ended) > KEPT_ENDED
        ):
            self._execs.pop(self._ended.popleft()[1], None)

    def _get(self, exec_id: str) -> Exec:
        """Find an exec by its ID or a unique prefix of it. Raises NotFound."""
        found = self._execs.get(exec_id)
        if found is None and exec_id:
            matching = [known for known in self._execs if known.startswith(exec_id)]
            found = self._execs[matching[0]] if len(matching) == 1 else None
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def _get_alive(self, exec_id: str) -> Exec:
        """Find an exec whose container runs. Raises NotFound, Conflict."""
        found = self._get(exec_id)
        if found.container.is_removed:
            raise NotFound(f"No such container: {exec_id}")
        _check_running(found.container, found.container.id)
        return found

    def _tell(self, made: Exec, action: str, **more: str) -> None:
        self._services.events.container(made.container.record, action, {"execID": made.id, **more})


@dataclass(frozen=True, slots=True)
class ExecStart:
    """A start that was found allowed, before anything was answered."""

    execs: Execs
    made: Exec
    tty: bool

    async def detached(self) -> None:
        """Start without a client. Raises InvalidParameter, Internal, Conflict."""
        await self.execs.start(self.made, client_fd=None, pending=b"")

    async def hand_over(self, fd: int, pending: bytes) -> None:
        """Start for a client: its socket goes to the keeper, the caller still closes its `fd`.

        Raises Conflict, Unavailable; what is wrong with the command the client reads there.
        """
        await self.execs.start(self.made, client_fd=fd, pending=pending, frames=not self.tty)


def _about(request: ExecCreateRequest) -> dict[str, Any]:
    """What inspect shows of an exec; not its environment, which may hold secrets."""
    about: dict[str, Any] = msgspec.to_builtins(request)
    del about["Env"], about["ConsoleSize"]
    return about


def _detach_keys(text: str) -> bytes:
    try:
        return parse_detach_keys(text)
    except InvalidParameter as exc:
        raise InvalidParameter(f"Invalid escape keys ({text}) provided") from exc


def _check_running(container: Container, ref: str) -> None:
    status = container.record.State.Status
    if status == "paused" or container.is_pausing:
        raise Conflict(f"Container {ref} is paused, unpause the container before exec")
    if status == "restarting":
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if status != "running":
        raise Conflict(f"container {container.id} is not running")
