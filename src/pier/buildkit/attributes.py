"""The attributes of the dockerfile frontend as options of a build (buildkit frontend/dockerui)."""

import csv
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from pier.build.caches.entry import CacheEntry
from pier.build.caches.remote import check_entries
from pier.build.options import INSECURE, NETWORK_HOST, SANDBOX, BuildOptions, Limits
from pier.build.session import ClientSession
from pier.errors import InvalidParameter
from pier.model.container import Ulimit
from pier.model.platform import parse_platform

_BUILD_ARGUMENT, _LABEL, _CONTEXT = "build-arg:", "label:", "context:"
_NETWORKS = {"": "", "default": "", "none": "none", "host": "host"}
_ENTITLEMENTS = {"network.host": NETWORK_HOST, "security.insecure": INSECURE}


class _Import(Struct):
    """One of `cache-imports`."""

    Type: str = ""
    Attrs: dict[str, str] = {}


class Wanted(Struct, frozen=True):
    """`request` names a subrequest, "" for a build.

    `context` is a remote one, "" for the client's own directory.
    """

    options: BuildOptions
    request: str
    context: str
    context_key: str
    dockerfile_key: str


def read(
    attributes: Mapping[str, str],
    session: ClientSession | None,
    entitlements: Sequence[str],
    *,
    imports: Sequence[CacheEntry] = (),
    exports: Sequence[CacheEntry] = (),
) -> Wanted:
    """`imports` are caches beside those of the attributes. Raises InvalidParameter."""
    check_entries(imports, exports)
    arguments = _with_prefix(attributes, _BUILD_ARGUMENT)
    network = attributes.get("force-network-mode", "")
    if network not in _NETWORKS:
        raise InvalidParameter(f'invalid network mode "{network}"')
    platforms = [parse_platform(p) for p in attributes.get("platform", "").split(",") if p]
    no_cache = attributes.get("no-cache")
    options = BuildOptions(
        dockerfile=attributes.get("filename", ""),
        arguments=arguments,
        labels=_with_prefix(attributes, _LABEL),
        target=attributes.get("target", ""),
        platform=platforms[0] if len(platforms) == 1 else None,
        network=_NETWORKS[network],
        extra_hosts=_hosts(attributes.get("add-hosts", "")),
        limits=Limits(
            cgroup_parent=attributes.get("cgroup-parent", ""),
            shm_size=_number(attributes, "shm-size"),
            ulimits=_ulimits(attributes.get("ulimit", "")),
        ),
        session=session,
        allowed=allowed(entitlements),
        cache_from=[ref for ref in attributes.get("cache-from", "").split(",") if ref],
        use_cache=no_cache != "",
        uncached=[name for name in (no_cache or "").split(",") if name],
        pull=attributes.get("image-resolve-mode", "") == "pull",
        force_remove=True,
        contexts=_with_prefix(attributes, _CONTEXT),
        platforms=platforms if len(platforms) > 1 else (),
        is_list=attributes.get("multi-platform", "") in ("1", "true"),
        provenance=_attestation(attributes, "provenance"),
        sbom=_attestation(attributes, "sbom"),
        frontend_attributes=dict(attributes),
        hostname=arguments.get("BUILDKIT_SANDBOX_HOSTNAME") or SANDBOX,
        cache_imports=[*_imports(attributes.get("cache-imports", "")), *imports],
        cache_exports=exports,
    )
    return Wanted(
        options=options,
        request=attributes.get("requestid", ""),
        context=attributes.get("context", ""),
        context_key=attributes.get("contextkey", "context"),
        dockerfile_key=attributes.get("dockerfilekey", "dockerfile"),
    )


def allowed(entitlements: Sequence[str]) -> list[str]:
    """Return the rights that a client gave, as `BuildOptions` names them."""
    return [_ENTITLEMENTS[name] for name in entitlements if name in _ENTITLEMENTS]


def _with_prefix(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {k[len(prefix) :]: v for k, v in attributes.items() if k.startswith(prefix)}


def _hosts(text: str) -> list[str]:
    """Return `name=address,…` as HostConfig has them: `name:address`."""
    found = []
    for pair in _fields(text):
        name, equals, address = pair.partition("=")
        if not equals:
            raise InvalidParameter(f"invalid key-value pair: {pair}")
        found.append(f"{name}:{address}")
    return found


def _ulimits(text: str) -> list[Ulimit]:
    found = []
    for pair in _fields(text):
        name, _, values = pair.partition("=")
        soft, colon, hard = values.partition(":")
        try:
            found.append(Ulimit(Name=name, Soft=int(soft), Hard=int(hard if colon else soft)))
        except ValueError:
            raise InvalidParameter(f"invalid ulimit argument: {pair}") from None
    return found


def _fields(text: str) -> list[str]:
    return next(csv.reader([text]), []) if text else []


def _number(attributes: Mapping[str, str], key: str) -> int:
    text = attributes.get(key, "") or "0"
    if not text.isdecimal():
        raise InvalidParameter(f"failed to parse {key}: {text}")
    return int(text)


def _imports(text: str) -> list[CacheEntry]:
    if not text:
        return []
    try:
        found = msgspec.json.decode(text, type=list[_Import])
    except msgspec.DecodeError as exc:
        raise InvalidParameter(f"failed to unmarshal cache-imports: {exc}") from exc
    return [CacheEntry(entry.Type, entry.Attrs) for entry in found]


def _attestation(attributes: Mapping[str, str], kind: str) -> dict[str, str] | None:
    text = attributes.get(f"attest:{kind}")
    if text is None:
        return None
    fields = dict(field.partition("=")[::2] for field in _fields(text))
    return None if fields.get("disabled") == "true" else fields
