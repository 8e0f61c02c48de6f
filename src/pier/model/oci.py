"""Image manifests, indexes and configs: OCI image-spec v1.1 and Docker's schema 2, as one.

The two families differ in media types only, so there is one struct each. What is decoded here is
for reading: a blob itself is always kept byte for byte, so fields that Pier does not know survive.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig
from pier.model.digest import Digest, parse_digest
from pier.model.platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

# What registries allow for one manifest (distribution-spec, "Pushing Manifests"), and twice that
# for a config, which carries labels and history.
MAX_MANIFEST = 4 << 20
MAX_CONFIG = 8 << 20

_SETS = frozenset({"ExposedPorts", "Volumes"})

T = TypeVar("T")


class Descriptor(Struct, omit_defaults=True):
    mediaType: str = ""
    digest: str = ""
    size: int = 0
    urls: list[str] = []
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifactType: str = ""


class Manifest(Struct, omit_defaults=True):
    schemaVersion: int = 2
    mediaType: str = ""
    artifactType: str = ""
    config: Descriptor = field(default_factory=Descriptor)
    layers: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(Struct, omit_defaults=True):
    schemaVersion: int = 2
    mediaType: str = ""
    artifactType: str = ""
    manifests: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class RootFS(Struct):
    type: str = "layers"
    diff_ids: list[str] = []


class History(Struct, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Struct, omit_defaults=True):
    """The image's config blob; `config` is what containers of it start from.

    `created` is RFC 3339 or "". The fields that only Docker writes are the last three.
    """

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(name="os.version", default="")
    os_features: tuple[str, ...] = field(name="os.features", default=())
    created: str = ""
    author: str = ""
    config: ContainerConfig = field(default_factory=ContainerConfig)
    rootfs: RootFS = field(default_factory=RootFS)
    history: list[History] = []
    comment: str = ""
    docker_version: str = ""
    parent: str = ""

    @property
    def platform(self) -> Platform:
        return Platform(
            self.architecture, self.os or "linux", self.variant, self.os_version, self.os_features
        )


def decode_config(data: bytes) -> ImageConfig:
    """Decode a config blob as Docker does: null is the zero value, a lone string is a list of one.

    Raises InvalidParameter when it is no image config or names no root file system.
    """
    tree = _decode(data, "image config")
    if not isinstance(tree, dict) or "rootfs" not in tree:
        raise InvalidParameter("invalid image JSON, no RootFS key")
    config = tree.get("config")
    if isinstance(config, dict):
        for key in ("ExposedPorts", "Volumes"):
            # Go's sets: the key counts, whatever its value.
            if isinstance(config.get(key), dict):
                config[key] = {name: item or {} for name, item in config[key].items()}
        for key in ("Cmd", "Entrypoint", "Shell"):
            if isinstance(config.get(key), str):
                config[key] = [config[key]]
    decoded = _convert(tree, ImageConfig, "image config")
    for diff_id in decoded.rootfs.diff_ids:
        parse_digest(diff_id)
    return decoded


def decode_manifest(data: bytes) -> Manifest:
    """Decode a manifest and check its digests. Raises InvalidParameter."""
    manifest = _convert(_decode(data, "manifest"), Manifest, "manifest")
    for descriptor in (manifest.config, *manifest.layers):
        parse_digest(descriptor.digest)
    return manifest


def decode_index(data: bytes) -> Index:
    """Decode an image index and check its digests. Raises InvalidParameter."""
    index = _convert(_decode(data, "image index"), Index, "image index")
    for descriptor in index.manifests:
        parse_digest(descriptor.digest)
    return index


def chain_ids(diff_ids: Sequence[str]) -> list[Digest]:
    """Return the chain ID of each layer, lowest first (image-spec config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(Digest(diff_id))
            continue
        joined = f"{chain[-1]} {diff_id}".encode()
        chain.append(Digest("sha256:" + hashlib.sha256(joined).hexdigest()))
    return chain


def _decode(data: bytes, what: str) -> Any:
    """Decode JSON; nested deeper than the interpreter's stack is an error, not a crash.

    Bytes that are no UTF-8 become U+FFFD, as Go reads them: labels in Latin-1 are out there.
    """
    try:
        try:
            return _without_nulls(msgspec.json.decode(data))
        except UnicodeDecodeError:
            return _without_nulls(msgspec.json.decode(data.decode(errors="replace")))
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidParameter(f"invalid {what}: {exc}") from exc


def _convert(tree: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"invalid {what}: {exc}") from exc


def _without_nulls(value: Any) -> Any:
    """Drop object members that are null, since Go reads them as the zero value."""
    if isinstance(value, dict):
        return {
            key: item if key in _SETS else _without_nulls(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
