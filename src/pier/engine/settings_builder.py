"""daemon.json's `builder`: entitlements, and the garbage collection of the build cache.

The names are dockerd's (docs.docker.com/build/cache/garbage-collection); the rules without any settings
are as its own: what is easily made again goes after two days over 512 MB, everything after sixty days,
and then what is over the limits.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pier.build.keeping import CACHE_MOUNT, Rule, rule_filters
from pier.build.options import INSECURE, NETWORK_HOST
from pier.errors import InvalidParameter
from pier.model.gotime import now_ns, parse_duration

_HOUR = 3600 * 1_000_000_000
_EASY_BYTES = 512 << 20
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}


class BuilderSettings(Struct, frozen=True):
    """`rules` None are the default ones, which depend on the disk: see `default_rules`."""

    allowed: tuple[str, ...] = (NETWORK_HOST,)
    collects: bool = True
    rules: tuple[Rule, ...] | None = None
    reserved: str = ""
    max_used: str = ""
    min_free: str = ""

    def rules_on(self, path: str) -> Sequence[Rule]:
        """Return the rules for a cache on the file system of `path`."""
        if not self.collects:
            return ()
        if self.rules is not None:
            return self.rules
        found = os.statvfs(path)
        disk = found.f_blocks * found.f_frsize
        return default_rules(
            _bytes(self.reserved, disk) if self.reserved else disk // 10,
            _bytes(self.max_used, disk) if self.max_used else disk * 8 // 10,
            _bytes(self.min_free, disk) if self.min_free else disk * 2 // 10,
        )


class _Rule(Struct, forbid_unknown_fields=True):
    all: bool = False
    keepStorage: str = ""
    reservedSpace: str = ""
    maxUsedSpace: str = ""
    minFreeSpace: str = ""
    keepDuration: str = ""
    filter: Any = None


class _Collection(Struct, forbid_unknown_fields=True):
    enabled: bool = True
    policy: list[_Rule] = []
    defaultKeepStorage: str = ""
    defaultReservedSpace: str = ""
    defaultMaxUsedSpace: str = ""
    defaultMinFreeSpace: str = ""


class _Builder(Struct, forbid_unknown_fields=True):
    gc: _Collection | None = None
    entitlements: dict[str, bool] = {}


def parse_builder(value: object) -> BuilderSettings:
    """Raises InvalidParameter."""
    try:
        found = msgspec.convert(value, _Builder)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"invalid builder settings: {exc}") from exc
    collection = found.gc or _Collection()
    rules = tuple(_rule(rule) for rule in collection.policy) or None
    for text in (
        *(collection.defaultKeepStorage, collection.defaultReservedSpace),
        *(collection.defaultMaxUsedSpace, collection.defaultMinFreeSpace),
    ):
        _bytes(text, 1)
    return BuilderSettings(
        allowed=_entitlements(found.entitlements),
        collects=collection.enabled,
        rules=rules,
        reserved=collection.defaultReservedSpace or collection.defaultKeepStorage,
        max_used=collection.defaultMaxUsedSpace,
        min_free=collection.defaultMinFreeSpace,
    )


def default_rules(reserved: int, max_used: int, min_free: int) -> tuple[Rule, ...]:
    limits = Rule(reserved=reserved, max_used=max_used, min_free=min_free)
    return (
        Rule(
            filters={"type": ("source.local", CACHE_MOUNT)},
            unused_ns=48 * _HOUR,
            max_used=_EASY_BYTES,
        ),
        replace(limits, unused_ns=60 * 24 * _HOUR),
        limits,
        replace(limits, everything=True),
    )


def _entitlements(given: Mapping[str, bool]) -> tuple[str, ...]:
    names = {"network-host": NETWORK_HOST, "security-insecure": INSECURE}
    for name in given:
        if name not in names:
            raise InvalidParameter(f"invalid builder settings: entitlement {name} is not known")
    usual = {"network-host": True, "security-insecure": False} | dict(given)
    return tuple(names[name] for name, is_on in usual.items() if is_on)


def _rule(rule: _Rule) -> Rule:
    values = rule.filter or {}
    if isinstance(values, list):
        pairs = [str(text).partition("=") for text in values]
        values = {key: [v for k, _, v in pairs if k == key] for key, _, _ in pairs}
    elif isinstance(values, dict):
        values = {key: [k for k, on in dict(v).items() if on] for key, v in values.items()}
    else:
        raise InvalidParameter("invalid builder settings: filter is neither a list nor an object")
    filters, unused = rule_filters(values, now_ns())
    duration = parse_duration(rule.keepDuration) if rule.keepDuration else 0
    return Rule(
        filters=filters,
        everything=rule.all,
        unused_ns=max(unused, duration),
        max_used=_bytes(rule.maxUsedSpace, 1),
        reserved=_bytes(rule.reservedSpace or rule.keepStorage, 1),
        min_free=_bytes(rule.minFreeSpace, 1),
    )


def _bytes(text: str, disk: int) -> int:
    """Read "20GB", "512MB", "10%" (of `disk`), or a number. Raises InvalidParameter."""
    lower = text.strip().lower()
    if not lower:
        return 0
    try:
        if lower.endswith("%"):
            return int(float(lower[:-1]) * disk / 100)
        digits = lower.rstrip("kmgtpib")
        unit = lower[len(digits) :].strip()
        if unit.endswith("ib"):
            return int(float(digits) * 1024 ** ("kmgtp".index(unit[0]) + 1))
        return int(float(digits) * _UNITS[unit.removesuffix("b")])
    except (ValueError, KeyError):
        raise InvalidParameter(f"invalid builder settings: invalid size: '{text}'") from None
