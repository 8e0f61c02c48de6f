"""The Engine API's OpenAPI document, and whether an answer is what it says.

The document is YAML, which /usr/bin/python3 reads with Debian's python3-yaml: the tests' own
environment needs no parser for it. Swagger 2.0: `x-nullable` says where null may stand.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPECS = os.path.join(os.path.dirname(ROOT), "shared", "specs")
# Up to API 1.51 answers are as the one says, later ones as the other does.
VERSIONS = ("1.51", "1.55")
_TO_JSON = (
    "import json, sys, yaml;"
    "print(json.dumps(yaml.load(open(sys.argv[1]), yaml.CSafeLoader), default=str))"
)
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def why_not() -> str:
    """Say why there is nothing to check against; "" when there is."""
    if not all(os.path.exists(_path(version)) for version in VERSIONS):
        return "no ../shared/specs with the OpenAPI document"
    found = subprocess.run(
        ["/usr/bin/python3", "-c", "import yaml"], capture_output=True, check=False
    )
    return "" if found.returncode == 0 else "python3-yaml is not installed"


def _path(version: str) -> str:
    return os.path.join(SPECS, f"docker-engine-api-v{version}.yaml")


class Specifications:
    """Both documents; a request's version says which it is held against."""

    def __init__(self) -> None:
        self._old, self._new = (Specification(_path(version)) for version in VERSIONS)

    def check(self, method: str, path: str, status: int, body: bytes) -> Iterator[str]:
        """Yield what is wrong with an answer: "GET /x 200 .Field: why"."""
        version = re.match(r"/v1\.(\d+)/", path)
        is_old = version is not None and int(version[1]) <= 51
        yield from (self._old if is_old else self._new).check(method, path, status, body)


class Specification:
    def __init__(self, path: str) -> None:
        done = subprocess.run(
            ["/usr/bin/python3", "-c", _TO_JSON, path], check=True, capture_output=True
        )
        self._document: dict[str, Any] = json.loads(done.stdout)
        self._routes = [
            (template, re.compile(_pattern(template)), operations)
            for template, operations in self._document["paths"].items()
        ]

    def check(self, method: str, path: str, status: int, body: bytes) -> Iterator[str]:
        """Yield what is wrong with an answer: "GET /x 200 .Field: why"."""
        found = self._operation(method, path)
        if found is None:
            return
        template, operation = found
        where = f"{method} {template} {status}"
        answer = operation["responses"].get(str(status))
        if answer is None and 400 <= status < 500:
            # The document lists few of them. Whatever the reason, the body is an error's.
            answer = {"schema": {"$ref": "#/definitions/ErrorResponse"}}
        if answer is None:
            yield f"{where}: this status is not in the document"
            return
        schema = answer.get("schema")
        if schema is None:
            return
        for value in _documents(body):
            for pointer, problem in self._problems(schema, value, ""):
                yield f"{where} {pointer or '.'}: {problem}"

    def _operation(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        bare = re.sub(r"^/v1\.\d+(?=/)", "", path.partition("?")[0])
        for template, pattern, operations in self._routes:
            if pattern.fullmatch(bare) and method.lower() in operations:
                return template, operations[method.lower()]
        return None

    def _problems(
        self, schema: dict[str, Any], value: Any, pointer: str
    ) -> Iterator[tuple[str, str]]:
        if value is None and schema.get("x-nullable"):
            return
        for part in self._parts(schema):
            yield from self._problems(part, value, pointer)
        kind = schema.get("type")
        if value is None:
            if kind is not None:
                yield pointer, f"null instead of {kind}"
            return
        if kind in _TYPES and not _is_a(value, kind):
            yield pointer, f"{type(value).__name__} instead of {kind}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield pointer, f"{value!r} is not one of {schema['enum']}"
        if isinstance(value, dict):
            yield from self._in_object(schema, value, pointer)
        elif isinstance(value, list):
            for item in value:
                yield from self._problems(schema.get("items", {}), item, f"{pointer}[]")

    def _parts(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The schemas that one refers to, all of which have to fit as well."""
        if "$ref" in schema:
            yield self._document["definitions"][schema["$ref"].rpartition("/")[2]]
        yield from schema.get("allOf", ())

    def _in_object(
        self, schema: dict[str, Any], value: dict[str, Any], pointer: str
    ) -> Iterator[tuple[str, str]]:
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{pointer}.{name}", "missing"
        more = schema.get("additionalProperties")
        for name, item in value.items():
            if name in properties:
                yield from self._problems(properties[name], item, f"{pointer}.{name}")
            elif isinstance(more, dict):
                yield from self._problems(more, item, f"{pointer}.*")


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _documents(body: bytes) -> Iterator[Any]:
    """The JSON document of a body, or its lines; a stream may have been cut in the last one."""
    try:
        yield json.loads(body)
    except ValueError:
        *lines, _ = body.split(b"\n")
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _pattern(template: str) -> str:
    """Names of images have slashes; nothing else has."""
    escaped = re.escape(template)
    anything = ".+" if "images" in template else "[^/]+"
    return re.sub(r"\\\{\w+\\\}", anything, escaped)
