"""Policies of what containers and networks reach outside: kept in force as things change.

A container's is its annotation `pier.egress`, a network's its option of that name; a packet has to
pass both. What names stand for is learnt from the answers that pass the DNS server of a container.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network

from pier.engine.endpoint_settings import addresses
from pier.engine.etc_files import HOST_GATEWAY, split_extra_host
from pier.errors import Conflict, PierError
from pier.model.container import ContainerRecord
from pier.model.egress import EgressName, EgressRefusal, EgressReport
from pier.model.network import NetworkRecord
from pier.network import dns_wire, egress
from pier.network.egress import Address, Policy
from pier.network.egress_rules import Holder
from pier.network.egress_table import EgressTable
from pier.network.store import NetworkStore

log = logging.getLogger(__name__)

_ALIASES_REMEMBERED = 1024


class Egress:
    """`gateways` are the addresses that `host-gateway` means."""

    def __init__(
        self, networks: NetworkStore, table: EgressTable, gateways: Callable[[], Sequence[str]]
    ) -> None:
        self._networks = networks
        self._table = table
        self._gateways = gateways
        self._aliases: dict[str, dict[str, str]] = {}

    # Who has which

    def applies(self, record: ContainerRecord) -> bool:
        """Whether any policy is about a container."""
        return of_container(record) is not None or any(
            of_network(network) is not None for network in self._places(record)
        )

    def check(self, record: ContainerRecord) -> None:
        """Raise Conflict for a container whose way out does not pass the host's rules."""
        if of_container(record) is None:
            return
        mode = record.HostConfig.NetworkMode
        if mode == "host" or mode.startswith("container:"):
            raise Conflict(f"conflicting options: {egress.OPTION} and the network mode {mode}")
        for network in self._places(record):
            if not network.is_bridged and network.Driver != "null":
                raise Conflict(
                    f"{egress.OPTION}: what a container sends on network {network.Name} (driver"
                    f" {network.Driver}) does not pass the host's rules"
                )

    def hold(self, record: ContainerRecord) -> None:
        """Put a container's policy in force where it is now, or take it out. PierError."""
        holder = self._holder(record)
        if holder is None:
            self.let_go(record)
            return
        self._table.hold(holder)
        self._fix_extra_hosts(record, holder)

    def remember(self, record: ContainerRecord) -> None:
        """At the start of pierd: a policy that the next whole rule set has."""
        holder = self._holder(record)
        if holder is not None:
            self._table.remember([holder])

    def let_go(self, record: ContainerRecord) -> None:
        """Forget a container's policy; none is fine."""
        self._aliases.pop(record.Id, None)
        self._table.let_go(_key(record))

    def hold_network(self, network: NetworkRecord, *, now: bool = True) -> None:
        """Put a network's policy in force, `now` or with the next whole rule set. PierError."""
        policy = of_network(network)
        if policy is None or not network.is_bridged or not network.interface:
            self._table.let_go(_network_key(network))
            return
        sources = tuple(entry.Subnet for entry in network.used_config)
        holder = Holder(
            _network_key(network),
            policy,
            own=(network.interface,),
            interface=network.interface,
            sources=sources,
        )
        if now:
            self._table.hold(holder)
        else:
            self._table.remember([holder])

    def let_go_network(self, network: NetworkRecord) -> None:
        self._table.let_go(_network_key(network))

    # Names

    def may_ask(self, record: ContainerRecord, name: str) -> bool:
        """Whether a container may look a name of elsewhere up; one that it may not is counted."""
        name = self._aliases.get(record.Id, {}).get(name, name)
        own = of_container(record)
        if own is not None and not self._lists(_key(record), own, name):
            self._table.refused_name(_key(record), name)
            return False
        networks = [(n, of_network(n)) for n in self._places(record)]
        if any(policy is None for _, policy in networks):
            return True
        for network, policy in networks:
            if policy is not None and self._lists(_network_key(network), policy, name):
                return True
        for network, _ in networks:
            self._table.refused_name(_network_key(network), name)
        return False

    def answered(self, record: ContainerRecord, name: str, response: bytes) -> None:
        """Let a name stand for the addresses that the container is about to be told."""
        names, found = dns_wire.addresses_of(response)
        aliases = self._aliases.setdefault(record.Id, {})
        name = aliases.get(name, name)
        for alias in names - {name}:
            if len(aliases) < _ALIASES_REMEMBERED:
                aliases[alias] = name
        try:
            for key in self._keys(record):
                self._table.pin(key, name, found)
        except PierError as exc:
            log.warning("container %s: %s stays out of reach: %s", record.Id, name, exc.message)

    # What is told of it

    def verdict(self, record: ContainerRecord, address: Address, protocol: str, port: int) -> tuple[bool, str]:  # fmt: skip
        """Whether a container may send there, and why."""
        keys = [key for key in self._keys(record) if self._table.holder(key) is not None]
        if not keys:
            return True, "no policy"
        for network in self._places(record):
            for entry in network.used_config:
                if address in ip_network(entry.Subnet) and str(address) != entry.Gateway:
                    return True, f"on network {network.Name}"
        for key in keys:
            if not self._table.allows(key, address, protocol, port):
                whose = "the container" if key == _key(record) else "the network"
                return False, f"not in the policy of {whose}"
        return True, "in the policy"

    def report(self, record: ContainerRecord) -> EgressReport:
        """A container's policy, and what came of it."""
        networks = {n.Name: str(p) for n in self._places(record) if (p := of_network(n)) is not None}  # fmt: skip
        report = EgressReport(
            "container", record.Name, record.Id, _text(of_container(record)), networks
        )
        return self._filled(report, _key(record))

    def network_report(self, network: NetworkRecord) -> EgressReport:
        report = EgressReport("network", network.Name, network.Id, _text(of_network(network)))
        return self._filled(report, _network_key(network))

    def _filled(self, report: EgressReport, key: str) -> EgressReport:
        if self._table.holder(key) is None:
            return report
        report.Names = [
            EgressName(each.name, str(each.address), each.left_s)
            for each in self._table.pinned(key)
        ]
        standing = self._table.standing(key)
        report.Refused = [
            EgressRefusal(each.address, each.protocol, each.port, each.packets)
            for each in sorted(standing.refusals, key=lambda r: -r.packets)
        ]
        report.RefusedPackets = standing.packets
        report.RefusedNames = self._table.refused_names(key)
        return report

    # Parts

    def _holder(self, record: ContainerRecord) -> Holder | None:
        policy = of_container(record)
        if policy is None:
            return None
        bridges = (n.interface for n in self._places(record) if n.is_bridged)
        places = (attachment.settings for attachment in record.networks.values())
        return Holder(
            _key(record),
            policy,
            own=tuple(name for name in bridges if name),
            addresses=tuple(
                str(each.ip)
                for settings in places
                for each in addresses(settings)
                if settings.EndpointID
            ),
        )

    def _fix_extra_hosts(self, record: ContainerRecord, holder: Holder) -> None:
        for item in record.HostConfig.ExtraHosts or ():
            name, text = split_extra_host(item)
            found = self._gateways() if text == HOST_GATEWAY else [text]
            self._table.fix(holder.key, name.lower(), [ip_address(each) for each in found])

    def _lists(self, key: str, policy: Policy, name: str) -> bool:
        address = dns_wire.reverse_address(name)
        if address is None:
            return policy.allows_name(name)
        return any(
            item.subnet is not None and address in item.subnet for item in policy.items
        ) or any(pinned.address == address for pinned in self._table.pinned(key))

    def _keys(self, record: ContainerRecord) -> list[str]:
        return [_key(record), *(_network_key(network) for network in self._places(record))]

    def _places(self, record: ContainerRecord) -> Iterator[NetworkRecord]:
        for name in record.networks:
            network = self._networks.find(name)
            if network is not None:
                yield network


def of_container(record: ContainerRecord) -> Policy | None:
    """The policy that a container was given. Raises InvalidParameter."""
    return egress.parse(record.HostConfig.Annotations.get(egress.OPTION, ""))


def of_network(network: NetworkRecord) -> Policy | None:
    """The policy that a network was given. Raises InvalidParameter."""
    return egress.parse(network.Options.get(egress.OPTION, ""))


def _text(policy: Policy | None) -> str:
    return "allow" if policy is None else str(policy)


def _key(record: ContainerRecord) -> str:
    return f"c{record.Id[:12]}"


def _network_key(network: NetworkRecord) -> str:
    return f"n{network.Id[:12]}"
