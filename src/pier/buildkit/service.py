"""BuildKit's API as a whole: connections that clients turned into gRPC, and what they share.

Made when the first client comes; an engine that builds nothing has none of it in memory.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from pier.build.kept_contexts import KeptContexts
from pier.buildkit.classic import ClassicBuilds
from pier.buildkit.control import Control
from pier.buildkit.gateway import Gateway
from pier.buildkit.history import History
from pier.buildkit.jobs import Jobs
from pier.buildkit.session import Session
from pier.buildkit.sessions import Sessions
from pier.buildkit.workshop import Workshop
from pier.grpc.connection import Connection
from pier.grpc.server import Server


class BuildKit:
    """To be made and closed on the loop. `classic` are builds that come by way of POST /build."""

    def __init__(self, workshop: Workshop, trees: KeptContexts, executor: Executor) -> None:
        self._executor = executor
        self._sessions = Sessions()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        worker_id = secrets.token_hex(16)
        jobs, history = Jobs(), History()
        control = Control(workshop, self._sessions, jobs, trees, history, worker_id)
        gateway = Gateway(control, jobs)
        self.classic = ClassicBuilds(workshop, self._sessions, jobs, control)
        self._server = Server({**control.methods(), **gateway.methods()})

    def serve(self, sock: socket.socket, pending: bytes) -> None:
        """Serve a client on a connection of its, until it is gone; the socket is taken."""
        connection = Connection(is_client=False, accept=self._server.accept, pending=pending)
        self._start(self._keep(connection, sock, lambda: None))

    def keep_session(
        self,
        sock: socket.socket,
        pending: bytes,
        session_id: str,
        shared_key: str,
        *,
        skipped: bytes = b"",
    ) -> None:
        """Have a client's session for as long as it lasts; the socket is taken.

        `skipped` is what the client may send first that is not HTTP/2's.
        """
        connection = Connection(is_client=True, pending=pending, skipped=skipped)
        session = Session(connection, session_id, shared_key, self._executor)
        over: list[Callable[[], None]] = []

        async def keep() -> None:
            try:
                await self._keep(connection, sock, lambda: over.append(self._sessions.add(session)))
            finally:
                for end in over:
                    end()
                session.close()

        self._start(keep())

    def has_session(self, session_id: str) -> bool:
        return self._sessions.find(session_id) is not None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="buildkit connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(
        self, connection: Connection, sock: socket.socket, begun: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: connection, sock)
        self._connections.add(connection)
        try:
            begun()  # not before: now it can be called
            await connection.closed
        finally:
            self._connections.discard(connection)
            connection.close()

    async def close(self) -> None:
        """End all builds and their connections."""
        for connection in list(self._connections):
            connection.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
