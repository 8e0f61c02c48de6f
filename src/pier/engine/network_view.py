"""Networks, and a container's, in the shape that clients read, from their records."""

from pier.model.api_containers import NetworkSettings
from pier.model.container import ContainerRecord, EndpointSettings
from pier.model.network import NetworkInspect, NetworkRecord

DEFAULT_NETWORK = "bridge"
_REPEATED = (
    *("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress"),
    *("IPPrefixLen", "IPv6Gateway", "MacAddress"),
)


def endpoints(record: ContainerRecord) -> dict[str, EndpointSettings]:
    """The container's networks by name. One that shares another container's has none of its own."""
    return {name: attachment.settings for name, attachment in record.networks.items()}


def network_settings(record: ContainerRecord) -> NetworkSettings:
    """The network part of inspect; the default bridge's address is repeated at the top."""
    pid = record.State.Pid
    settings = NetworkSettings(
        SandboxID=record.sandbox_id,
        SandboxKey=f"/proc/{pid}/ns/net" if pid else "",
        Ports=record.ports,
        Networks=endpoints(record),
    )
    default = record.networks.get(DEFAULT_NETWORK)
    if default is not None:
        for field in _REPEATED:
            setattr(settings, field, getattr(default.settings, field))
    return settings


def network_document(network: NetworkRecord) -> NetworkInspect:
    """A network as inspect and the list have it, but for its containers."""
    return NetworkInspect(
        Name=network.Name,
        Id=network.Id,
        Created=network.Created,
        Scope=network.Scope,
        Driver=network.Driver,
        EnableIPv4=network.EnableIPv4,
        EnableIPv6=network.EnableIPv6,
        IPAM=network.IPAM,
        Internal=network.Internal,
        Attachable=network.Attachable,
        Ingress=network.Ingress,
        ConfigFrom=network.ConfigFrom,
        ConfigOnly=network.ConfigOnly,
        Containers={},
        Options=network.Options,
        Labels=network.Labels,
    )
