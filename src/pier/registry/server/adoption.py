"""A pushed manifest becomes an image of the engine: its blobs are linked, its layers unpacked.

    read   documents alone: is it an image, or an index of images, whole and of these systems?
    judge  layers are unpacked into staging/; are they what the configs speak of?
    take   each image gets its place, in one transaction

What fails to be an image in the first two steps is no error: a registry takes anything.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from msgspec import Struct

from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource, Received
from pier.images.said_of import is_attestation
from pier.images.store import ImageStore
from pier.images.stored import StoredBlob
from pier.model.digest import Digest
from pier.model.oci import (
    CONFIGS,
    INDEXES,
    MANIFESTS,
    MAX_CONFIG,
    ImageConfig,
    Manifest,
    chain_ids,
    decode_config,
    decode_index,
    decode_manifest,
)
from pier.model.reference import Reference
from pier.storage.sync import link_durably

# Path of a blob that was pushed, or of one that the engine has. Raises NotFound.
Find = Callable[[Digest], str]


class _Part(Struct, frozen=True):
    """An image manifest, or an attestation's, which has no `image`."""

    digest: Digest
    manifest: Manifest
    image: ImageConfig | None

    @property
    def blobs(self) -> list[Digest]:
        return [Digest(d.digest) for d in (self.manifest.config, *self.manifest.layers)]


class PushedBlob:
    """`images.intake.Received`: a file of the registry's that gets a name in the engine's store."""

    def __init__(self, images: ImageStore, digest: Digest, path: str) -> None:
        self._images = images
        self.digest = digest
        self._path = path
        self.size = os.stat(path).st_size

    def reader(self) -> BinaryIO:
        return open(self._path, "rb", buffering=0)

    def head(self, size: int) -> bytes:
        with self.reader() as file:
            return file.read(size)

    def commit(self, *, durable: bool = True) -> Digest:
        link_durably(self._path, self._images.blobs.path(self.digest))
        return self.digest

    def spare(self) -> None:
        """The registry has use for it."""

    def abort(self) -> None:
        """The registry's name of it is the registry's."""


def adopt(
    images: ImageStore,
    find: Find,
    data: bytes,
    *,
    digest: Digest,
    media_type: str,
    references: Sequence[Reference],
) -> list[Image]:
    """Make images of a manifest or an index, called so; none of what the engine cannot have.

    Blocks. Raises Internal for a full disk; then nothing is left behind.
    """
    try:
        parts = list(_read(find, data, digest, media_type))
    except (InvalidParameter, NotFound):
        return []
    pictures = [part for part in parts if part.image is not None]
    if not pictures or len({part.manifest.config.digest for part in pictures}) < len(pictures):
        return []
    index = digest if media_type in INDEXES else None
    with Intake(images) as intake:
        try:
            _judge(images, intake, find, parts)
        except (InvalidParameter, NotFound):
            return []
        intake.add([data])
        for part in parts:
            if part.digest not in intake:
                intake.keep(_blob(images, find, part.digest))
        return [
            intake.register(
                Digest(part.manifest.config.digest),
                [LayerSource(Digest(d.digest), d.mediaType) for d in part.manifest.layers],
                references=references,
                manifest=part.digest,
                index=index,
            )
            for part in pictures
        ]


def _read(find: Find, data: bytes, digest: Digest, media_type: str) -> Iterator[_Part]:
    """Yield the manifests of it. Raises InvalidParameter, NotFound for what is no image."""
    if not digest.startswith("sha256:"):
        raise InvalidParameter("the engine keeps its documents by sha256")
    if media_type in INDEXES:
        for entry in decode_index(data).manifests:
            if entry.mediaType not in MANIFESTS:
                raise InvalidParameter(f"{entry.mediaType} is no image")
            child = Digest(entry.digest)
            yield _part(find, child, _bytes(find, child), said=is_attestation(entry))
    elif media_type in MANIFESTS:
        yield _part(find, digest, data, said=False)
    else:
        raise InvalidParameter(f"{media_type} is no image")


def _part(find: Find, digest: Digest, data: bytes, *, said: bool) -> _Part:
    manifest = decode_manifest(data)
    named = (manifest.config, *manifest.layers)
    if not all(d.digest.startswith("sha256:") for d in named):
        raise InvalidParameter("the engine keeps blobs by sha256")
    if said:
        return _Part(digest, manifest, None)
    if manifest.config.mediaType not in CONFIGS or manifest.artifactType or manifest.subject:
        raise InvalidParameter("an artifact")
    config = decode_config(_bytes(find, Digest(manifest.config.digest)))
    if config.platform.os != "linux" or len(config.rootfs.diff_ids) != len(manifest.layers):
        raise InvalidParameter("no image for Linux")
    return _Part(digest, manifest, config)


def _bytes(find: Find, digest: Digest) -> bytes:
    with open(find(digest), "rb", buffering=0) as file:
        data = file.read(MAX_CONFIG + 1)
    if len(data) > MAX_CONFIG:
        raise InvalidParameter(f"{digest} is larger than {MAX_CONFIG} bytes")
    return data


def _judge(images: ImageStore, intake: Intake, find: Find, parts: Sequence[_Part]) -> None:
    """Take in all that the manifests name, and look into their layers.

    Raises InvalidParameter for layers that are others, or none, NotFound.
    """
    expected: list[tuple[Digest, str]] = []
    for part in parts:
        diff_ids = part.image.rootfs.diff_ids if part.image is not None else []
        chain = chain_ids(diff_ids)
        # Pinned first, looked for afterwards: nobody removes them meanwhile.
        intake.hold(part.digest, *chain, *part.blobs)
        known = [images.layers.get(chain_id) is not None for chain_id in chain]
        for digest, diff_id, here in zip(part.blobs[1:], diff_ids, known, strict=False):
            if not here:
                if digest not in intake:
                    intake.receive(_blob(images, find, digest))
                expected.append((digest, diff_id))
        for digest in part.blobs:
            if digest not in intake:
                intake.keep(_blob(images, find, digest))
    for digest, diff_id in expected:
        if intake.diff_id(digest) != diff_id:
            raise InvalidParameter(f"{digest} is not the layer that the config speaks of")


def _blob(images: ImageStore, find: Find, digest: Digest) -> Received:
    if images.blobs.exists(digest):
        return StoredBlob(images.blobs, digest)
    return PushedBlob(images, digest, find(digest))
