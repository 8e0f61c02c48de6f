"""Routes of builds: POST /build for either builder, its cache's pruning, and what Pier adds."""

from aiohttp import web

from pier.api.answers import empty_answer, json_answer
from pier.api.build_parameters import build_options, credentials_of, through_buildkit
from pier.api.call import Call
from pier.api.router import Routes
from pier.api.streaming import BINARY, send_bytes, send_transfer
from pier.build.keeping import FILTERS, Rule, rule_filters
from pier.engine.own_builds import Asked
from pier.errors import InvalidParameter
from pier.model.filters import Filters
from pier.model.gotime import now_ns


async def build(call: Call) -> web.StreamResponse:
    if through_buildkit(call):
        return await _build_through_buildkit(call)
    content_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
    lines = call.engine.builds.build(
        call.archive(),
        build_options(call),
        credentials_of(call),
        is_dockerfile=content_type == "text/plain",
        remote=call.text("remote"),
        asked=Asked(
            progress=call.flag("pier.progress"),
            call=call.text("pier.call"),
            shell=call.text("pier.on-error") in ("shell", "terminal"),
            explain=call.flag("pier.explain"),
            mounts_from=call.flag("pier.cache-mounts-from"),
            mounts_to=call.flag("pier.cache-mounts-to"),
        ),
    )
    return await send_transfer(call, lines)


async def _build_through_buildkit(call: Call) -> web.StreamResponse:
    lines = call.engine.builds.build_through_buildkit(
        call.request.content.iter_any(),
        build_options(call),
        credentials_of(call),
        remote=call.text("remote"),
        session=call.text("session"),
        build_id=call.text("buildid"),
    )
    return await send_transfer(call, lines)


async def cancel(call: Call) -> web.StreamResponse:
    """Stop a build of BuildKit's by the ID that its client chose; one that is not there is no error."""
    if not (build_id := call.text("id")):
        raise InvalidParameter("build ID not provided")
    call.engine.builds.cancel(build_id)
    return empty_answer(200)


async def prune(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), FILTERS)
    rest, unused = rule_filters(filters.values, now_ns())
    reserved = max(call.integer("keep-storage") or 0, call.integer("reserved-space") or 0)
    rule = Rule(
        filters=rest,
        everything=call.flag("all"),
        unused_ns=unused,
        reserved=reserved,
        max_used=call.integer("max-used-space") or 0,
        min_free=call.integer("min-free-space") or 0,
    )
    return json_answer(await call.engine.builds.prune(rule))


async def export(call: Call) -> web.StreamResponse:
    """Pier's own: fetch a file that a build exports, whose ID its stream has told."""
    return await send_bytes(call, BINARY, call.engine.builds.exports.fetch(call.text("id")))


async def history(call: Call) -> web.StreamResponse:
    """Pier's own: builds that are over, with `id` one of them."""
    log = call.engine.builds.log
    return json_answer([log.get(call.text("id"))] if call.text("id") else log.all())


async def forget(call: Call) -> web.StreamResponse:
    """Pier's own: forget builds that are over; all of them without `id`."""
    return json_answer(call.engine.builds.log.remove(call.query.get("id", [])))


ROUTES: Routes = {
    "GET /pier/build/history": history,
    "DELETE /pier/build/history": forget,
    "POST /build": build,
    "POST /build/cancel": cancel,
    "POST /build/prune": prune,
    "GET /pier/build/export": export,
}
