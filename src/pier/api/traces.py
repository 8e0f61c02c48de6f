"""The route of traces, Pier's own: where the time of a container's latest start went."""

from aiohttp import web

from pier.api.answers import json_answer
from pier.api.call import Call
from pier.api.router import Routes
from pier.errors import NotFound


async def show(call: Call) -> web.StreamResponse:
    """`container=` is a whole ID, since the container may be gone; `over=1` waits for its end."""
    container = call.text("container")
    document = await call.engine.traces.document(container, until_over=call.flag("over"))
    if document is None:
        raise NotFound(f"No trace of container: {container}")
    return json_answer(document)


ROUTES: Routes = {"GET /pier/trace": show}
