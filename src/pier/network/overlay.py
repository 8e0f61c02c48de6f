"""Overlay networks between engines that know each other by address: a bridge with a VXLAN link in it.

    docker network create -d overlay --subnet 10.50.0.0/16 --ip-range 10.50.1.0/24
        --gateway 10.50.1.1 -o pier.overlay.peers=192.0.2.2 blue

Docker's are a swarm's, which tells each node of the others' containers. Here the peers are given,
frames whose way is not known go to all of them, and the kernel learns from the answers. RFC 7348;
neither encrypted nor authenticated.
"""

import errno
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

from pier.errors import InvalidParameter
from pier.kernel import rtnetlink as rt
from pier.kernel.netlink import Netlink, text, u32
from pier.network import links

DRIVER = "overlay"
VXLAN_IDS = "com.docker.network.driver.overlay.vxlanid_list"
PEERS = "pier.overlay.peers"
LOCAL = "pier.overlay.local"
PORT = "pier.overlay.port"
MTU = 1450
"""Of Ethernet's 1500 the outer headers take 50 bytes over IPv4."""

_FIRST_ID = 4096  # as libnetwork's
_KNOWN_PREFIX = "pier.overlay."
_NAME_HEX = 12


class OverlayOptions(Struct, frozen=True):
    """`local` None leaves the address to the host's routes."""

    number: int
    peers: tuple[IPv4Address | IPv6Address, ...]
    local: IPv4Address | IPv6Address | None
    port: int


def parse(options: Mapping[str, str]) -> OverlayOptions:
    """Check a network's options. Raises InvalidParameter."""
    for key in options:
        if key.startswith(_KNOWN_PREFIX) and key not in (PEERS, LOCAL, PORT):
            raise InvalidParameter(f"invalid option for an overlay network: {key}")
    peers = tuple(_address(PEERS, word.strip()) for word in options[PEERS].split(",") if word)
    if not peers:
        raise InvalidParameter(f"invalid {PEERS}: at least one address is needed")
    local = _address(LOCAL, options[LOCAL]) if options.get(LOCAL) else None
    every = [*peers, *([local] if local else [])]
    if len({address.version for address in every}) > 1:
        raise InvalidParameter(f"invalid {PEERS}: the addresses are of different families")
    number = _number(VXLAN_IDS, options.get(VXLAN_IDS, str(_FIRST_ID)), 1, (1 << 24) - 1)
    return OverlayOptions(number, peers, local, _number(PORT, options.get(PORT, "4789"), 1, 65535))


def check_absent(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter for options of ours on a network of another driver."""
    for key in options:
        if key == VXLAN_IDS or key.startswith(_KNOWN_PREFIX):
            raise InvalidParameter(f"{key} is an option of overlay networks")


def link_name(network_id: str) -> str:
    return f"vx-{network_id[:_NAME_HEX]}"


def ensure(
    netlink: Netlink, name: str, options: OverlayOptions, *, bridge: int, alias: str, mtu: int
) -> None:
    """Make the VXLAN link a port of the bridge, unless it is there. Raises OSError.

    EOPNOTSUPP where the kernel has no VXLAN, EEXIST where the number and port are another link's.
    """
    link = links.find(netlink, name)
    if link is not None and link.alias == alias:
        if link.master != bridge or not link.flags & rt.IFF_UP:
            netlink.request(rt.set_link(link.index, u32(rt.IFLA_MASTER, bridge), up=True))
        return
    if link is not None:  # we were killed before it was whole
        links.remove(netlink, name)
    local = options.local.packed if options.local else b""
    data = rt.vxlan(options.number, options.port, local, v6=options.peers[0].version == 6)
    try:
        netlink.request(rt.add_link("vxlan", name, u32(rt.IFLA_MTU, mtu), data=data))
    except OSError as exc:
        if exc.errno == errno.EEXIST:
            raise OSError(
                errno.EEXIST, f"VXLAN {options.number} on port {options.port} is another link's"
            ) from exc
        raise
    try:
        index = rt.read_link(netlink.get(rt.get_link(name))).index
        netlink.batch([
            *(rt.add_flood(index, peer.packed) for peer in options.peers),
            rt.set_link(index, u32(rt.IFLA_MASTER, bridge), up=True),
            rt.set_link(index, text(rt.IFLA_IFALIAS, alias)),
        ])  # fmt: skip
    except OSError:
        links.remove(netlink, name)
        raise


def _address(key: str, word: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(word)
    except ValueError:
        raise InvalidParameter(f"invalid {key}: {word} is no address") from None


def _number(key: str, word: str, least: int, most: int) -> int:
    if not word.isdecimal() or not least <= int(word) <= most:
        raise InvalidParameter(f"invalid {key}: {word} is not a number from {least} to {most}")
    return int(word)
