"""In-toto statements, and the manifest that carries them beside an image.

The layout is BuildKit's (docs/attestations/attestation-storage.md there): a manifest of platform
unknown/unknown in the image's index, whose annotations name the image's manifest, with a layer a
statement.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from pier.images.said_of import REFERENCE_DIGEST
from pier.model.digest import Digest, digest_of, hex_of
from pier.model.oci import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Descriptor
from pier.model.platform import Platform
from pier.model.reference import DEFAULT_DOMAIN, parse_reference

STATEMENT = "https://in-toto.io/Statement/v0.1"
IN_TOTO = "application/vnd.in-toto+json"
ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
REFERENCE_TYPE = "vnd.docker.reference.type"
ATTESTATION = "attestation-manifest"
UNKNOWN = Platform("unknown", "unknown")

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"


class Predicate(Struct, frozen=True):
    """What is said, and the name of the file that it becomes in an export of files."""

    type: str
    body: Mapping[str, Any]
    file: str


class Subject(Struct, frozen=True):
    """What it is said of: a name, and a digest without its algorithm, sha256."""

    name: str
    sha256: str


class AttestationManifest(Struct, frozen=True):
    """`documents` are all blobs of it, itself among them, by digest; `layers` its statements."""

    descriptor: Descriptor
    documents: Mapping[Digest, bytes]


def statement(predicate: Predicate, subjects: Sequence[Subject], *, indent: int = 0) -> bytes:
    """Encode one, on one line or indented."""
    body = {
        "_type": STATEMENT,
        "predicateType": predicate.type,
        "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in subjects],
        "predicate": predicate.body,
    }
    data = msgspec.json.encode(body)
    return msgspec.json.format(data, indent=indent) if indent else data


def image_subjects(names: Sequence[str], platform: Platform, manifest: str) -> Sequence[Subject]:
    """Return what an image's statements are about: each of its names, as a package URL."""
    hexadecimal = hex_of(Digest(manifest))
    return [Subject(image_purl(name, platform), hexadecimal) for name in names]


def image_purl(name: str, platform: Platform | None) -> str:
    """Return an image's package URL: `pkg:docker/alpine@3?platform=linux%2Famd64`."""
    reference = parse_reference(name)
    if not reference.digest:
        reference = reference.tagged()
    path = reference.familiar_name
    if reference.domain != DEFAULT_DOMAIN:
        path = f"{reference.domain}/{reference.path}"
    version = f"@{quote(reference.tag)}" if reference.tag else ""
    qualifiers = {}
    if reference.digest:
        qualifiers["digest"] = reference.digest
    if platform is not None:
        qualifiers["platform"] = str(platform)
    query = "?" + urlencode(qualifiers, safe=":") if qualifiers else ""
    return f"pkg:docker/{quote(path, safe='/:')}{version}{query}"


def attestation_manifest(
    target: Descriptor,
    statements: Sequence[tuple[str, bytes]],
    *,
    oci: bool,
    artifact: bool,
) -> AttestationManifest:
    """Make the manifest for statements (predicate type and bytes) about an image's manifest.

    With `artifact` it says what it is, and of what, in OCI's own fields (image-spec 1.1).
    """
    documents: dict[Digest, bytes] = {}
    layers = []
    for kind, data in statements:
        digest = digest_of(data)
        documents[digest] = data
        layers.append(Descriptor(IN_TOTO, digest, len(data), annotations={PREDICATE_TYPE: kind}))
    if artifact:
        config = Descriptor(_EMPTY_TYPE, digest_of(_EMPTY), len(_EMPTY))
        documents[digest_of(_EMPTY)] = _EMPTY
    else:
        body = _config([layer.digest for layer in layers])
        documents[digest_of(body)] = body
        config = Descriptor(OCI_CONFIG if oci else DOCKER_CONFIG, digest_of(body), len(body))
    media_type = OCI_MANIFEST if oci else DOCKER_MANIFEST
    fields: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact:
        fields["artifactType"] = ARTIFACT
    fields |= {"config": config, "layers": layers}
    if artifact:
        subject = Descriptor(target.mediaType, target.digest, target.size)
        fields["subject"] = subject
    data = pretty(fields)
    digest = digest_of(data)
    documents[digest] = data
    descriptor = Descriptor(
        media_type,
        digest,
        len(data),
        annotations={REFERENCE_DIGEST: target.digest, REFERENCE_TYPE: ATTESTATION},
        platform=UNKNOWN,
    )
    return AttestationManifest(descriptor, documents)


def _config(diff_ids: Sequence[str]) -> bytes:
    """It only looks like an image's: registries and tools that know nothing of statements want one."""
    return msgspec.json.encode(
        {
            "architecture": UNKNOWN.architecture,
            "os": UNKNOWN.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )


def pretty(fields: Mapping[str, Any]) -> bytes:
    """Encode a manifest as BuildKit does, indented by two."""
    return msgspec.json.format(msgspec.json.encode(fields), indent=2)
