"""What `GET /pier/explain` says of a container: how it is connected, and who reaches it."""

from msgspec import Struct

from pier.model.egress import EgressReport


class ExplainedNamespace(Struct):
    """`Whose` is "its own", "the host's", or the container that it is shared with."""

    Kind: str
    Id: str
    Whose: str


class ExplainedRoute(Struct):
    """`Destination` is "default" or a subnet, `Gateway` "" for what is on the link itself."""

    Destination: str
    Gateway: str
    Interface: str


class ExplainedInterface(Struct):
    """A link in the container; `Host` and `Bridge` are the host's links that it leads to."""

    Name: str
    Up: bool
    Mac: str
    Mtu: int
    Addresses: list[str] = []
    Network: str = ""
    Driver: str = ""
    Gateway: str = ""
    Host: str = ""
    Bridge: str = ""
    RateIn: str = ""
    RateOut: str = ""


class ExplainedPort(Struct):
    """A port of the host's, as HOST:PORT, and the container's that it leads to, as PORT/PROTOCOL."""

    Host: str
    Container: str
    Through: str


class ExplainedNames(Struct):
    """The servers of /etc/resolv.conf, those that are asked for the rest, and what is known inside."""

    Servers: list[str] = []
    Upstream: list[str] = []
    Search: list[str] = []
    Own: list[str] = []
    Known: dict[str, list[str]] = {}
    Hosts: list[str] = []


class Explanation(Struct):
    Id: str
    Name: str
    State: str
    Pid: int
    NetworkMode: str
    Namespaces: list[ExplainedNamespace] = []
    Interfaces: list[ExplainedInterface] = []
    Routes: list[ExplainedRoute] = []
    Ports: list[ExplainedPort] = []
    Rules: dict[str, list[str]] = {}
    Names: "ExplainedNames | None" = None
    Egress: EgressReport | None = None
