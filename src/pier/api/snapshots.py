"""Routes of Pier's own: snapshots and clones of containers, and what `cow` binds hold back.

The container is `container=`.
"""

from aiohttp import web

from pier.api.answers import empty_answer, json_answer
from pier.api.call import Call
from pier.api.router import Routes


async def list_(call: Call) -> web.StreamResponse:
    return json_answer(call.engine.snapshots.of(call.text("container")))


async def take(call: Call) -> web.StreamResponse:
    made = await call.engine.snapshots.take(call.text("container"), call.text("name"))
    return json_answer(made, 201)


async def remove(call: Call) -> web.StreamResponse:
    call.engine.snapshots.remove(call.text("container"), call.text("name"))
    return empty_answer(204)


async def rollback(call: Call) -> web.StreamResponse:
    await call.engine.snapshots.rollback(call.text("container"), call.text("name"))
    return empty_answer(204)


async def clone(call: Call) -> web.StreamResponse:
    made = await call.engine.snapshots.clone(call.text("container"), call.text("name"))
    return json_answer(made, 201)


async def changes(call: Call) -> web.StreamResponse:
    return json_answer(await call.engine.cow.changes(call.text("container")))


async def apply(call: Call) -> web.StreamResponse:
    return json_answer(await call.engine.cow.apply(call.text("container"), call.text("path")))


ROUTES: Routes = {
    "GET /pier/cow": changes,
    "POST /pier/cow/apply": apply,
    "GET /pier/snapshots": list_,
    "POST /pier/snapshots": take,
    "DELETE /pier/snapshots": remove,
    "POST /pier/rollback": rollback,
    "POST /pier/clone": clone,
}
