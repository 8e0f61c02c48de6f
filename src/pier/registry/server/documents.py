"""What a registry reads of a manifest that it stores: what it names, and what it is about.

The bytes are kept as they came. A media type that is none of the known ones is stored unread.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from pier.errors import InvalidParameter
from pier.model.digest import Digest, parse_digest
from pier.model.oci import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    decode_index,
    decode_manifest,
)
from pier.registry.server.refusal import Refusal

# Layers that image-spec 1.0 kept out of registries: they are fetched from their URLs.
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


class Document(Struct, frozen=True):
    """`blobs` and `children` are what must be there before it, children being manifests."""

    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}
    blobs: tuple[Digest, ...] = ()
    children: tuple[Digest, ...] = ()


class _MediaType(Struct):
    mediaType: str = ""
    manifests: msgspec.Raw | None = None


def read_document(data: bytes, content_type: str) -> Document:
    """Read a manifest that was pushed with this Content-Type ("" = none was given).

    Raises Refusal MANIFEST_INVALID.
    """
    media_type = content_type.partition(";")[0].strip() or _own_media_type(data)
    if media_type in (OCI_INDEX, DOCKER_INDEX):
        return _index(data, media_type)
    if media_type in MANIFESTS:
        return _manifest(data, media_type)
    return Document(media_type=media_type, size=len(data))


def _own_media_type(data: bytes) -> str:
    """What the document says it is; without a word, what it looks like."""
    try:
        found = msgspec.json.decode(data, type=_MediaType)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refusal("MANIFEST_INVALID", str(exc)) from exc
    return found.mediaType or (OCI_MANIFEST if found.manifests is None else OCI_INDEX)


def _manifest(data: bytes, media_type: str) -> Document:
    try:
        manifest = decode_manifest(data)
        subject = _subject(manifest.subject)
    except InvalidParameter as exc:
        raise Refusal("MANIFEST_INVALID", exc.message) from exc
    _agree(manifest.mediaType, media_type)
    if manifest.schemaVersion != 2:
        raise Refusal("MANIFEST_INVALID", f"unsupported schema version {manifest.schemaVersion}")
    return Document(
        media_type=media_type,
        size=len(data),
        subject=subject,
        artifact_type=manifest.artifactType or manifest.config.mediaType,
        annotations=manifest.annotations,
        blobs=_unique([manifest.config, *manifest.layers]),
    )


def _index(data: bytes, media_type: str) -> Document:
    try:
        index = decode_index(data)
        subject = _subject(index.subject)
    except InvalidParameter as exc:
        raise Refusal("MANIFEST_INVALID", exc.message) from exc
    _agree(index.mediaType, media_type)
    return Document(
        media_type=media_type,
        size=len(data),
        subject=subject,
        artifact_type=index.artifactType,
        annotations=index.annotations,
        children=_unique(index.manifests),
    )


def _agree(said: str, media_type: str) -> None:
    """Refuse what calls itself something else than its Content-Type: CVE-2021-41190."""
    if said and said != media_type:
        raise Refusal("MANIFEST_INVALID", f"mediaType is {said}, Content-Type {media_type}")
    if not said and media_type in (DOCKER_MANIFEST, DOCKER_INDEX):
        raise Refusal("MANIFEST_INVALID", f"a {media_type} must say so in mediaType")


def _subject(descriptor: Descriptor | None) -> str:
    return parse_digest(descriptor.digest) if descriptor is not None else ""


def _unique(descriptors: Iterable[Descriptor]) -> tuple[Digest, ...]:
    wanted = (d.digest for d in descriptors if not d.mediaType.startswith(_FOREIGN))
    return tuple(dict.fromkeys(Digest(digest) for digest in wanted))
