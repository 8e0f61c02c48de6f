"""An output's attributes, parsed as BuildKit parses them (docs.docker.com/build/exporters).

Values are text, since they come from `--output key=value,…` as they are; an empty value of a flag
is true.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from pier.errors import InvalidParameter
from pier.model.platform import Platform, parse_platform
from pier.storage.compress import GZIP, KINDS, PLAIN, ZSTD, check_level

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

_ANNOTATION = re.compile(
    r"annotation(?:-(manifest|index)(-descriptor)?)?(?:\[([^\]]*)\])?\.(.+)", re.ASCII
)
# What a build does anyway, or what was taken out of BuildKit: said, and no different without.
_IDLE = frozenset(
    {
        *("unpack", "buildinfo", "buildinfo-attrs", "prefer-nondist-layers"),
        *("context", "dest", "tar", "load"),
    }
)


class Compression(Struct, frozen=True):
    """`level` None is the kind's own; `force` compresses anew what was received otherwise."""

    kind: str = GZIP
    level: int | None = None
    force: bool = False


class Annotation(Struct, frozen=True):
    """`target` is manifest or index, of which `on_descriptor` means what describes it."""

    target: str
    on_descriptor: bool
    platform: Platform | None
    key: str
    value: str


class ImageAttributes(Struct, frozen=True):
    """`is_compressed` tells whether the kind of compression was asked for. `oci` None is the
    exporter's own choice. `epoch` is in seconds.
    """

    names: tuple[str, ...] = ()
    push: bool = False
    push_by_digest: bool = False
    insecure: bool = False
    store: bool = True
    dangling_prefix: str = ""
    name_canonical: bool = False
    compression: Compression = Compression()
    is_compressed: bool = False
    oci: bool | None = None
    artifact: bool = False
    inline_attestations: bool = False
    rewrite_timestamp: bool = False
    epoch: int | None = None
    tar: bool = True
    annotations: tuple[Annotation, ...] = ()


class TreeAttributes(Struct, frozen=True):
    """Those of `local` and `tar`. `platform_split` puts each of several platforms into a directory."""

    platform_split: bool | None = None
    attestation_prefix: str = ""
    epoch: int | None = None


def image_attributes(attributes: Mapping[str, str]) -> ImageAttributes:
    """Raises InvalidParameter, in BuildKit's words where it has them."""
    found: dict[str, object] = {}
    annotations = []
    for key, value in attributes.items():
        if key in _FLAGS:
            found[_FLAGS[key]] = parse_flag(key, value)
        elif key == "name":
            found["names"] = tuple(name for name in value.split(",") if name)
        elif key == "dangling-name-prefix":
            found["dangling_prefix"] = value
        elif key == "source-date-epoch":
            found["epoch"] = _epoch(value)
        elif match := _ANNOTATION.fullmatch(key):
            annotations.append(_annotation(match, value))
        elif key not in _IDLE and key not in _COMPRESSION:
            raise InvalidParameter(f"unknown attribute of an image export: {key}={value}")
    compression = parse_compression(attributes)
    if compression.kind == ZSTD:
        found["oci"] = True  # Docker's media types have no zstd
    return ImageAttributes(
        annotations=tuple(annotations),
        compression=compression,
        is_compressed="compression" in attributes or compression.force,
        **found,  # type: ignore[arg-type]
    )


def tree_attributes(attributes: Mapping[str, str]) -> TreeAttributes:
    """Raises InvalidParameter."""
    split: bool | None = None
    prefix, epoch = "", None
    for key, value in attributes.items():
        match key:
            case "platform-split":
                split = parse_flag(key, value)
            case "attestation-prefix":
                prefix = value
            case "source-date-epoch":
                epoch = _epoch(value)
            case "dest" | "name":
                pass  # the client's own
            case _:
                raise InvalidParameter(f"unknown attribute of an export of files: {key}={value}")
    return TreeAttributes(split, prefix, epoch)


def parse_flag(key: str, value: str) -> bool:
    """Read a Go boolean; "" is true. Raises InvalidParameter."""
    if value == "" or value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidParameter(
        f'non-bool value specified for {key}: strconv.ParseBool: parsing "{value}": invalid syntax'
    )


_FLAGS = {
    "push": "push",
    "push-by-digest": "push_by_digest",
    "registry.insecure": "insecure",
    "store": "store",
    "name-canonical": "name_canonical",
    "oci-mediatypes": "oci",
    "oci-artifact": "artifact",
    "attestation-inline": "inline_attestations",
    "rewrite-timestamp": "rewrite_timestamp",
    "tar": "tar",
}
_COMPRESSION = frozenset({"compression", "compression-level", "force-compression"})


def parse_compression(attributes: Mapping[str, str]) -> Compression:
    """Read what of an output's or a cache's attributes is about that. Raises InvalidParameter."""
    kind = attributes.get("compression", GZIP)
    if kind not in KINDS:
        raise InvalidParameter(f"unsupported layer compression type: {kind}")
    level: int | None = None
    if text := attributes.get("compression-level", ""):
        try:
            level = int(text)
        except ValueError:
            raise InvalidParameter(
                f"non-integer value {text} specified for compression-level: "
                f'strconv.ParseInt: parsing "{text}": invalid syntax'
            ) from None
        check_level(kind, level)
    force = "force-compression" in attributes and parse_flag(
        "force-compression", attributes["force-compression"]
    )
    return Compression(kind, None if kind == PLAIN else level, force)


def _annotation(match: re.Match[str], value: str) -> Annotation:
    target, descriptor, platform, key = match.groups()
    if target == "index" and platform:
        raise InvalidParameter(f"index annotations are for no platform: {match.group()}")
    return Annotation(
        target or "manifest",
        bool(descriptor),
        parse_platform(platform) if platform else None,
        key,
        value,
    )


def _epoch(value: str) -> int | None:
    if not value:
        return None
    try:
        return int(value)
    except ValueError:
        raise InvalidParameter(f"invalid SOURCE_DATE_EPOCH: {value}") from None
