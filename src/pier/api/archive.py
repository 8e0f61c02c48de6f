"""Routes of a container's files: what `docker cp` asks for."""

import base64

import msgspec
from aiohttp import web

from pier.api.answers import HEADERS, empty_answer
from pier.api.call import Call
from pier.api.router import Routes
from pier.api.streaming import send_bytes
from pier.model.api_containers import PathStat

TAR = "application/x-tar"
STAT_HEADER = "X-Docker-Container-Path-Stat"


async def stat(call: Call) -> web.StreamResponse:
    found = await call.engine.containers.path_stat(call.name, call.text("path"))
    return web.Response(headers=HEADERS | _header(found))


async def get(call: Call) -> web.StreamResponse:
    async with call.engine.containers.archive(call.name, call.text("path")) as (found, pieces):
        return await send_bytes(call, TAR, pieces, _header(found))


async def put(call: Call) -> web.StreamResponse:
    await call.engine.containers.extract(
        call.name,
        call.text("path"),
        call.archive(),
        keep_kinds=call.flag("noOverwriteDirNonDir"),
        as_user=call.flag("copyUIDGID"),
    )
    return empty_answer(200)


def _header(found: PathStat) -> dict[str, str]:
    return {STAT_HEADER: base64.b64encode(msgspec.json.encode(found)).decode()}


ROUTES: Routes = {
    "HEAD /containers/{name}/archive": stat,
    "GET /containers/{name}/archive": get,
    "PUT /containers/{name}/archive": put,
}
