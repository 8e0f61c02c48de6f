"""Answers that are complete when they are made: JSON, plain text, or a status alone."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from pier.api.errors import ErrorBody, message_of, status_of
from pier.model.version import API_VERSION, ENGINE_VERSION

HEADERS = {
    "Api-Version": API_VERSION,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Docker/{ENGINE_VERSION} (linux)",
}
_JSON_HEADERS = HEADERS | {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder().encode


def json_answer(value: Any, status: int = 200) -> web.Response:
    """Return `value` (structs, containers and scalars) as JSON, ended by a newline as by Docker."""
    return web.Response(status=status, headers=_JSON_HEADERS, body=_encode(value) + b"\n")


def text_answer(text: str, headers: Mapping[str, str], status: int = 200) -> web.Response:
    """Return a plain text with more headers than the usual ones."""
    all_headers = {**HEADERS, "Content-Type": "text/plain; charset=utf-8", **headers}
    return web.Response(status=status, headers=all_headers, body=text.encode())


def empty_answer(status: int) -> web.Response:
    """Return a status without a body."""
    return web.Response(status=status, headers=HEADERS)


def error_answer(exc: Exception) -> web.Response:
    """Return an exception as Docker's error body with the status of its class."""
    status = status_of(exc)
    return empty_answer(304) if status == 304 else json_answer(ErrorBody(message_of(exc)), status)
