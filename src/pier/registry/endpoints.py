"""Where a registry is: from the domain of a name to the addresses to try, best first.

Docker's rules: docker.io is at registry-1.docker.io, behind the mirrors of `registry-mirrors`. A
registry on a loopback address, or named by `insecure-registries` (host, host:port or CIDR), is
spoken to by HTTPS without looking at its certificate, and failing that by plain HTTP. Every other
one needs HTTPS that verifies.

`registries` in the configuration file says more, of any registry (moby#18818):

    "registries": {
        "ghcr.io": {"mirrors": ["https://mirror.example/ghcr"]},
        "old.example:5000": {"insecure": true},
        "*": {"mirrors": ["http://cache.example:5000"]}
    }

A mirror is asked for pulls only, in order, before the registry itself; `*` is for those that have
no entry. A mirror by `http://` is spoken to by HTTP. Its path goes before the repository's.
"""

import asyncio
import ipaddress
import socket

import msgspec
from msgspec import Struct

from pier.errors import InvalidParameter
from pier.model.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN

DOCKER_HUB = "registry-1.docker.io"
_LOOPBACK = ("127.0.0.0/8", "::1/128")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Endpoint(Struct, frozen=True):
    """`host` may have a port, `path` is "" or begins with a slash and does not end with one."""

    scheme: str
    host: str
    path: str = ""
    verify: bool = True
    mirror: bool = False

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


class RegistryEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What `registries` says of one registry."""

    mirrors: tuple[str, ...] = ()
    insecure: bool = False


class RegistrySettings(Struct, frozen=True):
    """All that the engine's settings say of registries. `certificates` is the certs.d directory."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    registries: dict[str, RegistryEntry] = {}
    certificates: str = "/etc/docker/certs.d"
    max_downloads: int = 3
    max_uploads: int = 5
    max_attempts: int = 5


def parse_entries(value: object) -> dict[str, RegistryEntry]:
    """Check the `registries` section. Raises InvalidParameter."""
    try:
        entries = msgspec.convert(value, dict[str, RegistryEntry])
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"invalid registries: {exc}") from exc
    for entry in entries.values():
        for mirror in entry.mirrors:
            parse_mirror(mirror)
    return entries


def parse_mirror(text: str) -> Endpoint:
    """Parse a mirror's URL. Raises InvalidParameter in Docker's words."""
    scheme, has_scheme, rest = text.partition("://")
    if scheme not in ("http", "https") or not has_scheme:
        raise InvalidParameter(
            f'invalid mirror: no scheme specified for "{text}": must use either '
            "'https://' or 'http://'"
            if not has_scheme
            else f'invalid mirror: unsupported scheme "{scheme}" in "{text}": must use either '
            "'https://' or 'http://'"
        )
    if "?" in rest or "#" in rest:
        raise InvalidParameter(
            f'invalid mirror: query or fragment at end of the URI "{text}" is not supported'
        )
    host, _, path = rest.partition("/")
    if "@" in host or not host:
        raise InvalidParameter(f'invalid mirror: username/password not allowed in URI "{text}"')
    path = path.rstrip("/")
    return Endpoint(scheme, host, "/" + path if path else "", mirror=True)


def parse_insecure(text: str) -> str:
    """Check an entry of `insecure-registries`. Raises InvalidParameter in Docker's words."""
    if "://" in text:
        raise InvalidParameter(f"insecure registry {text} should not contain '://'")
    return text


def has_entry(settings: RegistrySettings, domain: str) -> RegistryEntry:
    none = RegistryEntry()
    return settings.registries.get(domain) or settings.registries.get("*") or none


def trusting(settings: RegistrySettings, domain: str) -> RegistrySettings:
    """Return settings that take a registry for insecure, whatever they say of it otherwise."""
    entry = msgspec.structs.replace(has_entry(settings, domain), insecure=True)
    return msgspec.structs.replace(settings, registries={**settings.registries, domain: entry})


async def lookup(settings: RegistrySettings, domain: str, *, pull: bool) -> list[Endpoint]:
    """Return where to ask for a name's domain, in order. Looks names up (DNS) where it must."""
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    found = []
    if pull:
        mirrors = [*has_entry(settings, domain).mirrors]
        if domain == DEFAULT_DOMAIN:
            mirrors += settings.mirrors
        for text in mirrors:
            mirror = parse_mirror(text)
            insecure = mirror.scheme == "https" and await _is_insecure(settings, mirror.host)
            found.append(msgspec.structs.replace(mirror, verify=not insecure))
    host = DOCKER_HUB if domain == DEFAULT_DOMAIN else domain
    if domain != DEFAULT_DOMAIN and await _is_insecure(settings, domain):
        found += [
            Endpoint("https", host, verify=False),
            Endpoint("http", host, verify=False),
        ]
    else:
        found.append(Endpoint("https", host))
    return found


async def _is_insecure(settings: RegistrySettings, host: str) -> bool:
    if host in settings.insecure or has_entry(settings, host).insecure:
        return True
    networks = [
        ipaddress.ip_network(text, strict=False)
        for text in (*settings.insecure, *_LOOPBACK)
        if _is_network(text)
    ]
    name = host_name(host)
    return any(address in network for address in await _addresses(name) for network in networks)


def host_name(host: str) -> str:
    """Return a host without its port and without an IPv6 address's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


async def _addresses(name: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(name)]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []  # the connection will say it
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text
