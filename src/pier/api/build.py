"""Routes of the classic builder: POST /build with its parameters, and its cache's pruning."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import msgspec
from aiohttp import web

from pier.api.answers import json_answer
from pier.api.call import Call
from pier.api.router import Routes
from pier.api.streaming import send_transfer
from pier.build.options import BuildOptions, Limits
from pier.engine.body_reader import BodyReader
from pier.errors import InvalidParameter, Unsupported
from pier.model.container import Ulimit
from pier.model.filters import Filters
from pier.model.gotime import now_ns, parse_timestamp
from pier.model.platform import parse_platform
from pier.model.reference import Reference, parse_reference
from pier.registry.credentials import Credentials, from_fields

_PRUNE_FILTERS = frozenset({"until", "unused-for"})
_HUB = ("docker.io", "index.docker.io", "https://index.docker.io/v1/")


async def build(call: Call) -> web.StreamResponse:
    _refuse(call)
    options = _options(call)
    registries = _registries(call.request.headers.get("X-Registry-Config", ""))
    content_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
    # It can be read and nothing else, which is all that is done to an archive.
    reader = cast("BinaryIO", BodyReader(call.request.content))
    lines = call.engine.builds.build(
        reader,
        options,
        lambda domain: _credentials(registries, domain),
        is_dockerfile=content_type == "text/plain",
        remote=call.text("remote"),
    )
    return await send_transfer(call, lines)


def _refuse(call: Call) -> None:
    """Raise for what is not there, rather than build something else than was asked for."""
    if call.text("version") == "2":
        raise Unsupported("BuildKit is not supported by pierd yet: set DOCKER_BUILDKIT=0")
    if call.flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if call.text("outputs"):
        raise Unsupported("outputs need BuildKit, which is not supported by pierd yet")
    if (isolation := call.text("isolation")) and isolation != "default":
        raise InvalidParameter(f'unsupported isolation: "{isolation}"')


def _options(call: Call) -> BuildOptions:
    platform = call.text("platform")
    return BuildOptions(
        dockerfile=call.text("dockerfile"),
        references=_references(call),
        arguments=_json(call, "buildargs", dict[str, str | None]) or {},
        labels=_json(call, "labels", dict[str, str]) or {},
        target=call.text("target"),
        platform=parse_platform(platform) if platform else None,
        network=call.text("networkmode"),
        extra_hosts=_hosts(call),
        security_opts=_json(call, "securityopt", list[str]) or [],
        cache_from=_json(call, "cachefrom", list[str]) or [],
        limits=Limits(
            memory=call.integer("memory") or 0,
            memory_swap=call.integer("memswap") or 0,
            cpu_shares=call.integer("cpushares") or 0,
            cpu_period=call.integer("cpuperiod") or 0,
            cpu_quota=call.integer("cpuquota") or 0,
            cpuset_cpus=call.text("cpusetcpus"),
            cpuset_mems=call.text("cpusetmems"),
            cgroup_parent=call.text("cgroupparent"),
            shm_size=call.integer("shmsize") or 0,
            ulimits=_json(call, "ulimits", list[Ulimit]) or [],
        ),
        use_cache=not call.flag("nocache"),
        pull=call.flag("pull"),
        remove=call.flag("rm", default=True),
        force_remove=call.flag("forcerm"),
        quiet=call.flag("q"),
    )


def _references(call: Call) -> list[Reference]:
    found: dict[str, Reference] = {}
    for text in call.query.get("t", []):
        if not text:
            continue
        reference = parse_reference(text)
        if reference.digest:
            raise InvalidParameter("build tag cannot contain a digest")
        reference = reference.tagged()
        found[str(reference)] = reference
    return list(found.values())


def _hosts(call: Call) -> list[str]:
    """Return the extra hosts: one a parameter, or several with commas, as clients differ."""
    return [host for text in call.query.get("extrahosts", []) for host in text.split(",") if host]


def _json(call: Call, key: str, kind: Any) -> Any:
    text = call.text(key)
    if not text or text == "null":
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as exc:
        raise InvalidParameter(f"error reading {key}: {exc}") from exc


def _registries(header: str) -> Mapping[str, dict[str, str]]:
    """Decode X-Registry-Config: credentials by registry. One that cannot be read is none."""
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        return msgspec.json.decode(data, type=dict[str, dict[str, str]]) if data else {}
    except (binascii.Error, ValueError):
        return {}


def _credentials(registries: Mapping[str, dict[str, str]], domain: str) -> Credentials:
    for name in (domain, f"https://{domain}", *(_HUB if domain == "docker.io" else ())):
        if name in registries:
            return from_fields({**registries[name]})
    return from_fields({})


async def prune(call: Call) -> web.StreamResponse:
    filters = Filters.parse(call.text("filters"), _PRUNE_FILTERS)
    times = [
        parse_timestamp(text, now_ns=now_ns())
        for key in ("until", "unused-for")
        for text in filters.get(key)
    ]
    for key in ("keep-storage", "reserved-space", "max-used-space", "min-free-space"):
        if call.integer(key):
            raise Unsupported(f"{key} is not supported by pierd yet")
    until = min(times) if times else None
    return json_answer(await call.engine.builds.prune(everything=call.flag("all"), until=until))


ROUTES: Routes = {"POST /build": build, "POST /build/prune": prune}
