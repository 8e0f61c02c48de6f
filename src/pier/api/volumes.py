"""Routes of volumes."""

from aiohttp import web

from pier.api.answers import empty_answer, json_answer
from pier.api.body import read_as
from pier.api.call import Call
from pier.api.router import Routes
from pier.api.streaming import TAR, send_bytes
from pier.engine.volumes import LIST_FILTERS, PRUNE_FILTERS
from pier.errors import Unavailable
from pier.model.api_volumes import VolumeCreateRequest
from pier.model.filters import Filters

_ALL_BY_DEFAULT = (1, 42)  # before it a prune took named volumes as well


async def list_(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), LIST_FILTERS)
    return json_answer(await call.engine.volumes.list(filters))


async def inspect(call: Call) -> web.StreamResponse:
    return json_answer(await call.engine.volumes.inspect(call.name))


async def create(call: Call) -> web.StreamResponse:
    wanted = await read_as(call.request, VolumeCreateRequest)
    if wanted.ClusterVolumeSpec is not None:
        raise Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
            "to connect this node to swarm and try again."
        )
    made = await call.engine.volumes.create(
        name=wanted.Name, driver=wanted.Driver, options=wanted.DriverOpts, labels=wanted.Labels
    )
    return json_answer(made, 201)


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.volumes.remove(call.name, force=call.flag("force"))
    return empty_answer(204)


async def prune(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), PRUNE_FILTERS)
    everything = call.version < _ALL_BY_DEFAULT or filters.flag("all", default=False)
    return json_answer(await call.engine.volumes.prune(filters, everything=everything))


async def backup(call: Call) -> web.StreamResponse:
    """Answer with a volume's tar: Pier's own, as all below are."""
    pieces = call.engine.volume_keeping.backup(
        call.text("name"), pause=call.flag("pause", default=True)
    )
    return await send_bytes(call, TAR, pieces)


async def restore(call: Call) -> web.StreamResponse:
    archive = call.archive()
    return json_answer(await call.engine.volume_keeping.restore(call.text("name"), archive), 201)


async def clone(call: Call) -> web.StreamResponse:
    made = await call.engine.volume_keeping.clone(
        call.text("name"), call.text("to"), pause=call.flag("pause", default=True)
    )
    return json_answer(made, 201)


async def rename(call: Call) -> web.StreamResponse:
    return json_answer(call.engine.volumes.rename(call.text("name"), call.text("to")))


ROUTES: Routes = {
    "GET /pier/volume": backup,
    "PUT /pier/volume": restore,
    "POST /pier/volume/clone": clone,
    "POST /pier/volume/rename": rename,
    "GET /volumes": list_,
    "POST /volumes/create": create,
    "POST /volumes/prune": prune,
    "GET /volumes/{name}": inspect,
    "DELETE /volumes/{name}": remove,
}
