"""What a container or a network may reach outside: the policy, read and judged.

    deny                                    nothing
    allow=example.com:443,10.0.0.0/8        these, and nothing else
    allow                                   everything, as without a policy

An entry is a host name (`*.example.com` are the names below it, `*` is every name), an address or a
subnet, each with a port, a range of ports and a protocol if wanted: `db:5432/tcp`,
`[2001:db8::]/32:8000-8100`. A port without a protocol is TCP's, UDP's and SCTP's.

A name stands for the addresses that the container was told of by the engine's DNS server. Pure.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from msgspec import Struct

from pier.errors import InvalidParameter

OPTION = "pier.egress"
PROTOCOLS = ("tcp", "udp", "sctp")

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class Item(Struct, frozen=True):
    """One entry of a list: a name in lower case or a subnet; `first` 0 is any port and protocol."""

    name: str = ""
    subnet: Subnet | None = None
    first: int = 0
    last: int = 0
    protocol: str = ""

    @property
    def key(self) -> str:
        """What tells it from others, the same at every start."""
        text = f"{self.name or self.subnet}:{self.first}-{self.last}/{self.protocol}"
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def matches(self, name: str) -> bool:
        """Whether a name, in lower case, is one that this entry means."""
        if self.name == "*":
            return True
        if self.name.startswith("*."):
            return name.endswith(self.name[1:]) and len(name) > len(self.name) - 1
        return bool(self.name) and name == self.name

    def passes(self, protocol: str, port: int) -> bool:
        """Whether its ports and protocol, not its address, let this pass."""
        if self.protocol and protocol != self.protocol:
            return False
        if not self.first:
            return True
        return protocol in PROTOCOLS and self.first <= port <= self.last

    def __str__(self) -> str:
        text = self.name or str(self.subnet)
        if self.subnet is not None and self.subnet.prefixlen == self.subnet.max_prefixlen:
            text = str(self.subnet.network_address)
        if self.first:
            ports = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
            text = f"[{text}]:{ports}" if ":" in text else f"{text}:{ports}"
        return f"{text}/{self.protocol}" if self.protocol else text


class Policy(Struct, frozen=True):
    """What may be reached; nothing when there are no items."""

    items: tuple[Item, ...] = ()

    def allows_name(self, name: str) -> bool:
        return any(item.matches(name) for item in self.items)

    def allows(
        self,
        address: Address,
        protocol: str,
        port: int,
        pinned: Mapping[str, Collection[Address]],
    ) -> bool:
        """Whether a packet may go there; `pinned` are the addresses of items by `Item.key`."""
        return any(
            item.passes(protocol, port)
            and (
                address in item.subnet
                if item.subnet is not None
                else address in pinned.get(item.key, ())
            )
            for item in self.items
        )

    def __str__(self) -> str:
        return "allow=" + ",".join(map(str, self.items)) if self.items else "deny"


def parse(text: str) -> Policy | None:
    """Read a policy; None is none. Raises InvalidParameter."""
    text = text.strip()
    if text in ("", "allow"):
        return None
    if text == "deny":
        return Policy()
    words = text.removeprefix("allow=")
    if words == text or not words.strip(", "):
        raise InvalidParameter(
            f"invalid {OPTION} '{text}': use deny, allow, or allow=HOST[:PORT],CIDR,…"
        )
    items = dict.fromkeys(_item(word.strip()) for word in words.split(",") if word.strip())
    return Policy(tuple(items))


def target(text: str) -> tuple[str, str, int]:
    """(host, protocol, port) of "host[:port][/protocol]"; port 0 for none. Raises InvalidParameter."""
    host, protocol, ports = _split(text)
    if "-" in ports or not host:
        raise InvalidParameter(f"invalid target '{text}': use HOST[:PORT][/PROTOCOL]")
    return host.lower(), protocol or ("tcp" if ports else "icmp"), int(ports or 0)


def _item(text: str) -> Item:
    host, protocol, ports = _split(text)
    first = last = 0
    if ports:
        match = _PORTS.fullmatch(ports)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise InvalidParameter(f"invalid {OPTION} '{text}': {ports!r} is no port")
    try:
        return Item(subnet=ip_network(host, strict=False), first=first, last=last, protocol=protocol)  # fmt: skip
    except ValueError:
        pass
    name = host.lower().rstrip(".")
    if "/" in host or re.fullmatch(r"[\d.]+", name) or not _NAME.fullmatch(name) or len(name) > 253:
        raise InvalidParameter(f"invalid {OPTION} '{text}': {host!r} is no name, address or subnet")
    return Item(name=name, first=first, last=last, protocol=protocol)


def _split(text: str) -> tuple[str, str, str]:
    """(host, protocol, ports) of an entry; the last two are "" where they are not said."""
    rest, slash, protocol = text.rpartition("/")
    if not slash or protocol.lower() not in PROTOCOLS:
        rest, protocol = text, ""
    if rest.startswith("["):
        # [address]:port, [subnet]:port or [address]/prefix:port
        host, _, tail = rest[1:].partition("]")
        prefix, _, ports = tail.partition(":")
        return host + prefix, protocol.lower(), ports
    if rest.count(":") > 1:
        return rest, protocol.lower(), ""
    host, _, ports = rest.partition(":")
    return host, protocol.lower(), ports
