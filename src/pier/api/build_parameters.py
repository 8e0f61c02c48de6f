"""The parameters of POST /build, of either builder, as the options of a build."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from pier.api.call import Call
from pier.build.attest.provenance import check_fields
from pier.build.caches.entry import parse_cache_entry
from pier.build.caches.remote import check_entries
from pier.build.options import NETWORK_HOST, SANDBOX, BuildOptions, Limits
from pier.build.result import Order
from pier.build.session import ClientSession
from pier.errors import InvalidParameter
from pier.model.container import Ulimit
from pier.model.platform import Platform, parse_platform
from pier.model.reference import Reference, parse_reference
from pier.registry.credentials import Credentials, from_fields

_HUB = ("docker.io", "index.docker.io", "https://index.docker.io/v1/")


def through_buildkit(call: Call) -> bool:
    """Tell which builder is asked for. Raises InvalidParameter."""
    if (version := call.text("version", "1")) not in ("", "1", "2"):
        raise InvalidParameter(f'invalid version "{version}"')
    return version == "2"


def _refuse(call: Call) -> None:
    """Raise for what is not there, rather than build something else than was asked for."""
    if call.flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if (isolation := call.text("isolation")) and isolation != "default":
        raise InvalidParameter(f'unsupported isolation: "{isolation}"')


def build_options(call: Call) -> BuildOptions:
    """Raises PierError."""
    _refuse(call)
    platforms = _platforms(call)
    sources = _json(call, "cachefrom", list[str]) or []
    imports = [parse_cache_entry(text) for text in sources if "type=" in text]
    exports = [parse_cache_entry(text) for text in _json(call, "cacheto", list[str]) or []]
    check_entries(imports, exports)
    return BuildOptions(
        dockerfile=call.text("dockerfile"),
        references=_references(call),
        arguments=_json(call, "buildargs", dict[str, str | None]) or {},
        labels=_json(call, "labels", dict[str, str]) or {},
        target=call.text("target"),
        platform=platforms[0] if len(platforms) == 1 else None,
        platforms=platforms if len(platforms) > 1 else (),
        outputs=_outputs(call),
        provenance=_attestation(call, "provenance", {"mode": "min"}),
        sbom=_attestation(call, "sbom", {}),
        network=call.text("networkmode"),
        extra_hosts=_hosts(call),
        security_opts=_json(call, "securityopt", list[str]) or [],
        cache_from=[name for name in sources if "type=" not in name],
        is_cache_from_alone=not imports and not call.flag("pier.progress"),
        cache_imports=imports,
        cache_exports=exports,
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
        session=_session(call),
        allowed=_json(call, "pier.allow", list[str]) or [NETWORK_HOST],
        uncached=_json(call, "pier.no-cache-filter", list[str]) or [],
        contexts=_json(call, "pier.contexts", dict[str, str]) or {},
        has_terminal=call.text("pier.on-error") == "terminal",
        use_cache=not call.flag("nocache"),
        pull=call.flag("pull"),
        remove=call.flag("rm", default=True),
        force_remove=call.flag("forcerm"),
        quiet=call.flag("q"),
        hostname=SANDBOX if call.flag("pier.progress") else "",
    )


def _session(call: Call) -> ClientSession | None:
    """Raises NotFound."""
    identity = call.text("pier.session")
    return call.engine.builds.sessions.get(identity) if identity else None


def _platforms(call: Call) -> list[Platform]:
    """Return the platforms, each once. Docker's classic builder takes one, Pier several."""
    texts = [text for text in call.text("platform").split(",") if text]
    return list({str(p): p for p in map(parse_platform, texts)}.values())


def _outputs(call: Call) -> list[Order]:
    """Read `outputs`, which Docker's API sends for BuildKit: [{"Type": …, "Attrs": {…}}]."""
    outputs = _json(call, "outputs", list[_Output]) or []
    return [Order(output.Type, output.Attrs or {}) for output in outputs]


class _Output(msgspec.Struct):
    Type: str
    Attrs: dict[str, str] | None = None


def _attestation(call: Call, key: str, usual: Mapping[str, str]) -> Mapping[str, str] | None:
    """Read a parameter of Pier's own: true, false, or fields as buildx has them, `mode=max,…`.

    Raises InvalidParameter.
    """
    text = call.text(key)
    if text in ("", "false", "0"):
        return None
    if text in ("true", "1"):
        return usual
    fields = {}
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(f"invalid {key}: {text}")
        fields[name] = value
    if fields.pop("disabled", "") == "true":
        return None
    if key == "provenance":
        check_fields(fields)
    return {**usual, **fields}


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


def credentials_of(call: Call) -> Callable[[str], Awaitable[Credentials]]:
    """Return what finds the client's password for a registry in the request's header."""
    registries = _registries(call.request.headers.get("X-Registry-Config", ""))

    async def credentials(domain: str) -> Credentials:
        return _credentials(registries, domain)

    return credentials


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
