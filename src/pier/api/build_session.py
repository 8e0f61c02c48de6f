"""The connection on which a build asks `pier build` for secrets, agents and directories.

`POST /pier/build/session?id=X` with `Upgrade: tcp`; what is spoken is in `build/channels.py`.
"""

import asyncio
import os
import socket

from aiohttp import web

from pier.api.call import Call
from pier.api.hijack import hijack
from pier.api.router import Routes
from pier.errors import InvalidParameter


async def session(call: Call) -> web.StreamResponse:
    identity = call.text("id")
    if not identity:
        raise InvalidParameter("id= is missing")

    async def take(client_fd: int, pending: bytes) -> None:
        connection = socket.socket(fileno=os.dup(client_fd))
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        if pending:
            reader.feed_data(pending)
        call.engine.builds.attend(identity, reader, writer)

    return await hijack(call, take, tty=True)


ROUTES: Routes = {"POST /pier/build/session": session}
