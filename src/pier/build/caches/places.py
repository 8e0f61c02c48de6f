"""Where a cache is kept: a repository of a registry, or a directory with an OCI image layout.

A directory is one of the machine that pierd runs on, unless the client lends its own (`Lender`).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import msgspec

from pier.errors import InvalidParameter, NotFound
from pier.model.digest import Digest, algorithm_of, digest_of, hex_of
from pier.model.oci import INDEXES, OCI_INDEX, Descriptor, decode_index
from pier.registry.repository import Repository
from pier.registry.upload import LocalLayer, Uploader
from pier.storage.blobs import Blobs

REF_NAME = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20


class Place(Protocol):
    """Whatever keeps a cache; errors are PierError, OSError."""

    async def manifest(self, digest: str = "") -> tuple[str, bytes]:
        """Return media type and bytes of what it has: the top, or what that names.

        Raises NotFound, RegistryError.
        """
        ...

    async def small(self, digest: str, limit: int) -> bytes:
        """Return a small blob. Whoever uses it compares the digest."""
        ...

    def blob(self, digest: str) -> AsyncIterator[bytes]:
        """Return a blob in pieces."""
        ...

    async def put_layer(self, diff_id: str, descriptor: Descriptor) -> None:
        """Bring a blob of the store there."""
        ...

    async def put_small(self, data: bytes) -> None:
        """Bring a document there."""
        ...

    async def put_top(self, media_type: str, data: bytes) -> None:
        """Bring the manifest there, under its name: the last thing."""
        ...


@runtime_checkable
class Lender(Protocol):
    """A client whose directories can be reached: a session of BuildKit's."""

    def cache_place(self, path: str, top: str, blobs: Blobs) -> Place:
        """`path` is the client's; `top` the digest of what is read there, "" to write."""
        ...

    def image_place(self, store: str, top: str, blobs: Blobs) -> Place:
        """An OCI image layout by what the client calls it; `top` is the digest of what is read."""
        ...

    def layout_place(self, blobs: Blobs) -> Place:
        """Where the client wants an OCI image layout (`tar=false`); it keeps the names itself."""
        ...


class RegistryPlace:
    """A tag of a repository. `uploader` is None for one that is only read."""

    def __init__(
        self, repository: Repository, reference: str, uploader: Uploader | None = None
    ) -> None:
        self._repository = repository
        self._reference = reference
        self._uploader = uploader

    async def manifest(self, digest: str = "") -> tuple[str, bytes]:
        found = await self._repository.manifest(digest or self._reference)
        return found.media_type, found.data

    async def small(self, digest: str, limit: int) -> bytes:
        return await self._repository.small_blob(digest, limit)

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        async with self._repository.blob(digest) as response:
            async for piece in response.content.iter_chunked(_PIECE):
                yield piece

    async def put_layer(self, diff_id: str, descriptor: Descriptor) -> None:
        assert self._uploader is not None
        blob = Digest(descriptor.digest)
        await self._uploader.exact(LocalLayer(diff_id, blob, descriptor.mediaType, descriptor.size))

    async def put_small(self, data: bytes) -> None:
        assert self._uploader is not None
        await self._uploader.small(digest_of(data), data)

    async def put_top(self, media_type: str, data: bytes) -> None:
        await self._repository.put_manifest(self._reference, media_type, data)


class DirectoryPlace:
    """A directory: `blobs/`, `index.json` with an entry a tag, `oci-layout` (image-layout.md).

    Files appear by rename, so that who reads meanwhile sees the old or the new cache.
    """

    def __init__(self, path: str, tag: str, blobs: Blobs) -> None:
        if not os.path.isabs(path):
            raise InvalidParameter(f"the path of a local cache must be absolute: {path}")
        self._path = path
        self._tag = tag
        self._blobs = blobs

    async def manifest(self, digest: str = "") -> tuple[str, bytes]:
        index = self._index()
        if digest:
            return "", self._read(digest)
        for entry in index:
            if entry.annotations.get(REF_NAME, "latest") == self._tag:
                return entry.mediaType, self._read(entry.digest)
        raise NotFound(f"no build cache {self._tag} in {self._path}")

    async def small(self, digest: str, limit: int) -> bytes:
        data = self._read(digest)
        if len(data) > limit:
            raise InvalidParameter(f"content {digest} is larger than {limit} bytes")
        return data

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(open, self._file(digest), "rb", 0)
        with file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    async def put_layer(self, diff_id: str, descriptor: Descriptor) -> None:
        await asyncio.to_thread(self._copy, descriptor.digest)

    def _copy(self, digest: str) -> None:
        target = self._file(digest)
        if os.path.exists(target):
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with self._blobs.open(Digest(digest)) as source:
            temporary = f"{target}.{os.getpid()}.part"
            with open(temporary, "wb") as file:
                while piece := source.read(_PIECE):
                    file.write(piece)
        os.rename(temporary, target)

    async def put_small(self, data: bytes) -> None:
        self._write(self._file(digest_of(data)), data)

    async def put_top(self, media_type: str, data: bytes) -> None:
        await self.put_small(data)
        own = Descriptor(media_type, digest_of(data), len(data), annotations={REF_NAME: self._tag})
        others = [e for e in self._index() if e.annotations.get(REF_NAME, "latest") != self._tag]
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [*others, own],
        }
        self._write(os.path.join(self._path, "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
        self._write(os.path.join(self._path, "index.json"), msgspec.json.encode(index))

    def _index(self) -> list[Descriptor]:
        try:
            with open(os.path.join(self._path, "index.json"), "rb") as file:
                return decode_index(file.read()).manifests
        except FileNotFoundError:
            return []

    def _file(self, digest: str) -> str:
        name = Digest(digest)
        return os.path.join(self._path, "blobs", algorithm_of(name), hex_of(name))

    def _read(self, digest: str) -> bytes:
        try:
            with open(self._file(digest), "rb") as file:
                return file.read()
        except FileNotFoundError as exc:
            raise NotFound(f"content {digest}: not found") from exc

    def _write(self, path: str, data: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}.part"
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, path)


def is_index(media_type: str, data: bytes) -> bool:
    """Tell an index from a manifest, also where nobody says which it is."""
    if media_type:
        return media_type in INDEXES
    return "manifests" in msgspec.json.decode(data, type=dict[str, object])
