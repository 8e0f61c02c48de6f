"""The bridge driver: a bridge on the host for each network, a veth pair for each endpoint.

A bridge of ours carries an alias ("pier <engine> <network>", ip-link(8)), by which an engine knows
its own after a crash and leaves those of others alone. A name that the user gave may be a bridge
that is there already: it is used and never deleted.
"""

import contextlib
import errno
import hashlib
import logging
from ipaddress import ip_interface, ip_network

from pier.errors import Conflict, Internal
from pier.kernel import rtnetlink as rt
from pier.kernel.netlink import Netlink, text, u32
from pier.model.network import NetworkRecord
from pier.network import links, overlay
from pier.network.links import Inside, Interface
from pier.network.namespaces import Namespaces
from pier.network.options import BridgeOptions, parse_bridge
from pier.network.rules import BridgeRules

log = logging.getLogger(__name__)

VETH_PREFIX = "veth"
_NAME_HEX = 12


class Bridges:
    """`engine_id` tells this engine's links from those of others."""

    def __init__(self, netlink: Netlink, namespaces: Namespaces, engine_id: str) -> None:
        self._netlink = netlink
        self._namespaces = namespaces
        self._engine_id = engine_id
        self._indexes: dict[str, int] = {}

    def options(self, record: NetworkRecord) -> BridgeOptions:
        return parse_bridge(record.Options, internal=record.Internal)

    def rules(self, record: NetworkRecord) -> BridgeRules:
        subnets = tuple(ip_network(entry.Subnet) for entry in record.used_config)
        return BridgeRules(record.interface, subnets, self.options(record), record.Internal)

    def choose_name(self, record: NetworkRecord, *, first: str = "") -> str:
        """The name for a new network's bridge: the user's, `first` or the next like it, or by ID.

        Raises Conflict when the user's name belongs to another engine's network.
        """
        wanted = self.options(record).name
        if wanted:
            link = links.find(self._netlink, wanted)
            if link is not None and link.alias.startswith(links.ALIAS_PREFIX) and not self._owns(link, record):  # fmt: skip
                raise Conflict(f"bridge {wanted} belongs to another network")
            return wanted
        if not first:
            return f"br-{record.Id[:_NAME_HEX]}"
        base = first.rstrip("0123456789")
        names = [first, *(f"{base}{n}" for n in range(int(first[len(base) :] or 0) + 1, 1000))]
        for name in names:
            link = links.find(self._netlink, name)
            if link is None or self._owns(link, record):
                return name
        raise Internal(f"no name is left for a bridge like {first}")

    def ensure(self, record: NetworkRecord) -> None:
        """Make the bridge unless it is there, and let it be as the record says. Raises Internal."""
        try:
            self._ensure(record)
        except OSError as exc:
            told = exc.strerror or exc
            raise Internal(
                f"cannot create network {record.Id} ({record.interface}): {told}"
            ) from exc

    def remove(self, record: NetworkRecord) -> None:
        """Delete the bridge if it is ours; absent is fine. Raises Internal."""
        self._indexes.pop(record.Id, None)
        try:
            if record.Driver == overlay.DRIVER:
                links.remove(self._netlink, overlay.link_name(record.Id))
            link = links.find(self._netlink, record.interface)
            if link is not None and self._owns(link, record):
                links.remove(self._netlink, record.interface)
        except OSError as exc:
            raise Internal(f"cannot remove {record.interface}: {exc}") from exc

    def attach(self, record: NetworkRecord, netns_fd: int, veth: str, inside: Inside) -> None:
        """Give a namespace an interface on the network. Raises OSError, nothing left then."""
        options = self.options(record)
        try:
            self._add_veth(record, netns_fd, veth, inside, isolated=not options.icc)
        except OSError as exc:
            if exc.errno != errno.ENODEV:
                raise
            # The bridge went away behind our back.
            self._ensure(record)
            self._add_veth(record, netns_fd, veth, inside, isolated=not options.icc)
        try:
            with self._namespaces.entered(netns_fd), Netlink() as netlink:
                links.configure(netlink, inside)
        except OSError:
            links.remove(self._netlink, veth)
            raise

    def join(self, record: NetworkRecord, link: rt.Link) -> None:
        """Make a link a port of the bridge, and up, unless it is. Raises OSError."""
        if record.Id not in self._indexes:
            self._ensure(record)
        bridge = self._indexes[record.Id]
        if link.master != bridge or not link.flags & rt.IFF_UP:
            self._netlink.request(rt.set_link(link.index, u32(rt.IFLA_MASTER, bridge), up=True))

    def set_hairpin(self, veth: str, *, on: bool) -> None:
        """See `links.Inside.hairpin`. Raises OSError."""
        index = rt.read_link(self._netlink.get(rt.get_link(veth))).index
        self._netlink.request(rt.set_port(index, rt.hairpin(on)))

    def detach(self, veth: str) -> None:
        """Take an interface away. Raises OSError."""
        links.remove(self._netlink, veth)

    def sweep(self, record: NetworkRecord, known: set[str]) -> None:
        """Delete the veths on the bridge that no endpoint has."""
        link = links.find(self._netlink, record.interface)
        if link is None or not self._owns(link, record):
            return
        for port in links.all_links(self._netlink):
            if port.master == link.index and port.kind == "veth" and port.name not in known:
                with contextlib.suppress(OSError):
                    links.remove(self._netlink, port.name)

    def sweep_bridges(self, known: set[str]) -> None:
        """Delete this engine's bridges whose networks (by ID) are not known."""
        mine = f"{links.ALIAS_PREFIX}{self._engine_id} "
        for link in links.all_links(self._netlink):
            if link.alias.startswith(mine) and link.alias.removeprefix(mine) not in known:
                with contextlib.suppress(OSError):
                    links.remove(self._netlink, link.name)

    def _add_veth(
        self, record: NetworkRecord, netns_fd: int, veth: str, inside: Inside, *, isolated: bool
    ) -> None:
        if record.Id not in self._indexes:
            self._ensure(record)
        bridge = self._indexes[record.Id]
        links.add_veth(
            self._netlink,
            veth,
            inside,
            netns_fd,
            bridge=bridge,
            isolated=isolated,
            hairpin=inside.hairpin,
        )

    def _ensure(self, record: NetworkRecord) -> None:
        options = self.options(record)
        link = links.find(self._netlink, record.interface)
        if link is None:
            mac = self._mac(record)
            index = links.make_bridge(
                self._netlink, record.interface, self._alias(record), mac, options.mtu
            )
        elif link.kind != "bridge":
            raise OSError(errno.EEXIST, f"{record.interface} is a link of kind {link.kind or 'device'}")  # fmt: skip
        else:
            index = link.index
            alias = text(rt.IFLA_IFALIAS, self._alias(record))
            owned = [alias] if self._owns(link, record) else []
            self._netlink.request(rt.set_link(index, *owned, up=True))
        self._indexes[record.Id] = index
        if record.Driver == overlay.DRIVER:
            overlay.ensure(
                self._netlink,
                overlay.link_name(record.Id),
                overlay.parse(record.Options),
                bridge=index,
                alias=self._alias(record),
                mtu=options.mtu or overlay.MTU,
            )
        _set_sysctls(record)
        if link is None or self._owns(link, record):
            links.set_addresses(self._netlink, index, _gateways(record, options))

    def _owns(self, link: rt.Link, record: NetworkRecord) -> bool:
        """By the alias; or, when we were killed before we had set that, by the MAC it was born with."""
        if link.alias:
            return link.alias == self._alias(record)
        return link.kind == "bridge" and link.address == links.mac_bytes(self._mac(record))

    def _alias(self, record: NetworkRecord) -> str:
        return f"{links.ALIAS_PREFIX}{self._engine_id} {record.Id}"

    def _mac(self, record: NetworkRecord) -> str:
        digest = hashlib.sha256(self._alias(record).encode()).digest()
        return f"02:42:{digest[:4].hex(':')}"


def _gateways(record: NetworkRecord, options: BridgeOptions) -> list[Interface]:
    """The bridge's own addresses: the gateways, unless the network is isolated from the host."""
    found = []
    for entry in record.used_config:
        subnet = ip_network(entry.Subnet)
        mode = options.mode4 if subnet.version == 4 else options.mode6
        if not entry.Gateway or mode == "isolated" or (subnet.version == 4 and options.inhibit4):
            continue
        found.append(ip_interface(f"{entry.Gateway}/{subnet.prefixlen}"))
    return found


def _set_sysctls(record: NetworkRecord) -> None:
    name = record.interface
    # See `rules`: what the host sends to 127.0.0.1:port comes back through here.
    links.write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
    with contextlib.suppress(OSError):  # a host without IPv6
        links.write_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
        if record.EnableIPv6:
            links.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0")
