"""Routes that Pier knows and does not serve: swarm's, in Docker's words, and those yet to come."""

from aiohttp import web

from pier.api.call import Call
from pier.api.router import Handler, Routes
from pier.errors import Unavailable, Unsupported

_NOUNS = ("configs", "nodes", "secrets", "services", "tasks")
_SWARM = (
    "GET /swarm",
    "GET /swarm/unlockkey",
    *(f"POST /swarm/{verb}" for verb in ("init", "join", "leave", "unlock", "update")),
    *(f"GET /{noun}" for noun in _NOUNS),
    *(f"GET /{noun}/{{name}}" for noun in _NOUNS),
    *(f"DELETE /{noun}/{{name}}" for noun in _NOUNS if noun != "tasks"),
    *(f"POST /{noun}/create" for noun in _NOUNS if noun not in ("nodes", "tasks")),
    *(f"POST /{noun}/{{name}}/update" for noun in _NOUNS if noun != "tasks"),
    "GET /services/{name}/logs",
    "GET /tasks/{name}/logs",
)
_NOT_YET = {
    "GET /plugins/privileges": "installing managed plugins",
    "POST /plugins/pull": "installing managed plugins",
    "POST /plugins/create": "making managed plugins",
}


async def _no_swarm(call: Call) -> web.StreamResponse:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
        "to connect this node to swarm and try again."
    )


async def _no_part(call: Call) -> web.StreamResponse:
    raise Unavailable("This node is not part of a swarm")


async def _no_cluster_volumes(call: Call) -> web.StreamResponse:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


def _not_yet(what: str) -> Handler:
    async def refuse(call: Call) -> web.StreamResponse:
        raise Unsupported(f"{what} is not supported by pierd yet")

    return refuse


ROUTES: Routes = {
    **dict.fromkeys(_SWARM, _no_swarm),
    "POST /swarm/leave": _no_part,
    "PUT /volumes/{name}": _no_cluster_volumes,
    **{route: _not_yet(what) for route, what in _NOT_YET.items()},
}
