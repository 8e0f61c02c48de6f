"""Networks as the Docker Engine API speaks of them, and as the engine records them.

Field names are the API's own (docker-engine-api-v1.51.yaml, tag Network). Fields typed
`X | UnsetType` are left out of the JSON unless set, as Go's omitempty does.
"""

from msgspec import UNSET, Struct, UnsetType, field

from pier.model.container import EndpointSettings


class IPAMConfig(Struct, omit_defaults=True):
    """One subnet, in CIDR notation; `Gateway` and auxiliary addresses are bare addresses."""

    Subnet: str = ""
    IPRange: str = ""
    Gateway: str = ""
    AuxiliaryAddresses: dict[str, str] = {}


class IPAM(Struct):
    Driver: str = "default"
    Options: dict[str, str] | None = None
    Config: list[IPAMConfig] | None = None


class ConfigReference(Struct):
    Network: str = ""


class NetworkContainer(Struct):
    """A container as the inspection of a network shows it; addresses with their prefix length."""

    Name: str
    EndpointID: str
    MacAddress: str
    IPv4Address: str
    IPv6Address: str


class NetworkCreateRequest(Struct):
    """Body of POST /networks/create. None is "not given" where Docker has a default."""

    Name: str = ""
    Driver: str = ""
    Scope: str = ""
    EnableIPv4: bool | None = None
    EnableIPv6: bool | None = None
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: "ConfigReference" = field(default_factory=ConfigReference)
    IPAM: "IPAM" = field(default_factory=IPAM)
    Options: dict[str, str] = {}
    Labels: dict[str, str] = {}


class NetworkCreateResponse(Struct):
    Id: str
    Warning: str = ""


class NetworkConnectRequest(Struct):
    Container: str = ""
    EndpointConfig: EndpointSettings | None = None


class NetworkDisconnectRequest(Struct):
    Container: str = ""
    Force: bool = False


class NetworkPruneResponse(Struct):
    NetworksDeleted: list[str] | None = None


class NetworkRecord(Struct):
    """A network as the engine keeps it: the row in its database, and what inspect shows of it.

    `interface` is the host's link that belongs to it, "" for none.
    """

    Name: str
    Id: str
    Created: str
    Driver: str
    Scope: str = "local"
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    IPAM: "IPAM" = field(default_factory=IPAM)
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigFrom: "ConfigReference" = field(default_factory=ConfigReference)
    ConfigOnly: bool = False
    Options: dict[str, str] = {}
    Labels: dict[str, str] = {}
    interface: str = ""
    user_subnets: bool = False
    """Whether the user named the subnets: only then may containers ask for addresses."""

    @property
    def is_bridged(self) -> bool:
        """Whether its endpoints are ports of a bridge of the host's."""
        return self.Driver in ("bridge", "overlay")

    @property
    def used_config(self) -> list[IPAMConfig]:
        """The subnets of the IP versions that are enabled; others are shown, and never used."""
        enabled = (self.EnableIPv4, self.EnableIPv6)
        return [entry for entry in self.IPAM.Config or () if enabled[":" in entry.Subnet]]


class SubnetStatus(Struct):
    """Addresses of one subnet, each number at most 2^64 - 1."""

    IPsInUse: int
    DynamicIPsAvailable: int


class IPAMStatus(Struct):
    Subnets: dict[str, SubnetStatus]


class NetworkStatus(Struct):
    """What inspect says of a network since API 1.52."""

    IPAM: "IPAMStatus"


class NetworkInspect(Struct):
    """Answer of GET /networks/{id}; the list leaves the containers empty."""

    Name: str
    Id: str
    Created: str
    Scope: str
    Driver: str
    EnableIPv4: bool
    EnableIPv6: bool
    IPAM: "IPAM"
    Internal: bool
    Attachable: bool
    Ingress: bool
    ConfigFrom: "ConfigReference"
    ConfigOnly: bool
    Containers: dict[str, NetworkContainer]
    Options: dict[str, str]
    Labels: dict[str, str]
    Status: NetworkStatus | UnsetType = UNSET
