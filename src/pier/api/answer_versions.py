"""Answers in the shape of the API version that the client speaks.

Handlers make the newest answer; here fields that a version did not have yet are taken out, and
those that it still had are put back (moby/moby, daemon/server/router; api/docs/CHANGELOG.md).
"""

from typing import Any

from msgspec import UNSET, to_builtins
from msgspec.structs import replace

from pier.api.call import Version
from pier.model.api_containers import ContainerSummary
from pier.model.api_images import ImageSummary
from pier.model.api_stats import StatsResponse
from pier.model.api_system import Info
from pier.model.events import Event

Json = dict[str, Any]

# What inspect said of the network before there were several, until 1.52.
_OLD_NETWORK_SETTINGS = (
    *("Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen"),
    *("SecondaryIPAddresses", "SecondaryIPv6Addresses", "EndpointID", "Gateway"),
    *("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway"),
    "MacAddress",
)
# An image's config was a container's, whose other fields were shown empty.
_OF_CONTAINERS: Json = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
_ALWAYS_IN_CONFIG = (
    *("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"),
)


def container(shown: Json, version: Version) -> Json:
    """GET /containers/{id}/json; changes and returns `shown`."""
    if version < (1, 43):
        shown["HostConfig"].pop("Annotations", None)
    if version < (1, 45):
        name = shown["Config"]["Hostname"]
        for network, endpoint in shown["NetworkSettings"]["Networks"].items():
            if network not in ("bridge", "host", "none"):
                aliases = [*(endpoint["Aliases"] or ()), shown["Id"][:12], name]
                endpoint["Aliases"] = list(dict.fromkeys(aliases))
    if version < (1, 52):
        return shown
    for field in _OLD_NETWORK_SETTINGS:
        shown["NetworkSettings"].pop(field, None)
    shown["Config"].pop("MacAddress", None)
    if not shown["Config"]["OnBuild"]:
        del shown["Config"]["OnBuild"]
    return shown


def containers(rows: list[ContainerSummary], version: Version) -> list[ContainerSummary]:
    """GET /containers/json."""
    for row in rows:
        if version < (1, 46):
            row.HostConfig.Annotations = UNSET
        if version < (1, 52):
            row.Health = UNSET
    return rows


def image(shown: Json, version: Version) -> Json:
    """GET /images/{name}/json; changes and returns `shown`."""
    config = shown["Config"]
    if version < (1, 44):
        shown["VirtualSize"] = shown["Size"]
        shown.setdefault("Created", "0001-01-01T00:00:00Z")
    if version < (1, 45):
        shown["Container"] = ""
        shown["ContainerConfig"] = None
    if version < (1, 50):
        shown["Config"] = _OF_CONTAINERS | config
    if version >= (1, 52):
        for field in _ALWAYS_IN_CONFIG:
            if not config[field]:
                del config[field]
        for field in ("Parent", "Comment", "DockerVersion", "Author"):
            if not shown[field]:
                del shown[field]
    if version < (1, 53):
        shown.pop("Identity", None)
    return shown


def images(rows: list[ImageSummary], version: Version) -> list[ImageSummary] | list[Json]:
    """GET /images/json."""
    if version < (1, 43):
        for row in rows:
            if not row.RepoTags and not row.RepoDigests:
                row.RepoTags, row.RepoDigests = ["<none>:<none>"], ["<none>@<none>"]
    if version >= (1, 44):
        return rows
    return [to_builtins(row) | {"VirtualSize": row.Size} for row in rows]


def info(answer: Info, version: Version) -> Info:
    """GET /info."""
    if version < (1, 49):
        answer.FirewallBackend = UNSET
        for commit in (answer.ContainerdCommit, answer.RuncCommit, answer.InitCommit):
            commit.Expected = commit.ID
    if version < (1, 50):
        answer.DiscoveredDevices = UNSET
        answer.BridgeNfIptables = answer.BridgeNfIp6tables = False
    if version >= (1, 52):
        answer.KernelMemoryTCP = UNSET
    return answer


def event(told: Event, version: Version) -> Event:
    """One event of GET /events, which all who listen share: a changed one is a copy."""
    return told if version < (1, 52) else replace(told, status="", id="", from_="")


def stats(answer: StatsResponse, version: Version) -> StatsResponse:
    """One answer of GET /containers/{id}/stats."""
    if version < (1, 52):
        answer.os_type = UNSET
    return answer
