"""GET /containers/{id}/json: everything about one container, in Docker's shape."""

from typing import Any

import msgspec

from pier.engine.container import Container
from pier.engine.directories import ContainerDirectories
from pier.engine.joins import PREFIX
from pier.engine.mount_points import mount_points
from pier.engine.network_view import network_settings
from pier.model.api_containers import ContainerInspect, GraphDriver
from pier.model.container import ContainerRecord

DRIVER = "overlay2"
# `omitempty` in moby/moby's types.
_LEFT_OUT = {
    "Config": (
        *("ArgsEscaped", "ExposedPorts", "Healthcheck", "MacAddress", "NetworkDisabled", "Shell"),
        "StopSignal",
    ),
    "HostConfig": ("Annotations", "Mounts", "StorageOpt", "Sysctls", "Tmpfs"),
}


def inspect_container(container: Container, directories: ContainerDirectories) -> ContainerInspect:
    """Return the answer; sizes are filled in by whoever was asked for them.

    The parts are the living record's own: encode it before the loop turns.
    """
    record = container.record
    mode = record.HostConfig.NetworkMode
    etc = directories.data(mode.removeprefix(PREFIX) if mode.startswith(PREFIX) else record.Id)
    has_log = record.HostConfig.LogConfig.Type == "json-file"
    return ContainerInspect(
        Id=record.Id,
        Created=record.Created,
        Path=record.Path,
        Args=record.Args,
        State=msgspec.structs.replace(record.State),
        Image=record.Image,
        ResolvConfPath=f"{etc}/resolv.conf",
        HostnamePath=f"{etc}/hostname",
        HostsPath=f"{etc}/hosts",
        LogPath=directories.log_path(record.Id) if has_log else "",
        Name=f"/{record.Name}",
        RestartCount=record.RestartCount,
        Driver=DRIVER,
        Platform=record.Platform,
        MountLabel="",
        ProcessLabel="",
        AppArmorProfile="",
        ExecIDs=sorted(container.execs) or None,
        HostConfig=record.HostConfig,
        GraphDriver=_graph_driver(container, directories),
        Mounts=mount_points(record.mounts),
        Config=msgspec.structs.replace(record.Config, MacAddress=_asked_mac(record)),
        NetworkSettings=network_settings(record),
    )


def as_shown(answer: ContainerInspect) -> dict[str, Any]:
    """The answer as JSON has it: without the fields that dockerd leaves out when they are empty."""
    shown: dict[str, Any] = msgspec.to_builtins(answer)
    for part, names in _LEFT_OUT.items():
        for name in names:
            if not shown[part][name]:
                del shown[part][name]
    if shown["Config"]["StopTimeout"] is None:
        del shown["Config"]["StopTimeout"]
    if shown["HostConfig"]["Init"] is None:
        del shown["HostConfig"]["Init"]
    return shown


def _asked_mac(record: ContainerRecord) -> str:
    """The address that was wished for on the main network: one of the container itself, once."""
    place = record.networks.get(record.HostConfig.NetworkMode)
    return place.mac if place is not None else ""


def _graph_driver(container: Container, directories: ContainerDirectories) -> GraphDriver:
    """Where the layers are. `MergedDir` is what only the container's own processes see."""
    data = directories.data(container.id)
    lower = [directories.point(point) for point in reversed(container.record.frozen)]
    lower += [directories.layer(chain_id) for chain_id in reversed(container.record.layers)]
    pid = container.record.State.Pid
    return GraphDriver(
        Name=DRIVER,
        Data={
            "ID": container.id,
            "LowerDir": ":".join(lower),
            "MergedDir": f"/proc/{pid}/root"
            if pid
            else f"{directories.bundle(container.id)}/rootfs",
            "UpperDir": f"{data}/upper",
            "WorkDir": f"{data}/work",
        },
    )
