"""Links: bridges on the host, and a container's end of a veth pair with addresses and routes.

Every function is a handful of netlink requests and leaves nothing half made: what fails in the
middle is undone by deleting the one link that everything hangs on.
"""

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network

from pier.kernel import rtnetlink as rt
from pier.kernel.netlink import Netlink, attribute, text, u8, u32

Interface = IPv4Interface | IPv6Interface
Subnet = IPv4Network | IPv6Network

ALIAS_PREFIX = "pier "


@dataclass(frozen=True, slots=True)
class Inside:
    """How a container's interface is to be: its name, MAC ("02:42:…"), addresses, MTU (0: as is).

    `hairpin` is for one with published ports: with br_netfilter the bridge itself leads what it
    sends to the host's port back to where it came from.
    """

    name: str
    mac: str
    addresses: Sequence[Interface]
    mtu: int = 0
    gateways: Sequence[str] = ()
    hairpin: bool = False
    sysctls: dict[str, str] = field(default_factory=dict)


def find(netlink: Netlink, name: str) -> rt.Link | None:
    """Return the link of that name, None when there is none."""
    try:
        return rt.read_link(netlink.get(rt.get_link(name)))
    except OSError as exc:
        if exc.errno == errno.ENODEV:
            return None
        raise


def all_links(netlink: Netlink) -> list[rt.Link]:
    return [rt.read_link(payload) for payload in netlink.dump(rt.get_links())]


def routes(netlink: Netlink) -> list[tuple[Subnet, int]]:
    """The destinations of the host's routes but the default ones, with their links' indexes."""
    found: list[tuple[Subnet, int]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for payload in netlink.dump(rt.get_routes(family)):
            route = rt.read_route(payload)
            if route is None or not route.prefix or not route.destination:
                continue
            text_ = socket.inet_ntop(family, route.destination)
            found.append((ip_network(f"{text_}/{route.prefix}", strict=False), route.index))
    return found


def make_bridge(netlink: Netlink, name: str, alias: str, mac: str, mtu: int) -> int:
    """Make a bridge, up, with its alias; return its index. OSError EEXIST: the name is taken.

    A MAC of its own keeps the bridge's from changing with its ports. Multicast snooping is left
    off, as it would drop IPv6 neighbour discovery until queriers are known.
    """
    attributes = [attribute(rt.IFLA_ADDRESS, mac_bytes(mac))]
    if mtu:
        attributes.append(u32(rt.IFLA_MTU, mtu))
    data = u8(rt.IFLA_BR_MCAST_SNOOPING, 0)
    netlink.request(rt.add_link("bridge", name, *attributes, data=data, up=True))
    index = rt.read_link(netlink.get(rt.get_link(name))).index
    netlink.request(rt.set_link(index, text(rt.IFLA_IFALIAS, alias)))
    return index


def set_addresses(netlink: Netlink, index: int, wanted: Sequence[Interface]) -> None:
    """Give the link these addresses, and take others away but those of IPv6 that are link-local."""
    have = set()
    stale = []
    for payload in netlink.dump(rt.get_addresses()):
        found = rt.read_address(payload)
        if found.index != index:
            continue
        key = (found.address, found.prefix)
        if any(key == (a.ip.packed, a.network.prefixlen) for a in wanted):
            have.add(key)
        elif found.family == socket.AF_INET or found.address[:2] != b"\xfe\x80":
            stale.append(rt.delete_address(index, *key))
    fresh = [
        rt.add_address(index, a.ip.packed, a.network.prefixlen)
        for a in wanted
        if (a.ip.packed, a.network.prefixlen) not in have
    ]
    if stale or fresh:
        netlink.batch([*stale, *fresh])


def add_veth(
    netlink: Netlink,
    name: str,
    inside: Inside,
    netns_fd: int,
    *,
    bridge: int,
    isolated: bool = False,
    hairpin: bool = False,
) -> None:
    """Make a pair: `name` as a port of the bridge, up; its peer in the namespace, still down."""
    mtu = [u32(rt.IFLA_MTU, inside.mtu)] if inside.mtu else []
    message = rt.add_veth(
        name,
        inside.name,
        netns_fd,
        host=(u32(rt.IFLA_MASTER, bridge), *mtu),
        inside=(attribute(rt.IFLA_ADDRESS, mac_bytes(inside.mac)), *mtu),
    )
    netlink.request(message)
    if isolated or hairpin:
        index = rt.read_link(netlink.get(rt.get_link(name))).index
        netlink.request(rt.set_port(index, rt.isolated(isolated), rt.hairpin(hairpin)))


def configure(netlink: Netlink, inside: Inside) -> None:
    """Within the container's namespace: write its sysctls, address the link, set it up.

    A gateway of "%" stands for the link itself.
    """
    index = rt.read_link(netlink.get(rt.get_link(inside.name))).index
    addresses = [rt.add_address(index, a.ip.packed, a.network.prefixlen) for a in inside.addresses]
    # Without an address of IPv6 the link has none at all, as with Docker: a link-local one would be
    # a way around what was asked for. With one it has, also where the host's default is off.
    path = f"net/ipv6/conf/{inside.name}/disable_ipv6"
    off = "0" if any(a.version == 6 for a in inside.addresses) else "1"
    if read_sysctl(path) not in ("", off):
        write_sysctl(path, off)
    # When it goes up the neighbours are told: the address may have been another container's.
    write_sysctl(f"net/ipv4/conf/{inside.name}/arp_notify", "1")
    for path, value in inside.sysctls.items():
        write_sysctl(path, value)
    routes_ = [
        rt.add_route(b"", 0, index=index, family=socket.AF_INET)
        if gateway == "%"
        else _default_route(gateway)
        for gateway in inside.gateways
    ]
    netlink.batch([*addresses, rt.set_link(index, up=True), *routes_])


def set_default_routes(netlink: Netlink, gateways: Sequence[str]) -> None:
    """Within the container's namespace: make these the default gateways, one a family, alone.

    A gateway is an address, or "%" and the name of a link that everything goes out of.
    """
    messages = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for payload in netlink.dump(rt.get_routes(family)):
            route = rt.read_route(payload)
            if route is not None and not route.prefix:
                messages.append(
                    rt.delete_route(b"", 0, gateway=route.gateway, index=route.index, family=family)
                )
    for gateway in gateways:
        if gateway.startswith("%"):
            index = rt.read_link(netlink.get(rt.get_link(gateway[1:]))).index
            messages.append(rt.add_route(b"", 0, index=index, family=socket.AF_INET))
            continue
        messages.append(_default_route(gateway))
    if messages:
        netlink.batch(messages)


def _default_route(gateway: str) -> bytes:
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    return rt.add_route(b"", 0, gateway=socket.inet_pton(family, gateway), family=family)


def remove(netlink: Netlink, name: str) -> None:
    """Delete a link; absent is fine."""
    try:
        netlink.request(rt.delete_link_named(name))
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise


def write_sysctl(path: str, value: str) -> None:
    """Write below /proc/sys of the namespace that the thread is in. Raises OSError."""
    fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_sysctl(path: str) -> str:
    """Return a value below /proc/sys, "" where there is none."""
    try:
        with open(f"/proc/sys/{path}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def mac_bytes(mac: str) -> bytes:
    """The six bytes of "02:42:ac:11:00:02". Raises ValueError."""
    found = bytes.fromhex(mac.replace("-", ":").replace(":", ""))
    if len(found) != 6:
        raise ValueError(f"{mac} is not a MAC address")
    return found
