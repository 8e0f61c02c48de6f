"""Provenance: how a build came to its result, as SLSA's predicate v0.2 or v1 (slsa.dev/provenance).

The fields are BuildKit's (docs/attestations/slsa-provenance.md there). `mode=min` names what was
read and asked for; the values of build arguments and labels are only in `mode=max`, as are the
steps. Steps are Pier's own, which knows no LLB: `buildConfig` has their names, inputs and times.
"""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pier.build.attest.statement import Predicate
from pier.build.result import BuildResult, Definition, PlatformResult
from pier.errors import InvalidParameter
from pier.model.gotime import format_ns
from pier.model.platform import host_platform

V02 = "https://slsa.dev/provenance/v0.2"
V1 = "https://slsa.dev/provenance/v1"
FILE = "provenance.json"

_BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"
_BUILD_TYPE_V1 = (
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
)
_METADATA = f"{_BUILD_TYPE_V02}#metadata"
_MODES = ("min", "max")
_VERSIONS = {"v0.2": V02, "v1": V1}
# What says something of the host or of this request, and nothing of the result.
_HOST = frozenset({"cgroup-parent", "image-resolve-mode", "platform", "cache-imports"})
_VCS = "vcs:"


def check_fields(fields: Mapping[str, str]) -> None:
    """Raise InvalidParameter for a request that cannot be met, in BuildKit's words."""
    if (mode := fields.get("mode") or "min") not in _MODES:
        raise InvalidParameter(f'invalid mode "{mode}"')
    if (version := fields.get("version") or "v0.2") not in _VERSIONS:
        raise InvalidParameter(f"invalid provenance SLSA version: {version}")


def provenance(
    result: BuildResult, one: PlatformResult, fields: Mapping[str, str], invocation: str
) -> Predicate:
    """Say how one platform's image was built; `invocation` is the build's ID.

    Raises InvalidParameter for a mode or version that is none.
    """
    check_fields(fields)
    is_max = fields.get("mode") == "max"
    version = _VERSIONS[fields.get("version") or "v0.2"]
    parts = _Parts(result, one, is_max=is_max)
    builder = {"id": fields.get("builder-id", "")}
    started, ended = format_ns(result.started), format_ns(result.ended)
    if result.epoch is not None and fields.get("reproducible") == "true":
        # The times of a build are what differs between two of the same input.
        started = ended = format_ns(result.epoch * 1_000_000_000)
    if version == V1:
        metadata: dict[str, Any] = {
            "invocationId": invocation,
            "startedOn": started,
            "finishedOn": ended,
            "buildkit_metadata": parts.metadata,
            "buildkit_completeness": {
                "request": True,
                "resolvedDependencies": parts.has_all_materials,
            },
        }
        if fields.get("reproducible") == "true":
            metadata["buildkit_reproducible"] = True
        internal: dict[str, Any] = {"builderPlatform": str(host_platform())}
        if is_max:
            internal = {"buildConfig": parts.config, **internal}
        body: dict[str, Any] = {
            "buildDefinition": {
                "buildType": _BUILD_TYPE_V1,
                "resolvedDependencies": parts.materials,
                "externalParameters": {
                    "configSource": parts.source("path"),
                    "request": parts.parameters,
                },
                "internalParameters": internal,
            },
            "runDetails": {"builder": builder, "metadata": metadata},
        }
        return Predicate(V1, body, FILE)
    body = {
        "builder": builder,
        "buildType": _BUILD_TYPE_V02,
        "materials": parts.materials,
        "invocation": {
            "configSource": parts.source("entryPoint"),
            "parameters": parts.parameters,
            "environment": {"platform": str(host_platform())},
        },
    }
    if is_max:
        body["buildConfig"] = parts.config
    body["metadata"] = {
        "buildInvocationID": invocation,
        "buildStartedOn": started,
        "buildFinishedOn": ended,
        "completeness": {
            "parameters": True,
            "environment": True,
            "materials": parts.has_all_materials,
        },
        "reproducible": fields.get("reproducible") == "true",
        _METADATA: parts.metadata,
    }
    return Predicate(V02, body, FILE)


class _Parts:
    """What both versions have, by the names that it has there."""

    def __init__(self, result: BuildResult, one: PlatformResult, *, is_max: bool) -> None:
        self._definition = result.definition
        self._one = one
        self._is_max = is_max

    @property
    def materials(self) -> list[dict[str, Any]]:
        return [{"uri": m.uri, "digest": dict(m.digests)} for m in self._one.materials]

    @property
    def has_all_materials(self) -> bool:
        """A local context is read, and named nowhere."""
        return not self._definition.locals

    def source(self, entry: str) -> dict[str, Any]:
        """Where the Dockerfile came from: `entry` is what its name is called."""
        definition = self._definition
        found: dict[str, Any] = {}
        if definition.remote:
            found["uri"] = without_secrets(definition.remote)
            for material in self._one.materials:
                # A repository's may go on with a directory: #ref:directory.
                if found["uri"] == material.uri or found["uri"].startswith(f"{material.uri}:"):
                    found["digest"] = dict(material.digests)
        if definition.dockerfile:
            found[entry] = definition.dockerfile
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        definition = self._definition
        found: dict[str, Any] = {"frontend": definition.frontend}
        if arguments := self._arguments(definition):
            found["args"] = arguments
        if self._is_max and definition.secrets:
            found["secrets"] = [{"id": name, "optional": True} for name in definition.secrets]
        if self._is_max and definition.agents:
            found["ssh"] = [{"id": name, "optional": True} for name in definition.agents]
        if definition.locals:
            found["locals"] = [{"name": name} for name in definition.locals]
        return found

    def _arguments(self, definition: Definition) -> dict[str, str]:
        found = {}
        for key, value in sorted(definition.attributes.items()):
            if key in _HOST or key in ("context", "filename"):
                continue
            if key.startswith(("attest:", _VCS)):
                continue
            # They may be secrets, which only who asks for everything wants to see published.
            if not self._is_max and key.startswith(("build-arg:", "label:")):
                continue
            found[key] = without_secrets(value) if key.startswith("context:") else value
        return found

    @property
    def config(self) -> dict[str, Any]:
        steps = []
        for number, step in enumerate(self._one.steps):
            found: dict[str, Any] = {
                "id": f"step{number}",
                "name": step.name,
                "startedOn": format_ns(step.started),
                "finishedOn": format_ns(step.ended),
            }
            if step.is_cached:
                found["cached"] = True
            steps.append(found)
        return {"steps": steps}

    @property
    def metadata(self) -> dict[str, Any]:
        definition = self._definition
        found: dict[str, Any] = {}
        vcs = {
            key.removeprefix(_VCS): without_secrets(value)
            for key, value in sorted(definition.attributes.items())
            if key.startswith(_VCS) and value
        }
        if vcs:
            found["vcs"] = vcs
        if self._is_max and definition.source:
            data = base64.b64encode(definition.source.encode()).decode()
            name = definition.dockerfile
            found["source"] = {
                "infos": [{"filename": name, "language": "Dockerfile", "data": data}]
            }
        return found


def without_secrets(url: str) -> str:
    """Return a URL without the user and password in it; what is no URL as it is."""
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"xxxxx:xxxxx@{host}"))
