"""Platforms, `os/arch[/variant]`, as image-spec image-index.md has them; names are Go's."""

import os
import re
import sys

import msgspec
from msgspec import Struct, field

from pier.errors import InvalidParameter

_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "ppc64el": "ppc64le",
}
_KNOWN_ARCHITECTURES = frozenset(
    {
        *("386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le"),
        *("ppc64", "ppc64le", "riscv64", "s390x"),
    }
)
_SYSTEMS = {"macos": "darwin"}
_KNOWN_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd"})


class Platform(Struct, frozen=True, omit_defaults=True):
    """`variant` is "" where the architecture has none worth naming (amd64, arm64/v8)."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(name="os.version", default="")
    os_features: tuple[str, ...] = field(name="os.features", default=())

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform() -> Platform:
    """Return the platform whose images run here without emulation."""
    machine = os.uname().machine
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(machine, "")
    return normalize(Platform(machine, sys.platform, variant))


def normalize(platform: Platform) -> Platform:
    """Return it with Go's names and without the variant that is the architecture's default."""
    system = platform.os.lower() or "linux"
    system = _SYSTEMS.get(system, system)
    given = platform.architecture.lower()
    architecture = _ARCHITECTURES.get(given, given)
    variant = platform.variant.lower()
    if architecture == "arm64" and variant in ("8", "v8"):
        variant = ""
    elif architecture == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        if given == "armel":
            variant = "v6"
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(architecture, system, variant, platform.os_version, platform.os_features)


def parse_platform(text: str) -> Platform:
    """Parse `os`, `arch`, `os/arch` or `os/arch/variant`; what is left out is the host's.

    Raises InvalidParameter.
    """
    parts = text.split("/")
    for kind, part in zip((" OS", *[""] * len(parts)), parts, strict=False):
        if not _COMPONENT.fullmatch(part):
            raise InvalidParameter(f'"{part}" is an invalid{kind} component of "{text}"')
    if len(parts) > 3:
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
    host = host_platform()
    if len(parts) > 1:
        return normalize(Platform(parts[1], parts[0], parts[2] if len(parts) == 3 else ""))
    system = _SYSTEMS.get(parts[0].lower(), parts[0].lower())
    if system in _KNOWN_SYSTEMS:
        return Platform(host.architecture, system, host.variant)
    alone = normalize(Platform(parts[0], host.os))
    if alone.architecture not in _KNOWN_ARCHITECTURES:
        raise InvalidParameter(f'"{text}": unknown operating system or architecture')
    return alone


def parse_platform_json(text: str) -> Platform:
    """Parse the API's `{"os": …, "architecture": …, "variant": …}`. Raises InvalidParameter."""
    try:
        platform = msgspec.json.decode(text.encode(), type=Platform)
    except (msgspec.DecodeError, UnicodeEncodeError) as exc:
        raise InvalidParameter(f"failed to parse platform: {exc}") from exc
    if not platform.os and not platform.architecture and platform != Platform():
        raise InvalidParameter(
            "optional platform fields provided, but OS and Architecture are missing"
        )
    if not platform.os or not platform.architecture:
        raise InvalidParameter("both OS and Architecture must be provided")
    return normalize(platform)


def rank(offered: Platform, wanted: Platform) -> int | None:
    """Tell how well an image's platform suits: 0 is best, None is that it cannot run.

    An older variant runs on a newer processor, 32-bit ARM on 64-bit, 386 on amd64. An image that
    names no variant, or no architecture at all, suits any, since many tools do not write them.
    """
    offered, wanted = normalize(offered), normalize(wanted)
    if offered.os != wanted.os:
        return None
    candidates = _runnable(wanted)
    pair = (offered.architecture, offered.variant)
    if not offered.architecture:
        return len(candidates) + 1
    if pair in candidates:
        return candidates.index(pair)
    if offered.architecture == wanted.architecture and not offered.variant:
        return len(candidates)
    return None


def _runnable(wanted: Platform) -> list[tuple[str, str]]:
    """Return the (architecture, variant) pairs that run on `wanted`, best first."""
    architecture, variant = wanted.architecture, wanted.variant
    first = (architecture, variant)
    level = int(variant[1:]) if re.fullmatch(r"v[0-9]", variant) else 0
    if architecture == "arm":
        return [first, *(("arm", f"v{n}") for n in range(level - 1, 4, -1))]
    if architecture == "arm64":
        lower = [("arm64", f"v{n}" if n > 8 else "") for n in range(level - 1, 7, -1)]
        return [first, *lower, *(("arm", f"v{n}") for n in range(8, 4, -1))]
    if architecture == "amd64":
        lower = [("amd64", f"v{n}" if n > 1 else "") for n in range(level - 1, 0, -1)]
        return [first, *lower, ("386", "")]
    return [first]
