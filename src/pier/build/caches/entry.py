"""A cache elsewhere, as `--cache-from` and `--cache-to` name it (docs.docker.com/build/cache/backends)."""

import csv
from collections.abc import Mapping

from msgspec import Struct

from pier.errors import InvalidParameter

KINDS = ("registry", "local", "inline")


class CacheEntry(Struct, frozen=True):
    """`type` is registry, local or inline. Attributes: `ref`, `src`, `dest`, `tag`, `mode`, …"""

    type: str
    attributes: Mapping[str, str] = {}

    @property
    def is_max(self) -> bool:
        return self.attributes.get("mode", "min") == "max"


def parse_cache_entry(text: str) -> CacheEntry:
    """Parse `type=registry,ref=…`; a text without any `=` is the name of an image in a registry.

    Raises InvalidParameter.
    """
    fields: dict[str, str] = {}
    words = next(csv.reader([text]), [])
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            if len(words) == 1:
                return CacheEntry("registry", {"ref": word})
            raise InvalidParameter(f"invalid value {word}")
        fields[key.strip().lower()] = value
    kind = fields.pop("type", "")
    if not kind:
        raise InvalidParameter('type required form> "type=TYPE,attr=value"')
    return CacheEntry(kind, fields)


def check_import(entry: CacheEntry) -> None:
    """Raise InvalidParameter for a cache that cannot be read, in BuildKit's words."""
    if entry.type not in ("registry", "local"):
        raise InvalidParameter(f'unknown cache importer: "{entry.type}"')
    _need(entry, "ref" if entry.type == "registry" else "src")


def check_export(entry: CacheEntry) -> None:
    """Raise InvalidParameter for a cache that cannot be written, in BuildKit's words."""
    if entry.type not in KINDS:
        raise InvalidParameter(f'unknown cache exporter: "{entry.type}"')
    mode = entry.attributes.get("mode", "min")
    if mode not in ("min", "max"):
        raise InvalidParameter(f"invalid cache export mode: {mode}")
    if entry.type != "inline":
        _need(entry, "ref" if entry.type == "registry" else "dest")


def _need(entry: CacheEntry, key: str) -> None:
    if not entry.attributes.get(key):
        raise InvalidParameter(f"{key} not set for {entry.type} cache")
