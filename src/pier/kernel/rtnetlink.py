"""rtnetlink(7): the messages for links, addresses, routes and neighbours, and what dumps answer.

Pure: bytes in and out, for `netlink.Netlink` to send. Addresses are 4 or 16 bytes.
"""

import socket
import struct
from dataclasses import dataclass

from pier.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    integer,
    message,
    nested,
    parse,
    string,
    text,
    u8,
    u16,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
AF_BRIDGE = 7

# Multicast groups for `Netlink(groups=…)`.
RTNLGRP_LINK = 1
RTNLGRP_IPV4_ROUTE = 7

IFF_UP = 0x1

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_NET_NS_PID = 19
IFLA_IFALIAS = 20
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_DATA = 5
VETH_INFO_PEER = 1
IFLA_BRPORT_MODE = 4
IFLA_BRPORT_GUARD = 5
IFLA_BRPORT_LEARNING = 8
IFLA_BRPORT_ISOLATED = 33
IFLA_BR_MCAST_SNOOPING = 23
IFLA_VLAN_ID = 1
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 15, 17
NDA_DST, NDA_LLADDR = 1, 2
NTF_SELF = 0x02
NUD_NOARP_PERMANENT = 0xC0
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE = 1
IFLA_IPVLAN_FLAGS = 2

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_FLAGS = 8
IFA_F_NODAD = 0x02

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_TABLE = 15
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RTPROT_KERNEL = 2
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Link:
    """A link as a dump shows it. `master` and `parent` are indexes, 0 for none."""

    index: int
    name: str
    kind: str
    flags: int
    master: int
    parent: int
    mtu: int
    address: bytes
    alias: str


@dataclass(frozen=True, slots=True)
class Address:
    index: int
    family: int
    address: bytes
    prefix: int


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table; `destination` b"" is the default route's, `gateway` b"" none."""

    family: int
    destination: bytes
    prefix: int
    gateway: bytes
    index: int


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change)


def add_link(
    kind: str, name: str, *attributes: bytes, data: bytes = b"", up: bool = False
) -> bytes:
    """Make a link of `kind`; `data` are the attributes of its kind. EEXIST when the name is taken."""
    info = [text(IFLA_INFO_KIND, kind)]
    if data:
        info.append(nested(IFLA_INFO_DATA, data))
    flags = IFF_UP if up else 0
    return message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfo(0, flags, flags),
        text(IFLA_IFNAME, name),
        *attributes,
        nested(IFLA_LINKINFO, *info),
    )


def add_veth(
    name: str, peer: str, netns_fd: int, *, host: tuple[bytes, ...], inside: tuple[bytes, ...]
) -> bytes:
    """Make a pair: `name` here, up, and `peer`, down, in another namespace.

    Born where it belongs: moving a link between namespaces waits for RCU. The peer cannot be born
    up (ENOTCONN): the kernel ties the two together after it has set its flags.
    """
    other = nested(
        VETH_INFO_PEER,
        _ifinfo(),
        text(IFLA_IFNAME, peer),
        u32(IFLA_NET_NS_FD, netns_fd),
        *inside,
    )
    return add_link("veth", name, *host, data=other, up=True)


def set_link(index: int, *attributes: bytes, up: bool | None = None) -> bytes:
    """Change a link."""
    change = 0 if up is None else IFF_UP
    flags = IFF_UP if up else 0
    return message(RTM_NEWLINK, 0, _ifinfo(index, flags, change), *attributes)


def set_port(index: int, *attributes: bytes) -> bytes:
    """Change a bridge's port: IFLA_BRPORT_* attributes."""
    info = nested(IFLA_LINKINFO, text(4, "bridge"), nested(IFLA_INFO_SLAVE_DATA, *attributes))
    return message(RTM_NEWLINK, 0, _ifinfo(index), info)


def delete_link_named(name: str) -> bytes:
    return message(RTM_DELLINK, 0, _ifinfo(), text(IFLA_IFNAME, name))


def get_link(name: str) -> bytes:
    return message(RTM_GETLINK, 0, _ifinfo(), text(IFLA_IFNAME, name))


def get_links() -> bytes:
    return message(RTM_GETLINK, 0, _ifinfo())


def read_link(payload: bytes) -> Link:
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(payload)
    found = parse(payload, _IFINFOMSG.size)
    info = parse(found.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=string(found.get(IFLA_IFNAME, b"")),
        kind=string(info.get(IFLA_INFO_KIND, b"")),
        flags=flags,
        master=integer(found.get(IFLA_MASTER, b"")),
        parent=integer(found.get(IFLA_LINK, b"")),
        mtu=integer(found.get(IFLA_MTU, b"")),
        address=found.get(IFLA_ADDRESS, b""),
        alias=string(found.get(IFLA_IFALIAS, b"")),
    )


def add_address(index: int, address: bytes, prefix: int) -> bytes:
    """Give a link an address; no duplicate detection, which would hold it back for a second."""
    return _address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address, prefix)


def delete_address(index: int, address: bytes, prefix: int) -> bytes:
    return _address(RTM_DELADDR, 0, index, address, prefix)


def _address(kind: int, flags: int, index: int, address: bytes, prefix: int) -> bytes:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    parts = [attribute(IFA_LOCAL, address), attribute(IFA_ADDRESS, address)]
    if family == socket.AF_INET6:
        parts.append(u32(IFA_FLAGS, IFA_F_NODAD))
    elif prefix < 31:
        host_bits = (1 << (32 - prefix)) - 1
        broadcast = int.from_bytes(address, "big") | host_bits
        parts.append(attribute(IFA_BROADCAST, broadcast.to_bytes(4, "big")))
    return message(kind, flags, _IFADDRMSG.pack(family, prefix, 0, 0, index), *parts)


def get_addresses(family: int = socket.AF_UNSPEC) -> bytes:
    return message(RTM_GETADDR, 0, _IFADDRMSG.pack(family, 0, 0, 0, 0))


def read_address(payload: bytes) -> Address:
    family, prefix, _, _, index = _IFADDRMSG.unpack_from(payload)
    found = parse(payload, _IFADDRMSG.size)
    return Address(index, family, found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b""), prefix)


def add_route(
    destination: bytes, prefix: int, *, index: int = 0, gateway: bytes = b"", family: int = 0
) -> bytes:
    """Add a route to the main table; `destination` b"" with the family given is the default."""
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, destination, prefix, index, gateway, family)  # fmt: skip


def delete_route(
    destination: bytes, prefix: int, *, index: int = 0, gateway: bytes = b"", family: int = 0
) -> bytes:
    return _route(RTM_DELROUTE, 0, destination, prefix, index, gateway, family)


def _route(
    kind: int, flags: int, destination: bytes, prefix: int, index: int, gateway: bytes, family: int
) -> bytes:
    if not family:
        family = socket.AF_INET if len(destination or gateway) == 4 else socket.AF_INET6
    scope = RT_SCOPE_UNIVERSE if gateway or family == socket.AF_INET6 else RT_SCOPE_LINK
    head = _RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    parts = []
    if destination:
        parts.append(attribute(RTA_DST, destination))
    if gateway:
        parts.append(attribute(RTA_GATEWAY, gateway))
    if index:
        parts.append(u32(RTA_OIF, index))
    return message(kind, flags, head, *parts)


def get_routes(family: int) -> bytes:
    return message(RTM_GETROUTE, 0, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def read_route(payload: bytes) -> Route | None:
    """A unicast route of the main table; None for any other."""
    family, prefix, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(payload)
    found = parse(payload, _RTMSG.size)
    if RTA_TABLE in found:
        table = integer(found[RTA_TABLE])
    if table != RT_TABLE_MAIN or kind != RTN_UNICAST:
        return None
    return Route(
        family,
        found.get(RTA_DST, b""),
        prefix,
        found.get(RTA_GATEWAY, b""),
        integer(found.get(RTA_OIF, b"")),
    )


def macvlan(mode: str) -> bytes:
    """The data of a macvlan link."""
    return u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])


def ipvlan(mode: str, flag: str) -> bytes:
    """The data of an ipvlan link."""
    return u16(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode]) + u16(IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag])


def vlan(number: int) -> bytes:
    """The data of an 802.1q sub-interface."""
    return u16(IFLA_VLAN_ID, number)


def vxlan(number: int, port: int, local: bytes, *, v6: bool) -> bytes:
    """The data of a VXLAN link; `local` b"" leaves the address to the routes."""
    data = u32(IFLA_VXLAN_ID, number) + u8(IFLA_VXLAN_LEARNING, 1)
    data += attribute(IFLA_VXLAN_PORT, struct.pack("!H", port))
    if local or v6:
        data += attribute(IFLA_VXLAN_LOCAL6 if v6 else IFLA_VXLAN_LOCAL, local or bytes(16))
    return data


def add_flood(index: int, address: bytes) -> bytes:
    """Let a VXLAN link send what it knows no way for to this address as well."""
    head = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP_PERMANENT, NTF_SELF, 0)
    parts = (attribute(NDA_LLADDR, bytes(6)), attribute(NDA_DST, address))
    return message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, head, *parts)


def isolated(on: bool) -> bytes:
    """A bridge port that reaches no other isolated port."""
    return u8(IFLA_BRPORT_ISOLATED, int(on))


def hairpin(on: bool) -> bytes:
    """A bridge port whose frames may go back where they came from."""
    return u8(IFLA_BRPORT_MODE, int(on))
