r"""The engine's rule set as text for nft(8): one table of its own, and nothing outside of it.

    table inet pier
        chain user           the host's own rules for traffic of containers; never touched by us
        map  published4/6…   host ports and where they lead (a host address of its own: …_at)
        set  open4/6         ports that are reached at the container's own address, without NAT
        chain early          before connection tracking: nobody on a bridge speaks to 127.0.0.0/8
        chain publish        DNAT, of what arrives (prerouting) and of what the host sends (output)
        chain forward        who may talk to whom
        chain leave          source NAT

Pure. All chains but `user` are flushed and written again by `ruleset` in one transaction, so that
what is in force is always the whole of one state. What the decisions are is a table:

    from \ to               own bridge      another bridge     outside       the host
    a bridge               yes, or icc     published ports    yes           yes
    an internal one        yes, or icc     no                 no            its own address there
    outside                published ports
    the host itself        yes
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from msgspec import Struct

from pier.kernel.nftables import PROTOCOLS
from pier.network.ipam import Subnet
from pier.network.options import BridgeOptions

# Bridges and veth pairs are other engines' and hypervisors': what they forward is their business.
_GUESTS = '{ "bridge", "veth" }'
_FOREIGN = f"meta iifkind != {_GUESTS} meta oifkind != {_GUESTS} drop"
FLUSHED = ("early", "prerouting", "output", "publish", "forward", "leave", "arrive")
_MAPS = {
    "published4": "map published4 { type inet_proto . inet_service : ipv4_addr . inet_service; }",
    "published6": "map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; }",
    "published4_at": "map published4_at "
    "{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
    "published6_at": "map published6_at "
    "{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }",
    "open4": "set open4 { type ipv4_addr . inet_proto . inet_service; }",
    "open6": "set open6 { type ipv6_addr . inet_proto . inet_service; }",
}
_BASES = {
    "early": "type filter hook prerouting priority raw; policy accept;",
    "prerouting": "type nat hook prerouting priority dstnat; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "forward": "type filter hook forward priority filter; policy accept;",
    "arrive": "type filter hook input priority filter; policy accept;",
    "leave": "type nat hook postrouting priority srcnat; policy accept;",
}
WITH_PORTS = "{ " + ", ".join(str(PROTOCOLS[name]) for name in ("tcp", "udp", "sctp")) + " }"
_PUBLISH = (
    f"meta l4proto {WITH_PORTS} dnat ip to ip daddr . meta l4proto . th dport map @published4_at",
    f"meta l4proto {WITH_PORTS} dnat ip to meta l4proto . th dport map @published4",
    # ::1 cannot be routed: what is sent to it arrives at the socket that holds the port.
    "ip6 daddr ::1 return",
    f"meta l4proto {WITH_PORTS} dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at",
    f"meta l4proto {WITH_PORTS} dnat ip6 to meta l4proto . th dport map @published6",
)


class BridgeRules(Struct, frozen=True):
    """A bridge network, as far as rules know it."""

    interface: str
    subnets: tuple[Subnet, ...]
    options: BridgeOptions
    internal: bool


class Publication(Struct, frozen=True):
    """A host's port and the container's that it leads to.

    `host` is an address, "0.0.0.0" or "::" for all of a family; `address` is the container's, of
    the same family. `routed` opens the port on the container's own address instead.
    """

    protocol: str
    host: str
    host_port: int
    address: str
    port: int
    routed: bool = False


class Ways(Struct, frozen=True):
    """What else gets to containers on bridges: `direct`, at their own addresses, what is published;
    `mark`, "VALUE/MASK", whatever carries it.
    """

    direct: bool = False
    mark: str = ""


NO_MORE = Ways()


def ruleset(
    table: str,
    bridges: Sequence[BridgeRules],
    published: Iterable[Publication],
    *,
    drops_foreign: bool,
    relays: bool = True,
    ways: Ways = NO_MORE,
) -> str:
    """Return the commands that bring the table into this state, whatever it was in.

    With `relays`, published ports are served by sockets as well where rules do not lead.

    `drops_foreign` is for a host that forwards only because of us: as with Docker, it does not
    become a router between its other links.
    """
    chains = {
        "early": _early(bridges),
        "prerouting": [*_not_led(bridges if relays else ()), "fib daddr type local jump publish"],
        "output": ["fib daddr type local jump publish"],
        "publish": list(_PUBLISH),
        "forward": _forward(bridges, ways, drops_foreign=drops_foreign),
        "arrive": _arrive(bridges),
        "leave": _leave(bridges),
    }
    lines = [f"table inet {table} {{", "chain user {", "}"]
    lines += _MAPS.values()
    for name in FLUSHED:
        lines += [f"chain {name} {{", *([_BASES[name]] if name in _BASES else []), "}"]
    lines.append("}")
    lines += [f"flush chain inet {table} {name}" for name in FLUSHED]
    lines += [f"flush {text.split()[0]} inet {table} {name}" for name, text in _MAPS.items()]
    lines.append(f"table inet {table} {{")
    for name, rules in chains.items():
        lines += [f"chain {name} {{", *rules, "}"]
    lines.append("}")
    lines += [add_element(table, publication) for publication in published]
    return "\n".join(lines) + "\n"


def delete(table: str) -> str:
    """The commands that take the table away, whether it is there or not."""
    return f"table inet {table}\ndelete table inet {table}\n"


def add_element(table: str, publication: Publication) -> str:
    """The command that publishes a port."""
    name, key, value = _element(publication)
    return f"add element inet {table} {name} {{ {key}{f' : {value}' if value else ''} }}"


def delete_element(table: str, publication: Publication) -> str:
    name, key, _ = _element(publication)
    return f"delete element inet {table} {name} {{ {key} }}"


def _element(publication: Publication) -> tuple[str, str, str]:
    version = ip_address(publication.address).version
    if publication.routed:
        key = f"{publication.address} . {PROTOCOLS[publication.protocol]} . {publication.port}"
        return f"open{version}", key, ""
    key = f"{PROTOCOLS[publication.protocol]} . {publication.host_port}"
    value = f"{publication.address} . {publication.port}"
    if publication.host in ("0.0.0.0", "::"):
        return f"published{version}", key, value
    return f"published{version}_at", f"{publication.host} . {key}", value


def _not_led(bridges: Sequence[BridgeRules]) -> list[str]:
    """Whose ports may not speak to each other cannot be led back to their own bridge.

    With br_netfilter the bridge itself sends what was led there, from one isolated port to another.
    """
    shy = [bridge for bridge in bridges if not bridge.options.icc]
    return [f"iifname {_names(shy)} return"] if shy else []


def _early(bridges: Sequence[BridgeRules]) -> list[str]:
    # route_localnet lets the host's own 127.0.0.1 reach published ports; it must not let
    # containers reach what listens there (CVE-2020-8558).
    return [f"ip daddr 127.0.0.0/8 iifname {_names(bridges)} drop"] if bridges else []


def _forward(bridges: Sequence[BridgeRules], ways: Ways, *, drops_foreign: bool) -> list[str]:
    foreign = [_FOREIGN] if drops_foreign else []
    if not bridges:
        return ["ct state established,related accept", *foreign]
    every = _names(bridges)
    rules = [f"iifname {every} jump user", f"oifname {every} jump user"]
    rules.append("ct state established,related accept")
    for bridge in bridges:
        if bridge.internal:
            name = f'"{bridge.interface}"'
            rules.append(f"iifname {name} oifname != {name} drop")
            rules.append(f"iifname != {name} oifname {name} drop")
    if ways.mark:
        value, _, mask = ways.mark.partition("/")
        rules.append(f"oifname {every} meta mark and {mask} == {value} accept")
    rules.append(f"oifname {every} ct status dnat accept")
    for bridge in bridges:
        name = f'"{bridge.interface}"'
        verdict = "accept" if bridge.options.icc else "drop"
        rules.append(f"iifname {name} oifname {name} {verdict}")
        rules += _open(bridge, ways)
    # Also what was sent straight to a container's address, past the host's published ports.
    rules.append(f"oifname {every} drop")
    rules.append(f"iifname {every} accept")
    return rules + foreign


def _open(bridge: BridgeRules, ways: Ways) -> list[str]:
    """What reaches containers of the network from outside of it without NAT."""
    rules = []
    trusted = ", ".join(f'"{link}"' for link in bridge.options.trusted)
    whence = "" if ways.direct else f"iifname {{ {trusted} }} "
    for family, version, mode in (("ip", 4, bridge.options.mode4), ("ip6", 6, bridge.options.mode6)):  # fmt: skip
        name = f'oifname "{bridge.interface}"'
        if mode == "nat-unprotected":
            rules.append(f"{name} meta nfproto ipv{version} accept")
        elif mode == "routed":
            echo = "icmp type echo-request" if version == 4 else "icmpv6 type echo-request"
            rules.append(f"{name} {echo} accept")
            rules.append(f"{name} {family} daddr . meta l4proto . th dport @open{version} accept")
        elif ways.direct or trusted:
            rules.append(
                f"{whence}{name} {family} daddr . meta l4proto . th dport @open{version} accept"
            )
    return rules


def _arrive(bridges: Sequence[BridgeRules]) -> list[str]:
    """An internal network reaches the host at its own address there and nowhere else."""
    rules = []
    for bridge in bridges:
        if not bridge.internal:
            continue
        for subnet in bridge.subnets:
            if subnet.version == 4:
                rules.append(
                    f'iifname "{bridge.interface}" fib daddr type local ip daddr != {subnet} drop'
                )
            else:
                rules.append(
                    f'iifname "{bridge.interface}" ip6 saddr {subnet} fib daddr type local'
                    f" ip6 daddr != {{ {subnet}, fe80::/10 }} drop"
                )
    return rules


def _leave(bridges: Sequence[BridgeRules]) -> list[str]:
    rules = []
    for bridge in bridges:
        name = f'"{bridge.interface}"'
        if bridge.internal:
            continue
        rules.append(f"oifname {name} ip saddr 127.0.0.0/8 masquerade")
        for subnet in bridge.subnets:
            family = "ip" if subnet.version == 4 else "ip6"
            options = bridge.options
            mode, host = (options.mode4, options.host4) if subnet.version == 4 else (options.mode6, options.host6)  # fmt: skip
            if mode == "routed":
                continue
            # A container that comes back to its network by way of a published port of the host.
            rules.append(f"oifname {name} {family} saddr {subnet} ct status dnat masquerade")
            if options.masquerade:
                action = f"snat {family} to {host}" if host else "masquerade"
                rules.append(f"oifname != {name} {family} saddr {subnet} {action}")
    return rules


def _names(bridges: Sequence[BridgeRules]) -> str:
    return "{ " + ", ".join(f'"{bridge.interface}"' for bridge in bridges) + " }"
