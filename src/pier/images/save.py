"""`docker save`: images become an archive that is a docker-archive and an OCI image layout at once.

    blobs/sha256/<hex>   configs, manifests, indexes, layers as they were received; each once
    index.json           a descriptor for each name (image-layout.md), annotated with it
    manifest.json        [{"Config": path, "RepoTags": […], "Layers": [path, …], …}, …]
    oci-layout           {"imageLayoutVersion": "1.0.0"}
    repositories         {"name": {"tag": hex of the top layer}}, for what was written before 2016

As dockerd has written it since 25, but that blobs are the very bytes that were received: digests of
manifests stay, and nothing is compressed or packed again. Nothing of today is written either: the
same images give the same archive.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
from msgspec import Struct

from pier.errors import NotFound
from pier.images.image import Image
from pier.images.manifests import encode_manifest, make_manifest
from pier.images.said_of import attestation_blobs
from pier.images.store import ImageStore
from pier.model.digest import Digest, digest_of, hex_of
from pier.model.oci import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    decode_index,
    decode_manifest,
)
from pier.model.platform import Platform
from pier.model.reference import Reference, parse_any
from pier.storage.pack import CHUNK, joined
from pier.storage.tar.members import directory_member, file_head, file_member
from pier.storage.tar.writer import END, padding

CONTAINERD_NAME = "io.containerd.image.name"
OCI_REF_NAME = "org.opencontainers.image.ref.name"


class _Saved(Struct):
    """An image of the archive: what names it, its manifest's bytes, the blobs to be copied."""

    image: Image
    manifest: Manifest
    descriptor: Descriptor
    references: list[Reference]


class Saving:
    """An archive that is about to be written. Content is held on to until it is closed."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._stack = ExitStack()
        self._pins = self._stack.enter_context(store.pinned())
        self._made: dict[Digest, bytes] = {}
        self._copied: dict[Digest, int] = {}
        self._saved: dict[str, _Saved] = {}
        self._tops: list[Descriptor] = []
        self.images: list[Image] = []

    def close(self) -> None:
        self._stack.close()

    def add(self, ref: str, platforms: Sequence[Platform] = ()) -> None:
        """Take in what `ref` means: one name, all tags of a repository, or an image by its ID.

        An image that came by an index brings along all of its platforms that are here, or those
        of `platforms`; a single one stands alone. Raises NotFound, InvalidParameter.
        """
        for image, reference in self._meant(ref):
            found = [self._store.get(image.id, platform) for platform in platforms]
            chosen = found[0] if found else image
            saved = self._add_image(chosen)
            self.images.append(chosen)
            if reference is not None and reference not in saved.references:
                saved.references.append(reference)
            top = saved.descriptor
            if chosen.index and len(platforms) != 1:
                for other in found or self._store.platforms_of(chosen):
                    self._add_image(other)
                top = self._index(Digest(chosen.index))
            self._tops.append(_annotated(top, reference))

    def chunks(self) -> Iterator[bytes]:
        """Yield the tar; close this afterwards. Raises OSError."""
        return joined(self._members())

    def _meant(self, ref: str) -> list[tuple[Image, Reference | None]]:
        parsed = parse_any(ref)
        if isinstance(parsed, str):
            return [(self._store.get(ref), None)]
        if not parsed.tag and not parsed.digest:
            tags = self._store.tags_of(parsed)
            if tags:
                return [(image, reference) for reference, image in tags]
        try:
            image = self._store.get(ref)
        except NotFound:
            raise NotFound(f"No such image: {ref}") from None
        named = self._store.owner_of(parsed.tagged())
        is_name = named is not None and named.id == image.id and not parsed.digest
        return [(image, parsed.tagged() if is_name else None)]

    def _add_image(self, image: Image) -> _Saved:
        if image.id in self._saved:
            return self._saved[image.id]
        self._pins.add(*image.blobs, *image.chain_ids)
        if image.manifest:
            digest = Digest(image.manifest)
            data = self._store.blobs.read(digest)
            self._made[digest] = data
            manifest = decode_manifest(data)
        else:
            self._store.hold_layers(self._pins, image)
            manifest = make_manifest(self._store, image)
            data = encode_manifest(manifest)
            digest = digest_of(data)
            self._made[digest] = data
        beside = (
            attestation_blobs(self._store.blobs, Digest(image.index), image.manifest)
            if image.index and image.manifest
            else ()
        )
        for blob in (*(Digest(p.digest) for p in (manifest.config, *manifest.layers)), *beside):
            self._pins.add(blob)
            self._copied[blob] = self._store.blobs.size(blob)
        descriptor = Descriptor(
            mediaType=manifest.mediaType or OCI_MANIFEST, digest=digest, size=len(data)
        )
        self._saved[image.id] = _Saved(image, manifest, descriptor, [])
        return self._saved[image.id]

    def _index(self, digest: Digest) -> Descriptor:
        data = self._store.blobs.read(digest)
        self._made[digest] = data
        media_type = decode_index(data).mediaType or OCI_INDEX
        return Descriptor(mediaType=media_type, digest=digest, size=len(data))

    def _members(self) -> Iterator[bytes]:
        yield directory_member(b"blobs/")
        yield directory_member(b"blobs/sha256/")
        for digest in sorted({*self._made, *self._copied}):
            path = _path(digest).encode()
            if digest in self._made:
                yield from file_member(path, self._made[digest])
            else:
                yield from self._blob(path, digest)
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": msgspec.to_builtins(self._tops),
        }
        yield from file_member(b"index.json", msgspec.json.encode(index))
        yield from file_member(b"manifest.json", msgspec.json.encode(self._items()))
        yield from file_member(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        if repositories := self._repositories():
            yield from file_member(b"repositories", msgspec.json.encode(repositories) + b"\n")
        yield END

    def _blob(self, path: bytes, digest: Digest) -> Iterator[bytes]:
        size = self._copied[digest]
        yield file_head(path, size)
        with self._store.blobs.open(digest) as file:
            while data := file.read(CHUNK):
                size -= len(data)
                yield data
        if size:
            raise OSError(f"content {digest}: {size} bytes are missing")
        yield padding(self._copied[digest])

    def _items(self) -> list[dict[str, Any]]:
        """The images of manifest.json: those asked for, not what came along for other platforms."""
        asked = {image.id for image in self.images}
        items: list[dict[str, Any]] = []
        for saved in self._saved.values():
            if saved.image.id not in asked:
                continue
            diff_ids = saved.image.config.rootfs.diff_ids
            layers = saved.manifest.layers
            items.append(
                {
                    "Config": _path(saved.image.id),
                    "RepoTags": [r.familiar for r in saved.references] or None,
                    "Layers": [_path(layer.digest) for layer in layers],
                    **({"Parent": saved.image.parent} if saved.image.parent in asked else {}),
                    "LayerSources": {
                        diff_id: {
                            "mediaType": layer.mediaType,
                            "size": layer.size,
                            "digest": layer.digest,
                        }
                        for diff_id, layer in zip(diff_ids, layers, strict=False)
                    },
                }
            )
        return items

    def _repositories(self) -> dict[str, dict[str, str]]:
        names: dict[str, dict[str, str]] = {}
        for saved in self._saved.values():
            for reference in saved.references:
                if saved.manifest.layers:
                    top = Digest(saved.manifest.layers[-1].digest)
                    names.setdefault(reference.familiar_name, {})[reference.tag] = hex_of(top)
        return names


def start_saving(
    store: ImageStore, refs: Sequence[str], platforms: Sequence[Platform] = ()
) -> Saving:
    """Find all images and hold on to them. The caller closes it. Raises NotFound."""
    saving = Saving(store)
    try:
        for ref in refs:
            saving.add(ref, platforms)
    except BaseException:
        saving.close()
        raise
    return saving


def _annotated(descriptor: Descriptor, reference: Reference | None) -> Descriptor:
    if reference is None:
        return descriptor
    return msgspec.structs.replace(
        descriptor, annotations={CONTAINERD_NAME: str(reference), OCI_REF_NAME: reference.tag}
    )


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)
