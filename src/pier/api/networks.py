"""Routes of networks."""

from aiohttp import web

from pier.api.answers import empty_answer, json_answer
from pier.api.body import read_as
from pier.api.call import BOOLEANS, Call
from pier.api.router import Routes
from pier.engine.networks import FILTERS, PRUNE_FILTERS
from pier.errors import InvalidParameter
from pier.model.filters import Filters
from pier.model.network import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkDisconnectRequest,
)


async def list_(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), FILTERS)
    return json_answer(call.engine.networks.find_all(filters))


async def inspect(call: Call) -> web.StreamResponse:
    verbose = call.text("verbose")
    if verbose and verbose not in BOOLEANS:
        raise InvalidParameter(
            f'invalid value for verbose: {verbose}: strconv.ParseBool: parsing "{verbose}":'
            " invalid syntax"
        )
    shown = call.engine.networks.inspect(
        call.name, call.text("scope"), with_status=call.version >= (1, 52)
    )
    return json_answer(shown)


async def create(call: Call) -> web.StreamResponse:
    request = await read_as(call.request, NetworkCreateRequest)
    if call.version < (1, 48):
        request.EnableIPv4 = None
    return json_answer(call.engine.networks.create(request), 201)


async def remove(call: Call) -> web.StreamResponse:
    call.engine.networks.remove(call.name)
    return empty_answer(204)


async def connect(call: Call) -> web.StreamResponse:
    request = await read_as(call.request, NetworkConnectRequest)
    await call.engine.networks.connect(call.name, request)
    return empty_answer(200)


async def disconnect(call: Call) -> web.StreamResponse:
    request = await read_as(call.request, NetworkDisconnectRequest)
    await call.engine.networks.disconnect(call.name, request)
    return empty_answer(200)


async def prune(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), PRUNE_FILTERS)
    return json_answer(call.engine.networks.prune(filters))


ROUTES: Routes = {
    "GET /networks": list_,
    "GET /networks/": list_,
    "POST /networks/create": create,
    "POST /networks/prune": prune,
    "GET /networks/{name}": inspect,
    "DELETE /networks/{name}": remove,
    "POST /networks/{name}/connect": connect,
    "POST /networks/{name}/disconnect": disconnect,
}
