"""POST /grpc and /session: connections that become HTTP/2, for BuildKit's API and its clients' sessions.

On the first the client calls us, on the second we call the client.
"""

import socket
from collections.abc import Callable

from aiohttp import web

from pier.api.call import Call
from pier.api.hijack import Taken
from pier.api.router import Routes
from pier.errors import Conflict, InvalidParameter

_PROTOCOL = "h2c"
_HEADER = "X-Docker-Expose-Session-"
_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
# The end of a body that Node's clients announced; Go's server passes it over.
_NO_CHUNKS = b"0\r\n\r\n"

Serve = Callable[[socket.socket, bytes], None]


async def grpc(call: Call) -> web.StreamResponse:
    _check(call)
    return await _turn(call, call.engine.builds.buildkit.serve)


async def session(call: Call) -> web.StreamResponse:
    _check(call)
    headers = call.request.headers
    session_id = headers.get(f"{_HEADER}Uuid", "")
    if not session_id:
        raise InvalidParameter("client session is missing X-Docker-Expose-Session-Uuid")
    buildkit = call.engine.builds.buildkit
    if buildkit.has_session(session_id):
        raise Conflict(f"session {session_id} already exists")
    shared_key = headers.get(f"{_HEADER}Sharedkey", "")
    skipped = _NO_CHUNKS if headers.get("Transfer-Encoding") else b""

    def serve(sock: socket.socket, pending: bytes) -> None:
        buildkit.keep_session(sock, pending, session_id, shared_key, skipped=skipped)

    return await _turn(call, serve)


def _check(call: Call) -> None:
    protocol = call.request.headers.get("Upgrade", "")
    if not protocol:
        raise InvalidParameter("no upgrade proto in request")
    if protocol != _PROTOCOL:
        raise InvalidParameter(f"protocol {protocol} not supported")


async def _turn(call: Call, serve: Serve) -> web.StreamResponse:
    """Answer, and speak HTTP/2 on the client's socket from there on."""
    connection = call.connection
    client_fd, pending = connection.take()
    sock = socket.socket(fileno=client_fd)
    try:
        sock.setblocking(True)
        sock.sendall(_HEAD)
        connection.let_go()
        serve(sock, pending)
    except BaseException:
        sock.close()
        raise
    return Taken()


ROUTES: Routes = {"POST /grpc": grpc, "POST /session": session}
