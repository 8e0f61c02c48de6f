"""A blob that has no file: the tar of a layer, assembled while it is sent, whole or a range of it.

RFC 9110, sections 13 and 14, as far as aiohttp does it for files: one range, If-None-Match, If-Range.
"""

from collections.abc import Mapping
from typing import BinaryIO

from aiohttp import hdrs, web

from pier.registry.server.service import Call

_PIECE = 1 << 20


async def send_assembled(
    call: Call, file: BinaryIO, size: int, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer GET or HEAD; `file` stays the caller's."""
    request = call.request
    tag = f'"{call.reference}"'
    headers = {**headers, hdrs.ETAG: tag, hdrs.ACCEPT_RANGES: "bytes"}
    if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    try:
        start, stop = _range(request, tag, size)
    except ValueError:
        return web.Response(status=416, headers={hdrs.CONTENT_RANGE: f"bytes */{size}"})
    response = web.StreamResponse(status=200 if stop - start == size else 206, headers=headers)
    response.content_length = stop - start
    if response.status == 206:
        response.headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{size}"
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    if start:
        await call.service.start(file.seek, start)
    left = stop - start
    while left:
        # Fewer bytes than were promised break the answer off: nobody takes it for the blob.
        piece = await call.service.start(file.read, min(left, _PIECE))
        await response.write(piece)
        left -= len(piece)
    await response.write_eof()
    return response


def _range(request: web.Request, tag: str, size: int) -> tuple[int, int]:
    """Return from where to where is asked for. Raises ValueError for what is not there."""
    if request.headers.get(hdrs.IF_RANGE, tag) != tag:
        return 0, size
    wanted = request.http_range
    start, stop, _ = slice(wanted.start, wanted.stop).indices(size)
    if start >= stop and wanted.start is not None:
        raise ValueError(f"bytes {start}-{stop} of {size}")
    return start, stop
