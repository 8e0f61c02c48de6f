"""Routes of managed plugins: there are none. (Volume drivers found by their socket are no such.)"""

from aiohttp import web

from pier.api.answers import json_answer
from pier.api.call import Call
from pier.api.router import Routes
from pier.errors import NotFound


async def list_(call: Call) -> web.StreamResponse:
    return json_answer([])


async def none_such(call: Call) -> web.StreamResponse:
    raise NotFound(f'plugin "{call.name}" not found')


ROUTES: Routes = {
    "GET /plugins": list_,
    "GET /plugins/{name}/json": none_such,
    "DELETE /plugins/{name}": none_such,
    **{
        f"POST /plugins/{{name}}/{verb}": none_such
        for verb in ("enable", "disable", "push", "set", "upgrade")
    },
}
