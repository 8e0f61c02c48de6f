"""Routes that lead to registries: pull, push, login, search, what a tag is over there."""

import msgspec
from aiohttp import web

from pier.api.answers import json_answer
from pier.api.body import read_json
from pier.api.call import Call
from pier.api.router import Routes
from pier.api.streaming import send_transfer
from pier.errors import Forbidden, InvalidParameter
from pier.model.filters import Filters
from pier.model.platform import Platform, normalize, parse_platform
from pier.model.reference import parse_reference
from pier.registry.credentials import Credentials, from_fields, parse_header
from pier.registry.search import FILTERS


async def pull(call: Call) -> web.StreamResponse:
    """POST /images/create?fromImage=: a tag, a digest, or every tag when there is neither."""
    image, tag = call.text("fromImage"), call.text("tag")
    reference = parse_reference(image)
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    if ":" in tag:
        # The docker command sends a digest as the tag.
        reference = parse_reference(f"{reference.name}@{tag}")
    elif tag:
        reference = reference.with_tag(tag)
    text = call.text("platform")
    platform = parse_platform(text) if text else None
    return await send_transfer(
        call, call.engine.registries.pull(reference, _credentials(call), platform)
    )


async def push(call: Call) -> web.StreamResponse:
    reference = parse_reference(call.name)
    if reference.digest:
        raise InvalidParameter("cannot push a digest reference")
    if tag := call.text("tag"):
        reference = reference.with_tag(tag)
    return await send_transfer(
        call, call.engine.registries.push(reference, _credentials(call), _platform(call))
    )


async def distribution(call: Call) -> web.StreamResponse:
    reference = parse_reference(call.name)
    return json_answer(await call.engine.registries.inspect(reference, _credentials(call)))


async def auth(call: Call) -> web.StreamResponse:
    who = from_fields(await read_json(call.request) or {})
    return json_answer(await call.engine.registries.login(who))


async def search(call: Call) -> web.StreamResponse:
    try:
        limit = call.integer("limit") or 0
    except InvalidParameter as exc:
        raise InvalidParameter(f"invalid limit specified: {exc.message}") from None
    found = await call.engine.registries.search(
        call.text("term"),
        _credentials(call),
        limit=limit,
        filters=Filters.parse(call.text("filters"), FILTERS),
    )
    return json_answer(found)


def _credentials(call: Call) -> Credentials:
    return parse_header(call.request.headers.get("X-Registry-Auth", ""))


def _platform(call: Call) -> Platform | None:
    """Return the `platform` of a push: JSON, of one platform."""
    text = call.text("platform")
    if not text:
        return None
    try:
        return normalize(msgspec.json.decode(text, type=Platform))
    except msgspec.DecodeError as exc:
        raise InvalidParameter(f"failed to parse platform: {exc}") from exc


ROUTES: Routes = {
    "POST /images/{name}/push": push,
    "GET /distribution/{name}/json": distribution,
    "POST /auth": auth,
    "GET /images/search": search,
}
