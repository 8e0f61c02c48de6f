"""From a method and a path to a handler.

Every path of the API is `/noun`, `/noun/verb`, `/noun/{name}` or `/noun/{name}/verb`, with
`/vMAJOR.MINOR` before it or not. So a table does what patterns would: the whole path is looked up
first, then the path with its name cut out. Only an image's name holds slashes; the verb is what
follows the last one.
"""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

from aiohttp import web

from pier.api.answers import empty_answer
from pier.api.call import Call, Version
from pier.errors import InvalidParameter, NotFound
from pier.model.version import API_VERSION, MIN_API_VERSION

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
Routes = Mapping[str, Handler]


def parse_version(text: str) -> Version:
    """Return the (major, minor) of "1.51". Raises ValueError."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


class ClientTooOld(InvalidParameter):
    """Told in plain text: no version of the API below the oldest here knew errors as JSON."""


_NEWEST = parse_version(API_VERSION)
_OLDEST = parse_version(MIN_API_VERSION)


class Router:
    """Routes are given as "METHOD /path", with "{name}" for the variable segment."""

    def __init__(self, *tables: Routes) -> None:
        self._routes: dict[str, Handler] = {}
        for table in tables:
            for route, handler in table.items():
                assert route not in self._routes, route
                self._routes[route] = handler

    def find(self, method: str, path: str) -> tuple[Handler, Version, str]:
        """Return the handler, the API's version and the name in the path.

        Raises NotFound for a path or method that is not there, InvalidParameter for a version that
        is too old or too new, in Docker's words.
        """
        version, path = _split_version(unquote(path) if "%" in path else path)
        if method == "OPTIONS":
            return _answer_options, version, ""
        handler = self._routes.get(f"{method} {path}")
        if handler is not None:
            return handler, version, ""
        _, noun, name = [*path.split("/", 2), "", ""][:3]
        if name:
            first, _, last = name.rpartition("/")
            front, _, verb = first.rpartition("/")
            for tail in (f"{verb}/{last}", f"{verb}/{{id}}") if front else ():
                if handler := self._routes.get(f"{method} /{noun}/{{name}}/{tail}"):
                    return handler, version, front
            front, _, verb = name.rpartition("/")
            if front and (handler := self._routes.get(f"{method} /{noun}/{{name}}/{verb}")):
                return handler, version, front
            if handler := self._routes.get(f"{method} /{noun}/{{name}}"):
                return handler, version, name
        raise NotFound("page not found")


async def _answer_options(call: Call) -> web.StreamResponse:
    """Answer, whatever the path: dockerd has one such route for all."""
    return empty_answer(200)


def _split_version(path: str) -> tuple[Version, str]:
    prefix, slash, rest = path[1:].partition("/")
    if prefix[:1] != "v" or not slash:
        return _NEWEST, path
    text = prefix[1:]
    try:
        version = parse_version(text)
    except ValueError:
        return _NEWEST, path
    if version < _OLDEST:
        raise ClientTooOld(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MIN_API_VERSION}, please upgrade your client to a newer version"
        )
    if version > _NEWEST:
        raise InvalidParameter(
            f"client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )
    return version, "/" + rest
