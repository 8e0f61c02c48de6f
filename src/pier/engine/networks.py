"""What there is of networks now, in the shape that clients read: one endpoint, no addresses.

A container is in a private namespace with loopback up ("none", and for now the default), in the
host's ("host"), or in another container's.
"""

from pier.model.api_containers import NetworkSettings
from pier.model.container import ContainerRecord, EndpointSettings

DEFAULT_NETWORK = "bridge"


def endpoints(record: ContainerRecord) -> dict[str, EndpointSettings]:
    """The container's networks by name. One that shares another container's has none of its own."""
    mode = record.HostConfig.NetworkMode
    if mode.startswith("container:"):
        return {}
    return {DEFAULT_NETWORK if mode in ("", "default") else mode: EndpointSettings()}


def network_settings(record: ContainerRecord) -> NetworkSettings:
    """The network part of inspect."""
    pid = record.State.Pid
    return NetworkSettings(
        SandboxKey=f"/proc/{pid}/ns/net" if pid else "", Networks=endpoints(record)
    )
