"""Blobs: pulling, whole or in part, and deleting. distribution-spec, "Pulling blobs"."""

from aiohttp import web

from pier.errors import NotFound
from pier.registry.server.assembled_blob import send_assembled
from pier.registry.server.paths import check_digest
from pier.registry.server.refusal import Refusal
from pier.registry.server.service import Call


async def get_blob(call: Call) -> web.StreamResponse:
    """GET and HEAD. The kernel sends the file (sendfile(2)); aiohttp does ranges and conditions.

    An engine may have layers without a file: see `assembled_blob`.
    """
    digest = check_digest(call.reference)
    store = call.service.shelf
    if not (store.catalog.has_blob(call.name, digest) and store.has_bytes(digest)):
        raise Refusal("BLOB_UNKNOWN", {"digest": digest})
    headers = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "Cache-Control": "max-age=31536000",
    }
    path = store.blob_path(digest)
    if path:
        response = web.FileResponse(path, chunk_size=1 << 20)
        response.headers.update(headers)
        return response
    try:
        with store.reading(digest) as (file, size):
            return await send_assembled(call, file, size, headers)
    except NotFound as exc:
        raise Refusal("BLOB_UNKNOWN", {"digest": digest}) from exc


async def delete_blob(call: Call) -> web.StreamResponse:
    """Unlink it from the repository; the bytes go when no repository has them."""
    digest = check_digest(call.reference)
    store = call.service.store
    if not await call.service.start(store.catalog.unlink, call.name, digest):
        raise Refusal("BLOB_UNKNOWN", {"digest": digest})
    return web.Response(status=202)
