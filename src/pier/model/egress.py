"""What Pier's API says of policies for what containers reach outside (docs/networks.md)."""

from msgspec import Struct


class EgressName(Struct):
    """An address that a name stands for; `Expires` in seconds from now, 0 for never.

    `Name` is "" when it was asked for before pierd was started again.
    """

    Name: str
    Address: str
    Expires: int


class EgressRefusal(Struct):
    """Packets to a destination that were refused; `Port` 0 where the protocol has none."""

    Address: str
    Protocol: str
    Port: int
    Packets: int


class EgressReport(Struct):
    """`Policy` is "allow" where there is none; `Kind` is "container" or "network"."""

    Kind: str
    Name: str
    Id: str
    Policy: str
    Networks: dict[str, str] = {}
    Names: list[EgressName] = []
    Refused: list[EgressRefusal] = []
    RefusedNames: dict[str, int] = {}
    RefusedPackets: int = 0


class EgressTest(Struct):
    """One address of a target: whether it may be reached, why, and what a TCP connection came to.

    `Connection` is "" where none was tried, "connected", or the error.
    """

    Target: str
    Address: str
    Protocol: str
    Port: int
    Allowed: bool
    Reason: str
    Connection: str = ""


class EgressRequest(Struct):
    """Body of POST /pier/egress: a network's or a container's new policy."""

    Policy: str = ""
