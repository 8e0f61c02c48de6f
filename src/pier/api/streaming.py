"""Answers that are sent as they come to be: log streams, events, progress, the end of a wait.

The head goes out at once, since clients wait for it before they do the next thing (`docker run`
starts the container when the head of `wait` has arrived). After that the status is gone: a failure
is a record in the stream where the stream has records, and a broken connection where it has not.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from pier.api.answers import HEADERS
from pier.api.call import Call
from pier.api.errors import error_line

log = logging.getLogger(__name__)

JSON = "application/json"
JSON_LINES = "application/jsonl"
ND_JSON = "application/x-ndjson"
JSON_SEQUENCE = "application/json-seq"
TAR = "application/x-tar"
BINARY = "application/octet-stream"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"


def stream_type(call: Call, *, tty: bool) -> str:
    """Return the content type of a log stream: the multiplexed one has a name since API 1.42."""
    return RAW_STREAM if tty or call.version < (1, 42) else MULTIPLEXED_STREAM


async def begin(
    call: Call, content_type: str, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send the head of a chunked answer, with `more` headers than the usual ones."""
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": content_type, **(more or {})})
    await response.prepare(call.request)
    return response


async def send_bytes(
    call: Call,
    content_type: str,
    parts: AsyncIterator[bytes],
    more: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send what `parts` yields, until it ends or the client goes away; `more` are headers."""
    with call.connection.stream():
        response = await begin(call, content_type, more)
        try:
            async for part in parts:
                await response.write(part)
        except ConnectionError:
            raise
        except Exception as exc:
            # No record can say it, and a proper end of the chunks would say all is well.
            log.exception("%s broke off", call.request.path)
            raise ConnectionResetError("stream broke off") from exc
        finally:
            await _close(parts)
        await response.write_eof()
    return response


async def _close(parts: AsyncIterator[Any]) -> None:
    """End a generator now: what it holds (a subscription, a file) is not left to the collector."""
    if isinstance(parts, AsyncGenerator):
        await parts.aclose()


async def send_progress(call: Call, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send progress lines to their end; a failure becomes the last line.

    What makes progress goes on when the client goes away, as far as it does not need the client.
    The head goes out with the first line, as Docker's does: clients that look at it alone (Docker's
    own tests load images so, quietly) take it for the end of the work, and close the connection.
    """
    response: web.StreamResponse | None = None
    try:
        async for line in lines:
            response = response or await begin(call, JSON)
            await response.write(line)
    except ConnectionError:
        raise
    except Exception as exc:  # noqa: BLE001 - the status has always been 200 here
        log.info("%s failed: %s", call.request.path, exc)
        response = response or await begin(call, JSON)
        await response.write(error_line(exc))
    response = response or await begin(call, JSON)
    await response.write_eof()
    return response


async def send_transfer(call: Call, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send progress lines; what makes them ends when the client goes away.

    The head goes out with the first line: a failure before it has a status of its own.
    """
    response: web.StreamResponse | None = None
    with call.connection.stream():
        try:
            async for line in lines:
                if response is None:
                    response = await begin(call, JSON)
                await response.write(line)
        except ConnectionError:
            raise
        except Exception as exc:
            log.info("%s failed: %s", call.request.path, exc)
            if response is None:
                raise
            await response.write(error_line(exc))
        finally:
            await _close(lines)
        if response is None:
            response = await begin(call, JSON)
        await response.write_eof()
    return response


async def send_values(
    call: Call,
    values: AsyncIterator[Any],
    shown: Callable[[Any], Any] = lambda value: value,
    content_type: str = JSON,
) -> web.StreamResponse:
    """Send each value, as `shown` makes it, as a line of JSON, until they end or the client goes.

    With the content type of JSON text sequences each has RFC 7464's separator before it.
    """
    encode = msgspec.json.Encoder().encode
    before = b"\x1e" if content_type == JSON_SEQUENCE else b""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for value in values:
                yield before + encode(shown(value)) + b"\n"
        finally:
            await _close(values)

    return await send_bytes(call, content_type, lines())


async def send_result(call: Call, result: Awaitable[Any]) -> web.StreamResponse:
    """Send the head now and the awaited value as JSON when it is there."""
    with call.connection.stream():
        response = await begin(call, JSON)
        await response.write(msgspec.json.encode(await result) + b"\n")
        await response.write_eof()
    return response
