"""One repository of a registry: the calls of the distribution specification, 1.1."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlencode, urljoin

import aiohttp
import msgspec
from msgspec import Struct

from pier.errors import InvalidParameter
from pier.model.digest import Digest, algorithm_of, finish, new_hash, parse_digest
from pier.model.oci import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
)
from pier.registry.auth import read_limited
from pier.registry.client import Link
from pier.registry.errors import Refused, RegistryError
from pier.registry.transport import Body

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
# Schema 1 is not asked for: a registry that has nothing else sends it anyway, to be refused.
ACCEPT = f"{DOCKER_MANIFEST}, {DOCKER_INDEX}, {OCI_INDEX}, {OCI_MANIFEST}, application/json;q=0.5"
MAX_TAG_PAGES = 10_000

_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\"?")


class RemoteManifest(Struct, frozen=True):
    """A manifest or index as it was received, its digest computed and compared."""

    media_type: str
    digest: Digest
    data: bytes


class Upload(Struct, frozen=True):
    """Where a blob may be sent; `mounted` means that it need not be."""

    location: str
    mounted: bool = False


class _Tags(Struct):
    tags: list[str] | None = None


class Repository:
    """`path` is the repository's without its domain: `library/busybox`."""

    def __init__(self, link: Link, path: str) -> None:
        self.link = link
        self.path = path
        self._pull = (f"repository:{path}:pull",)
        self._push = (f"repository:{path}:pull,push",)

    async def resolve(
        self, reference: str, *, push: bool = False
    ) -> tuple[Digest | None, str, int]:
        """Ask for the digest, media type and size of a tag's manifest by HEAD, which counts for no limit.

        The digest is None when the registry does not say. Raises Refused, whose code is unknown.
        """
        async with self.link.request(
            "HEAD",
            self._url(f"manifests/{reference}"),
            scopes=self._push if push else self._pull,
            headers={"Accept": ACCEPT},
        ) as response:
            kind = _media_type(response)
            size = int(response.headers.get("Content-Length", "0"))
            try:
                digest = parse_digest(response.headers.get("Docker-Content-Digest", ""))
            except InvalidParameter:
                return None, kind, size
            return digest, kind, size

    async def manifest(self, reference: str) -> RemoteManifest:
        """Get a manifest by tag or digest. Raises RegistryError when it is not what the digest says."""
        async with self.link.request(
            "GET",
            self._url(f"manifests/{reference}"),
            scopes=self._pull,
            headers={"Accept": ACCEPT},
        ) as response:
            data = await read_limited(response, MAX_MANIFEST)
            kind = _media_type(response)
        wanted = reference if ":" in reference else ""
        algorithm = algorithm_of(Digest(wanted)) if wanted else "sha256"
        hasher = new_hash(algorithm)
        hasher.update(data)
        digest = finish(algorithm, hasher)
        if wanted and digest != wanted:
            raise RegistryError(f"manifest verification failed for digest {wanted}")
        return RemoteManifest(kind or _sniff(data), digest, data)

    async def tags(self) -> list[str]:
        """List every tag, page by page."""
        url = self._url("tags/list")
        found: list[str] = []
        for _ in range(MAX_TAG_PAGES):
            async with self.link.request("GET", url, scopes=self._pull) as response:
                data = await read_limited(response, MAX_MANIFEST)
                following = _NEXT.search(response.headers.get("Link", ""))
            try:
                found += msgspec.json.decode(data, type=_Tags).tags or []
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                raise RegistryError(f"invalid list of tags: {exc}") from exc
            if following is None:
                break
            url = urljoin(url, following[1])
        return found

    @asynccontextmanager
    async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[aiohttp.ClientResponse]:
        """Get a blob, from `offset` on if the registry can: status 206 then, 200 if it cannot."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.link.request(
            "GET",
            self._url(f"blobs/{digest}"),
            scopes=self._pull,
            headers=headers,
            expect=(200, 206) if offset else (200,),
        ) as response:
            yield response

    async def small_blob(self, digest: str, limit: int) -> bytes:
        """Get a small blob whole; whoever stores it compares its digest."""
        async with self.blob(digest) as response:
            return await read_limited(response, limit)

    async def has_blob(self, digest: str) -> bool:
        """Ask for a blob by HEAD, with the rights to push."""
        try:
            async with self.link.request("HEAD", self._url(f"blobs/{digest}"), scopes=self._push):
                return True
        except Refused as exc:
            if exc.status == 404:
                return False
            raise

    async def start_upload(self, digest: str = "", mount_from: str = "") -> Upload:
        """Begin an upload, or mount the blob from another repository of this registry."""
        scopes: tuple[str, ...] = self._push
        query = ""
        if mount_from:
            scopes = (*scopes, f"repository:{mount_from}:pull")
            query = "?" + urlencode({"mount": digest, "from": mount_from})
        url = self._url("blobs/uploads/") + query
        async with self.link.request("POST", url, scopes=scopes, expect=(201, 202)) as response:
            if response.status == 201:
                return Upload("", mounted=True)
            return Upload(_location(url, response))

    async def send_chunk(self, location: str, body: Body) -> str:
        """Send data of unknown length to an upload; return where it goes on."""
        async with self.link.request(
            "PATCH",
            location,
            scopes=self._push,
            headers={"Content-Type": "application/octet-stream"},
            body=body,
            expect=(202, 204),
        ) as response:
            return _location(location, response)

    async def finish_upload(self, location: str, digest: str, body: Body, size: int) -> None:
        """End an upload, with all or the rest of its data: `size` bytes."""
        mark = "&" if "?" in location else "?"
        async with self.link.request(
            "PUT",
            f"{location}{mark}{urlencode({'digest': digest})}",
            scopes=self._push,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
            },
            body=body,
            expect=(201, 204),
        ):
            pass

    async def cancel_upload(self, location: str) -> None:
        async with self.link.request(
            "DELETE", location, scopes=self._push, expect=(202, 204, 404, 405)
        ):
            pass

    async def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        async with self.link.request(
            "PUT",
            self._url(f"manifests/{reference}"),
            scopes=self._push,
            headers={"Content-Type": media_type},
            body=data,
            expect=(200, 201, 202),
        ):
            pass

    def _url(self, rest: str) -> str:
        return self.link.url(f"{quote(self.path)}/{rest}")


def _location(url: str, response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise RegistryError(f"upload at {url}: the registry named no location")
    return urljoin(url, location)


def _media_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _sniff(data: bytes) -> str:
    """Read a manifest's media type out of itself, for registries that do not send it."""
    try:
        found = msgspec.json.decode(data, type=dict[str, object]).get("mediaType", "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""
