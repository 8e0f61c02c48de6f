"""Routes of images."""

from functools import partial

from aiohttp import web
from msgspec import to_builtins

from pier.api import answer_versions, registries
from pier.api.answers import empty_answer, json_answer
from pier.api.body import convert, read_json
from pier.api.call import Call, Version
from pier.api.router import Routes
from pier.api.streaming import TAR, send_bytes, send_progress, send_transfer
from pier.engine.commit import CommitOptions
from pier.engine.import_url import import_url
from pier.errors import InvalidParameter
from pier.model.api_execs import IdResponse
from pier.model.container import ContainerConfig
from pier.model.filters import Filters
from pier.model.platform import Platform, parse_platform_json
from pier.model.reference import parse_repo_tag
from pier.registry.fetch import whole_url

_LIST_FILTERS = frozenset({"before", "dangling", "label", "label!", "reference", "since", "until"})

_PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


async def list_(call: Call) -> web.StreamResponse:
    manifests = call.flag("manifests") and call.version >= (1, 47)
    identity = call.flag("identity") and call.version >= (1, 54)
    if identity and not manifests:
        raise InvalidParameter("conflicting options: identity requires manifests=1")
    summaries = await call.engine.images.list(
        all=call.flag("all"),
        shared_size=call.flag("shared-size") and call.version >= (1, 42),
        manifests=manifests,
        # Clients of before take -1 to mean that it was not counted, and show "N/A".
        containers=call.version >= (1, 51),
        identity=identity,
        filters=Filters.parse(call.text("filters"), _LIST_FILTERS),
    )
    return json_answer(answer_versions.images(summaries, call.version))


async def inspect(call: Call) -> web.StreamResponse:
    platform = _platform(call, since=(1, 49))
    manifests = call.flag("manifests") and call.version >= (1, 48)
    if platform is not None and manifests:
        raise InvalidParameter(
            "conflicting options: manifests and platform options cannot both be set"
        )
    answer = await call.engine.images.inspect(call.name, manifests=manifests, platform=platform)
    return json_answer(answer_versions.image(to_builtins(answer), call.version))


async def attestations(call: Call) -> web.StreamResponse:
    texts = call.query.get("platform", [])
    if len(texts) > 1:
        raise InvalidParameter("only one platform value is currently supported")
    platform = parse_platform_json(texts[0]) if texts and texts[0] else None
    kinds = [kind for text in call.query.get("type", []) if (kind := text.strip())]
    return json_answer(
        await call.engine.images.attestations(
            call.name, platform, kinds=kinds, whole=call.flag("statement")
        )
    )


async def history(call: Call) -> web.StreamResponse:
    # `layers` is Pier's own.
    steps = await call.engine.images.history(call.name, _platform(call), layers=call.flag("layers"))
    return json_answer(steps)


async def load(call: Call) -> web.StreamResponse:
    lines = call.engine.images.load(
        call.archive(), quiet=call.flag("quiet"), platforms=_platforms(call)
    )
    return await send_progress(call, lines)


async def save(call: Call) -> web.StreamResponse:
    refs = [call.name] if call.name else call.query.get("names", [])
    return await send_bytes(call, TAR, call.engine.images.save(refs, _platforms(call)))


async def difference(call: Call) -> web.StreamResponse:
    """Answer with what turns one image's files into another's: Pier's own, for `image diff`."""
    return json_answer(await call.engine.images.difference(call.text("from"), call.text("to")))


async def commit(call: Call) -> web.StreamResponse:
    body = await read_json(call.request)
    options = CommitOptions(
        repo=call.text("repo"),
        tag=call.text("tag"),
        author=call.text("author"),
        comment=call.text("comment"),
        pause=call.flag("pause", default=True),
        changes=call.query.get("changes", []),
        config=convert(body, ContainerConfig) if body else None,
    )
    image = await call.engine.committer.commit(call.text("container"), options)
    return json_answer(IdResponse(Id=image.id), 201)


def _platform(call: Call, since: Version = (1, 48)) -> Platform | None:
    """Return the `platform` parameter, an object as JSON. Raises InvalidParameter."""
    text = call.text("platform") if call.version >= since else ""
    return parse_platform_json(text) if text else None


def _platforms(call: Call) -> list[Platform]:
    """Return the platforms to load or save, none for all. Raises InvalidParameter."""
    texts = [text for text in call.query.get("platform", []) if text]
    if call.version < (1, 48):
        return []
    if call.version < (1, 52) and len(texts) > 1:
        raise InvalidParameter("multiple platform parameters not supported")
    return [parse_platform_json(text) for text in texts]


async def create(call: Call) -> web.StreamResponse:
    if call.text("fromImage"):
        return await registries.pull(call)
    source, repo, tag = call.text("fromSrc"), call.text("repo"), call.text("tag")
    if repo:
        parse_repo_tag(repo, tag)
    run = partial(
        call.engine.images.import_,
        repo=repo,
        tag=tag,
        message=call.text("message"),
        changes=call.query.get("changes", []),
        platform=call.text("platform"),
    )
    if source == "-":
        archive = call.archive()
        return await send_transfer(call, run(lambda _: archive))
    return await send_transfer(call, import_url(call.engine.registries, whole_url(source), run))


async def transfer(call: Call) -> web.StreamResponse:
    """Answer with an image's archive without its lowest layers: Pier's own, for `pier push`."""
    skip = call.text("skip") or "0"
    if not (skip.isascii() and skip.isdecimal()):
        raise InvalidParameter(f"invalid number of layers to skip: {skip}")
    pieces = await call.engine.images.transfer(call.text("name"), skip=int(skip))
    return await send_bytes(call, "application/x-tar", pieces)


async def tag(call: Call) -> web.StreamResponse:
    await call.engine.images.tag(call.name, call.text("repo"), call.text("tag"))
    return empty_answer(201)


async def remove(call: Call) -> web.StreamResponse:
    if not call.name.strip():
        raise InvalidParameter("image name cannot be blank")
    deleted = await call.engine.images.remove(
        call.name,
        force=call.flag("force"),
        noprune=call.flag("noprune"),
        platforms=[
            parse_platform_json(text)
            for text in call.query.get("platforms", [])
            if call.version >= (1, 50)
        ],
    )
    return json_answer(deleted)


async def prune(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), _PRUNE_FILTERS)
    return json_answer(await call.engine.images.prune(filters))


ROUTES: Routes = {
    "GET /images/json": list_,
    "GET /images/get": save,
    "GET /images/{name}/get": save,
    "POST /commit": commit,
    "POST /images/prune": prune,
    "POST /images/create": create,
    "POST /images/load": load,
    "GET /images/{name}/json": inspect,
    "GET /images/{name}/history": history,
    "GET /images/{name}/attestations": attestations,
    "POST /images/{name}/tag": tag,
    "DELETE /images/{name}": remove,
    "GET /pier/archive": transfer,
    "GET /pier/diff": difference,
}
