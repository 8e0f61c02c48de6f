"""RUN --mount=type=secret and ssh: what the client has, lent to one step and to nothing else.

A secret is a file, or a variable, that exists while the step runs: the file in a directory below the
exec-root (a tmpfs where that is in /run) which only root can enter, the variable in the process and
in no record. An agent is a socket whose every connection is one more to the client's own agent.
Neither is part of a step's key, its layer or its history.
"""

import asyncio
import contextlib
import os
import posixpath
import shutil
import socket
import tempfile
from collections.abc import Sequence

from msgspec import Struct

from pier.build.failures import BuildFailed
from pier.build.mounts import StepMount
from pier.build.session import ClientSession, need
from pier.errors import PierError
from pier.model.container import Mount

_CHUNK = 64 << 10
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Lent(Struct):
    """`mounts` are as in `HostConfig`; `environment` is for the process and for no record."""

    mounts: list[Mount]
    environment: list[str]


async def lend(
    stack: contextlib.AsyncExitStack,
    mounts: Sequence[StepMount],
    session: ClientSession | None,
    place: str,
    directory: str,
) -> Lent:
    """Get secrets and agents of the client; `stack` takes them away again. Raises PierError, OSError.

    `place` is where secrets may be on a disk, `directory` the step's working directory.
    """
    lent = Lent([], [])
    agents = 0
    for mount in mounts:
        if mount.kind == "secret":
            await _secret(stack, lent, mount, session, place, directory)
        elif mount.kind == "ssh":
            target = mount.target or f"/run/buildkit/ssh_agent.{agents}"
            if await _agent(stack, lent, mount, session, place, _inside(directory, target)):
                if not agents:
                    lent.environment.append(f"SSH_AUTH_SOCK={_inside(directory, target)}")
                agents += 1
    return lent


def clear(place: str) -> None:
    """Remove what a pierd that was killed has left. Blocking."""
    shutil.rmtree(place, ignore_errors=True)


async def _secret(
    stack: contextlib.AsyncExitStack,
    lent: Lent,
    mount: StepMount,
    session: ClientSession | None,
    place: str,
    directory: str,
) -> None:
    data = await need(session, f"secret {mount.id}").secret(mount.id)
    if data is None:
        if mount.required:
            raise BuildFailed(f"secret {mount.id}: not found")
        return
    if mount.env:
        lent.environment.append(f"{mount.env}={data.decode('utf-8', 'surrogateescape')}")
    if mount.target:
        path = os.path.join(_room(stack, place), "secret")
        _write(path, data, mount)
        lent.mounts.append(_bind(path, _inside(directory, mount.target)))


def _write(path: str, data: bytes, mount: StepMount) -> None:
    fd = os.open(path, _WRITE, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        os.fchown(fd, mount.uid, mount.gid)
        os.fchmod(fd, mount.mode)


async def _agent(
    stack: contextlib.AsyncExitStack,
    lent: Lent,
    mount: StepMount,
    session: ClientSession | None,
    place: str,
    target: str,
) -> bool:
    """Tell whether there is one."""
    found = need(session, f"ssh agent {mount.id}")
    try:
        await found.check_ssh(mount.id)
    except PierError as exc:
        if mount.required:
            raise BuildFailed(
                f"unable to forward ssh agent {mount.id}: {exc.args[0] if exc.args else exc}"
            ) from exc
        return False
    path = await open_agent(stack, found, mount.id, place)
    os.chown(path, mount.uid, mount.gid)
    os.chmod(path, mount.mode)
    lent.mounts.append(_bind(path, target))
    return True


async def open_agent(
    stack: contextlib.AsyncExitStack, session: ClientSession, name: str, place: str
) -> str:
    """Return the path of a socket that leads to an agent of the client's. Raises OSError."""
    room = _room(stack, place)
    room_fd = os.open(room, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX)
    try:
        # By descriptor: the address of a socket is 107 bytes at most.
        listener.bind(f"/proc/self/fd/{room_fd}/agent")
    finally:
        os.close(room_fd)
    relay = _Relay(session, name)
    server = await asyncio.start_unix_server(relay.serve, sock=listener)
    stack.push_async_callback(relay.close, server)
    return os.path.join(room, "agent")


class _Relay:
    """Connections of a step to an agent, each joined with one of the client's."""

    def __init__(self, session: ClientSession, name: str) -> None:
        self._session = session
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            with contextlib.suppress(PierError, OSError):
                agent = await self._session.ssh(self._name)
                other_reader, other_writer = await asyncio.open_unix_connection(sock=agent)
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(_pump(reader, other_writer))
                        both.create_task(_pump(other_reader, writer))
                finally:
                    other_writer.close()
        finally:
            writer.close()

    async def close(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _room(stack: contextlib.AsyncExitStack, place: str) -> str:
    """Make a directory that only root can enter and that goes with the step."""
    os.makedirs(place, mode=0o700, exist_ok=True)
    room = tempfile.mkdtemp(dir=place)
    stack.callback(shutil.rmtree, room, ignore_errors=True)
    return room


def _bind(path: str, target: str) -> Mount:
    return Mount(Type="bind", Source=path, Target=target, ReadOnly=True)


def _inside(directory: str, target: str) -> str:
    return posixpath.normpath(posixpath.join("/", directory, target))
