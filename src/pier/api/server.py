"""The API's server: one handler for every request, on any number of listening sockets."""

import asyncio
import logging
import socket
import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from pier.api import (
    archive,
    build,
    build_session,
    buildkit,
    containers,
    egress,
    execs,
    images,
    networks,
    plugins,
    refused,
    registries,
    snapshots,
    system,
    traces,
    volumes,
)
from pier.api.answers import error_answer, text_answer
from pier.api.call import Call
from pier.api.connection import MAX_HEAD_BYTES, Connection, ConnectionServer
from pier.api.errors import message_of, status_of
from pier.api.hijack import Taken
from pier.api.router import ClientTooOld, Router
from pier.errors import PierError

if TYPE_CHECKING:
    from pier.api.tls import TlsListener
    from pier.engine.engine import Engine

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
# Archives come in through here: fewer and larger reads, and bounded memory all the same.
READ_BUFFER_BYTES = 256 << 10


class ApiServer:
    """Serves one engine. Sockets given to `serve` are listening, and stay the caller's."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._router = Router(
            system.ROUTES,
            containers.ROUTES,
            archive.ROUTES,
            build.ROUTES,
            build_session.ROUTES,
            buildkit.ROUTES,
            egress.ROUTES,
            execs.ROUTES,
            images.ROUTES,
            networks.ROUTES,
            plugins.ROUTES,
            registries.ROUTES,
            snapshots.ROUTES,
            traces.ROUTES,
            volumes.ROUTES,
            refused.ROUTES,
        )
        self._connections = ConnectionServer(
            self._answer,
            access_log=None,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            tcp_keepalive=False,
        )
        self._listeners: list[asyncio.Server] = []
        self._secured: list[TlsListener] = []

    async def serve(self, sockets: list[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Accept clients from now on; those of TCP with TLS, if there is a context for it."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            if sock.family != socket.AF_UNIX:
                await self._serve_tcp(sock, tls)
                continue
            # A duplicate, since the listener closes its socket.
            self._listeners.append(
                await loop.create_unix_server(self._connections, sock=sock.dup())
            )

    async def _serve_tcp(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        if tls is None:
            self._listeners.append(await loop.create_server(self._connections, sock=sock.dup()))
            return
        # Half a megabyte that few engines need.
        from pier.api.tls import TlsListener  # noqa: PLC0415

        async def serve_plain(plain: socket.socket) -> None:
            await loop.connect_accepted_socket(self._connections, plain)

        self._secured.append(TlsListener(sock, tls, serve_plain))
        self._secured[-1].start()

    async def close(self) -> None:
        """Stop accepting, end the endless answers, let the others finish for a few seconds."""
        for listener in self._listeners:
            listener.close()
        self._connections.pre_shutdown()
        self._connections.cancel_streams()
        await self._connections.shutdown(STOP_TIMEOUT_S)
        for secured in self._secured:
            await secured.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._handled(request)
        if not isinstance(response, Taken):
            connection = request.protocol
            assert isinstance(connection, Connection)
            connection.speak_http()
        return response

    async def _handled(self, request: web.BaseRequest) -> web.StreamResponse:
        log.debug("handling %s request: %s", request.method, request.path_qs)
        try:
            if "Expect" in request.headers:
                _continue(request)
            path = request.path_qs.partition("?")[0]
            handler, version, name = self._router.find(request.method, path)
            call = Call(self._engine, request, version, name)
            try:
                return await handler(call)
            finally:
                call.close()
        except PierError as exc:
            log.debug("%s %s: %s", request.method, request.path, exc)
            return _failed(request, exc)
        except ConnectionError:
            raise
        except Exception as exc:
            log.exception("%s %s failed", request.method, request.path)
            return _failed(request, exc)


def _failed(request: web.BaseRequest, exc: Exception) -> web.StreamResponse:
    if request.writer.output_size > 0:
        # The head of another answer is out: all that is left is to end the connection.
        raise ConnectionResetError("stream broke off") from exc
    if isinstance(exc, ClientTooOld):
        return text_answer(message_of(exc) + "\n", {}, status_of(exc))
    return error_answer(exc)


def _continue(request: web.BaseRequest) -> None:
    """Let a client go on that asks before it sends a large body (RFC 9110, 10.1.1)."""
    if request.headers["Expect"].lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
