"""Routes of the engine itself: _ping, version, info, events, disk usage."""

from aiohttp import web
from msgspec import to_builtins

from pier.api import answer_versions
from pier.api.answers import json_answer, text_answer
from pier.api.call import BOOLEANS, Call
from pier.api.negotiation import negotiate
from pier.api.router import Routes
from pier.api.streaming import JSON, JSON_LINES, JSON_SEQUENCE, ND_JSON, send_values
from pier.engine.disk_usage import usages
from pier.errors import InvalidParameter
from pier.model.filters import Filters

# Builder-Version 2 lets clients build through BuildKit's API, where they have buildx.
_PING_HEADERS = {
    "Builder-Version": "2",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


async def ping(call: Call) -> web.StreamResponse:
    if call.engine.settings.features.get("buildkit", True):
        return text_answer("OK", _PING_HEADERS)
    return text_answer("OK", _PING_HEADERS | {"Builder-Version": "1"})


async def version(call: Call) -> web.StreamResponse:
    return json_answer(call.engine.system.version())


async def info(call: Call) -> web.StreamResponse:
    return json_answer(answer_versions.info(await call.engine.system.info(), call.version))


async def events(call: Call) -> web.StreamResponse:
    since, until = call.timestamp("since"), call.timestamp("until")
    if until is not None and since is not None and until < since:
        raise InvalidParameter(
            f"`since` time ({call.text('since')}) cannot be after `until` time"
            f" ({call.text('until')})"
        )
    # Keys that mean nothing here are passed over, as by dockerd.
    filters = Filters.parse(call.text("filters"), None)
    subscription = call.engine.events.subscribe(since=since, until=until, filters=filters)
    return await send_values(
        call,
        subscription,
        lambda event: answer_versions.event(event, call.version),
        _events_type(call),
    )


def _events_type(call: Call) -> str:
    """The content type that the client likes best: since API 1.52 there is a choice."""
    offers = ((1, 53), JSON_LINES), ((1, 52), ND_JSON), ((1, 52), JSON_SEQUENCE)
    offered = [kind for since, kind in offers if call.version >= since]
    return negotiate(call.request.headers.get("Accept", ""), offered) or JSON


async def disk_usage(call: Call) -> web.StreamResponse:
    kinds = call.query.get("type", []) if call.version >= (1, 42) else []
    measured = await call.engine.disk_usages.measure(kinds)
    answer_versions.containers(measured.Containers or [], call.version)
    if call.version < (1, 52):
        return json_answer(measured)
    text = call.text("verbose")
    if text and text not in BOOLEANS:
        raise InvalidParameter(f"invalid value for verbose: {text}")
    is_verbose = BOOLEANS.get(text, False)
    shown = to_builtins(usages(measured, verbose=is_verbose))
    if call.version == (1, 52) and not text:
        old = {name: value for name, value in to_builtins(measured).items() if value is not None}
        shown = old | shown
    return json_answer(shown)


ROUTES: Routes = {
    "GET /_ping": ping,
    "HEAD /_ping": ping,
    "GET /version": version,
    "GET /info": info,
    "GET /events": events,
    "GET /system/df": disk_usage,
}
