"""Routes of containers."""

import contextlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from pier.api import answer_versions, websocket
from pier.api.answers import empty_answer, json_answer, text_answer
from pier.api.body import convert, read_json
from pier.api.call import Call
from pier.api.create_versions import adapt_create, readonly_is_recursive
from pier.api.errors import message_of, status_of
from pier.api.hijack import give_stream, hijack
from pier.api.router import Routes
from pier.api.streaming import BINARY, RAW_STREAM, send_bytes, send_result, send_values, stream_type
from pier.engine.containers import PRUNE_FILTERS
from pier.engine.inspect import as_shown
from pier.engine.listing import FILTERS
from pier.engine.update import BY_DEVICE
from pier.errors import InvalidParameter, PierError, Unsupported
from pier.model.api_containers import AttachOptions, LogOptions, UpdateRequest
from pier.model.api_stats import StatsResponse
from pier.model.container import CreateRequest
from pier.model.detach_keys import parse_detach_keys
from pier.model.filters import Filters

_BESIDE_CONFIG = frozenset({"HostConfig", "NetworkingConfig"})


async def list_(call: Call) -> web.StreamResponse:
    summaries = await call.engine.containers.list(
        all=call.flag("all"),
        limit=call.integer("limit") or 0,
        size=call.flag("size"),
        filters=Filters.parse(call.text("filters"), FILTERS),
    )
    return json_answer(answer_versions.containers(summaries, call.version))


async def create(call: Call) -> web.StreamResponse:
    request = _create_request(await read_json(call.request))
    warnings = adapt_create(request, call.version)
    platform = call.text("platform") if call.version >= (1, 41) else ""
    response = await call.engine.containers.create(
        request,
        name=call.text("name"),
        platform=platform,
        readonly_recursive=readonly_is_recursive(call.version),
    )
    response.Warnings += warnings
    answer = json_answer(response, 201)
    _traced(call, response.Id)
    return answer


def _traced(call: Call, container_id: str) -> None:
    """A request is answered: say so in the trace of the container's start, if there is one."""
    path = call.request.path_qs.partition("?")[0].rpartition("/")[2]
    call.engine.traces.request(container_id, path, call.arrived_ns)


def _create_request(body: dict[str, Any] | None) -> CreateRequest:
    if body is None:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    if not body.keys() - _BESIDE_CONFIG:
        raise InvalidParameter("config cannot be empty in order to create a container")
    for key in ("Cmd", "Entrypoint"):
        # A command may be one string, which is one word and not split (strslice in Docker's model).
        if isinstance(body.get(key), str):
            body[key] = [body[key]]
    return convert(body, CreateRequest)


async def inspect(call: Call) -> web.StreamResponse:
    answer = await call.engine.containers.inspect(call.name, size=call.flag("size"))
    return json_answer(answer_versions.container(as_shown(answer), call.version))


async def changes(call: Call) -> web.StreamResponse:
    return json_answer(await call.engine.containers.changes(call.name) or None)


async def export(call: Call) -> web.StreamResponse:
    return await send_bytes(call, BINARY, call.engine.containers.export(call.name))


async def top(call: Call) -> web.StreamResponse:
    return json_answer(await call.engine.containers.top(call.name, call.text("ps_args", "-ef")))


async def stats(call: Call) -> web.StreamResponse:
    stream = call.flag("stream", default=True)
    one_shot = call.flag("one-shot") and call.version >= (1, 41)
    if stream and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    if stream:
        answers = call.engine.stats.stream(call.name)
        return await send_values(call, answers, _stats_shown(call))
    if one_shot:
        answer = call.engine.stats.one_shot(call.name)
    else:
        answer = await call.engine.stats.once(call.name)
    return json_answer(answer_versions.stats(answer, call.version))


def _stats_shown(call: Call) -> Callable[[StatsResponse], StatsResponse]:
    return lambda answer: answer_versions.stats(answer, call.version)


async def update(call: Call) -> web.StreamResponse:
    body = await read_json(call.request) or {}
    request = convert(body, UpdateRequest)
    if call.version < (1, 40):
        request.PidsLimit = None
    # An empty list lifts what was set by device; before 1.55 it was "not given".
    lifted = {key for key in BY_DEVICE if body.get(key) == []} if call.version >= (1, 55) else ()
    return json_answer(await call.engine.containers.update(call.name, request, lifted))


# The command lines take a log's frames apart and copy what is in them: one for each line would cost
# them a system call each. Libraries hand frames out, and their users count on a line each.
_COPIERS = ("Docker-Client/", "Pier-Client/")


async def logs(call: Call) -> web.StreamResponse:
    options = LogOptions(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        since=call.timestamp("since"),
        until=call.timestamp("until"),
        tail=_tail(call.text("tail")),
        joined=call.request.headers.get("User-Agent", "").startswith(_COPIERS),
    )
    containers = call.engine.containers
    if options.follow and call.connection.can_be_taken:
        following = await containers.follow_logs(call.name, options)
        if following is not None:
            with contextlib.closing(following):
                return await give_stream(call, following.hand_over, tty=following.query.tty)
    call.connection.speak_http()
    parts = containers.logs(call.name, options)
    kind = stream_type(call, tty=containers.tty(call.name))
    return await send_bytes(call, kind, parts)


def _tail(text: str) -> int | None:
    """Return how many lines; Docker takes "all", a negative number and nonsense for all of them."""
    return int(text) if text.isascii() and text.isdigit() else None


async def attach(call: Call) -> web.StreamResponse:
    try:
        attachment = call.engine.containers.prepare_attach(call.name, _attach_options(call))
    except PierError as exc:
        # As dockerd, which has the client's connection by then: the words alone.
        kind = {"Content-Type": RAW_STREAM}
        return text_answer(message_of(exc) + "\r\n", kind, status_of(exc))
    taken = await hijack(call, attachment.hand_over, tty=attachment.tty)
    _traced(call, attachment.container.id)
    return taken


async def attach_websocket(call: Call) -> web.StreamResponse:
    options = _attach_options(call, everything=call.version < (1, 42))
    attachment = call.engine.containers.prepare_attach(call.name, options)
    return await websocket.serve(call, attachment.hand_over, tty=attachment.tty)


def _attach_options(call: Call, *, everything: bool = False) -> AttachOptions:
    return AttachOptions(
        stdin=everything or call.flag("stdin"),
        stdout=everything or call.flag("stdout"),
        stderr=everything or call.flag("stderr"),
        stream=call.flag("stream"),
        logs=call.flag("logs"),
        detach_keys=parse_detach_keys(call.text("detachKeys")),
    )


async def wait(call: Call) -> web.StreamResponse:
    if call.version < (1, 30):
        return json_answer(await call.engine.containers.wait(call.name, ""))
    result = call.engine.containers.wait(call.name, call.text("condition"))
    answer = await send_result(call, result)
    _traced(call, call.name)
    return answer


async def start(call: Call) -> web.StreamResponse:
    if (call.request.content_length or 0) > len("{}\r\n\r\n"):
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 "
            "and removed in v1.24"
        )
    await call.engine.containers.start(call.name)
    _traced(call, call.name)
    return empty_answer(204)


def _signal(call: Call) -> str:
    """How to stop, which a client may say since API 1.42."""
    return call.text("signal") if call.version >= (1, 42) else ""


async def stop(call: Call) -> web.StreamResponse:
    signal, timeout_s = _signal(call), call.integer("t")
    await call.engine.containers.stop(call.name, signal=signal, timeout_s=timeout_s)
    return empty_answer(204)


async def restart(call: Call) -> web.StreamResponse:
    signal, timeout_s = _signal(call), call.integer("t")
    await call.engine.containers.restart(call.name, signal=signal, timeout_s=timeout_s)
    return empty_answer(204)


async def kill(call: Call) -> web.StreamResponse:
    await call.engine.containers.kill(call.name, signal=call.text("signal") or "SIGKILL")
    return empty_answer(204)


async def pause(call: Call) -> web.StreamResponse:
    await call.engine.containers.pause(call.name)
    return empty_answer(204)


async def unpause(call: Call) -> web.StreamResponse:
    await call.engine.containers.unpause(call.name)
    return empty_answer(204)


async def rename(call: Call) -> web.StreamResponse:
    await call.engine.containers.rename(call.name, call.text("name"))
    return empty_answer(204)


async def resize(call: Call) -> web.StreamResponse:
    height, width = call.size("h", "height"), call.size("w", "width")
    await call.engine.containers.resize(call.name, height=height, width=width)
    return empty_answer(200)


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.containers.remove(
        call.name, force=call.flag("force"), volumes=call.flag("v"), link=call.flag("link")
    )
    return empty_answer(204)


async def checkpoints(call: Call) -> web.StreamResponse:
    raise Unsupported(
        "This experimental feature is disabled by default. Start the Docker daemon in experimental"
        " mode in order to enable it."
    )


async def prune(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), PRUNE_FILTERS)
    return json_answer(await call.engine.containers.prune(filters))


ROUTES: Routes = {
    "GET /containers/json": list_,
    "POST /containers/create": create,
    "POST /containers/prune": prune,
    "GET /containers/{name}/json": inspect,
    "GET /containers/{name}/changes": changes,
    "GET /containers/{name}/export": export,
    "GET /containers/{name}/top": top,
    "GET /containers/{name}/stats": stats,
    "POST /containers/{name}/update": update,
    "GET /containers/{name}/logs": logs,
    "POST /containers/{name}/attach": attach,
    "GET /containers/{name}/attach/ws": attach_websocket,
    "POST /containers/{name}/wait": wait,
    "POST /containers/{name}/start": start,
    "POST /containers/{name}/stop": stop,
    "POST /containers/{name}/restart": restart,
    "POST /containers/{name}/kill": kill,
    "POST /containers/{name}/pause": pause,
    "POST /containers/{name}/unpause": unpause,
    "POST /containers/{name}/rename": rename,
    "POST /containers/{name}/resize": resize,
    "DELETE /containers/{name}": remove,
    "GET /containers/{name}/checkpoints": checkpoints,
    "POST /containers/{name}/checkpoints": checkpoints,
    "DELETE /containers/{name}/checkpoints/{id}": checkpoints,
}
