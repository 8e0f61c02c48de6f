"""Nobody on a bridge speaks for somebody else: rules for each port, in a table of the bridge family.

    table bridge pier
        set ports      the host's ends of the endpoints that are held to what they were given
    set confined   those of them whose link-local IPv6 addresses only find neighbours
        set senders4   (port, MAC, address) that may send IPv4 and ARP
        set senders6   (port, MAC, address) that may send IPv6, beside link-local addresses

A container without CAP_NET_ADMIN cannot have other addresses than those; with raw sockets, which
it has by default, it could claim others' all the same (moby/moby#4088 and its like). One with that
capability may route for others, as nodes of a cluster in containers do, and is not held to any,
unless a policy says what it may reach (`egress`), which goes by addresses.

Pure: text for nft(8), as in `rules`.
"""

from collections.abc import Iterable
from ipaddress import ip_address

from msgspec import Struct

_SETS = (
    "set ports { type ifname; }",
    "set confined { type ifname; }",
    "set senders4 { type ifname . ether_addr . ipv4_addr; }",
    "set senders6 { type ifname . ether_addr . ipv6_addr; }",
)
_NAMES = ("ports", "confined", "senders4", "senders6")
_PREROUTING = (
    "type filter hook prerouting priority -300; policy accept;",
    # Nearly every packet, by one look-up.
    "ether type ip iifname . ether saddr . ip saddr @senders4 accept",
    "iifname @ports jump check",
)
_CHECK = (
    "ether type arp iifname . ether saddr . arp saddr ip @senders4 accept",
    # Asking whether an address is free: the sender has none yet.
    "ether type arp arp saddr ip 0.0.0.0 accept",
    "iifname @confined ether type ip6 ip6 saddr fe80::/10 meta l4proto != 58 drop",
    "iifname @confined ether type ip6 ip6 saddr fe80::/10 icmpv6 type echo-request drop",
    "ether type ip6 ip6 saddr { ::, fe80::/10 } accept",
    "ether type ip6 iifname . ether saddr . ip6 saddr @senders6 accept",
    "drop",
)


class Port(Struct, frozen=True):
    """An endpoint: the host's link, the MAC and the addresses that it was given.

    `confined` is for one with a policy: see the set.
    """

    name: str
    mac: str
    addresses: tuple[str, ...]
    confined: bool = False


def ruleset(table: str, ports: Iterable[Port]) -> str:
    """Return the commands that bring the table into this state, whatever it was in."""
    lines = [f"table bridge {table} {{", *_SETS, "chain prerouting {", _PREROUTING[0], "}"]
    lines += ["chain check {", "}", "}"]
    lines += [f"flush chain bridge {table} {name}" for name in ("prerouting", "check")]
    lines += [f"flush set bridge {table} {name}" for name in _NAMES]
    lines += [f"table bridge {table} {{", "chain check {", *_CHECK, "}"]
    lines += ["chain prerouting {", *_PREROUTING[1:], "}", "}"]
    lines += [add_port(table, port) for port in ports]
    return "\n".join(lines) + "\n"


def delete(table: str) -> str:
    """The commands that take the table away, whether it is there or not."""
    return f"table bridge {table}\ndelete table bridge {table}\n"


def add_port(table: str, port: Port) -> str:
    """The commands that hold one endpoint to its addresses."""
    return "\n".join(f"add element bridge {table} {text}" for text in _elements(port))


def delete_port(table: str, port: Port) -> str:
    return "\n".join(f"delete element bridge {table} {text}" for text in _elements(port))


def _elements(port: Port) -> list[str]:
    texts = [f'ports {{ "{port.name}" }}']
    if port.confined:
        texts.append(f'confined {{ "{port.name}" }}')
    for address in port.addresses:
        version = ip_address(address).version
        texts.append(f'senders{version} {{ "{port.name}" . {port.mac} . {address} }}')
    return texts
