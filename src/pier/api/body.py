"""Request bodies: JSON as Go's decoder would have it.

Go reads a null as "not given"; msgspec does not, so nulls are taken out first. In the maps of the
API a null value stands for the empty value and its key counts: there it becomes `{}`, or stays
where the model says that it may be null.
"""

import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from pier.errors import InvalidParameter

T = TypeVar("T")

MAX_JSON_BYTES = 16 << 20
_MAPS_OF_OBJECTS = frozenset({"EndpointsConfig", "ExposedPorts", "Volumes"})
_MAPS_WITH_NULLS = frozenset({"PortBindings"})
_WRONG_TYPE = re.compile(r"Expected `(.+?)`, got `(.+?)`(?: - at `(?:key in )?\$\.?(.*)`)?")

_MALFORMED = re.compile(r"JSON is malformed: (.+) \(byte (\d+)\)")
# Where Go's decoder says that a character was out of place, by msgspec's words for it.
_GO_PLACES = {
    "invalid character": "looking for beginning of value",
    "object keys must be strings": "looking for beginning of object key string",
    "expected ':'": "after object key",
    "expected ',' or '}'": "after object key:value pair",
    "expected ',' or ']'": "after array element",
    "trailing comma in object": "looking for beginning of object key string",
    "trailing comma in array": "looking for beginning of value",
    "invalid number": "in numeric literal",
}

# How Go's decoder names what it found, and what it wanted.
_GO_KINDS = {"int": "number", "float": "number", "str": "string"}
_GO_TYPES = {
    "str": "string",
    "int": "int64",
    "float": "float64",
    "array": "[]string",
    "object": "map[string]string",
    "int` >= 0": "uint64",
}
# What Go calls the structs of bodies; that of a new container's is embedded, and has no name.
_GO_STRUCTS = {
    "UpdateRequest": "UpdateConfig",
    "ExecCreateRequest": "ExecOptions",
    "NetworkCreateRequest": "CreateRequest",
    "VolumeCreateRequest": "CreateOptions",
}


async def read_json(request: web.BaseRequest) -> dict[str, Any] | None:
    """Return the body's JSON object without its nulls, None when there is no body.

    Raises InvalidParameter in Docker's words: another content type, no JSON, no object.
    """
    content = await _read(request)
    if not content:
        return None
    _check_content_type(request.headers.get("Content-Type", ""))
    if content.isspace():
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParameter(_malformed(str(exc), content)) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParameter(
            f"invalid JSON: json: cannot unmarshal {_kind(value)} into an object"
        )
    return without_nulls(value)


async def read_as(request: web.BaseRequest, into: type[T], *, required: bool = False) -> T:
    """Return the body converted to a struct, which is made of defaults when there is no body.

    With `required`, a missing body is an InvalidParameter.
    """
    value = await read_json(request)
    if value is None and required:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    return convert(value or {}, into)


def convert(value: dict[str, Any], into: type[T]) -> T:
    """Convert a decoded object to a struct. Raises InvalidParameter for a value of a wrong type."""
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError as exc:
        if match := _WRONG_TYPE.fullmatch(str(exc)):
            wanted, got, path = match.groups()
            wanted = wanted.removesuffix(" | null")
            text = (
                f"json: cannot unmarshal {_GO_KINDS.get(got, got)} into Go struct field"
                f" {_GO_STRUCTS.get(into.__name__, '')}.{path} of type"
                f" {_GO_TYPES.get(wanted, wanted)}"
            )
        else:
            text = str(exc)
        raise InvalidParameter(f"invalid JSON: {text}") from None


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object without the keys whose value is null, at every depth."""
    return {key: _clean(key, item) for key, item in value.items() if item is not None}


def _clean(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if key in _MAPS_OF_OBJECTS:
            return {name: without_nulls(item or {}) for name, item in value.items()}
        if key in _MAPS_WITH_NULLS:
            return value
        return without_nulls(value)
    if isinstance(value, list):
        return [without_nulls(item) if isinstance(item, dict) else item for item in value]
    return value


def _malformed(found: str, content: bytes) -> str:
    """What Go's decoder says of what msgspec found."""
    if found == "Input data was truncated":
        return "invalid JSON: unexpected EOF"
    match = _MALFORMED.fullmatch(found)
    if match is None:
        return f"invalid JSON: {found}"
    reason, place = match[1], int(match[2])
    if reason == "trailing characters":
        return "unexpected content after JSON"
    if place >= len(content):
        return "invalid JSON: unexpected EOF"
    character = chr(content[place]).replace("'", r"\'")
    return f"invalid JSON: invalid character '{character}' {_GO_PLACES.get(reason, reason)}"


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case _:
            return "array"


def _check_content_type(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        raise InvalidParameter("malformed Content-Type header (): mime: no media type")
    if kind != "application/json":
        raise InvalidParameter(
            f"unsupported Content-Type header ({kind}): must be 'application/json'"
        )


async def _read(request: web.BaseRequest) -> bytes:
    content = request.content
    if content.at_eof():
        return b""
    parts = []
    total = 0
    while part := await content.readany():
        total += len(part)
        if total > MAX_JSON_BYTES:
            raise InvalidParameter(f"request body is larger than {MAX_JSON_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)
