"""What containers are called on their networks, for the DNS servers that they see.

A container knows the names of those networks that users made, by every name that an endpoint
there has (`DNSNames`: the container's, its aliases, its short ID), bare or followed by the
network's; and what it calls others by links. Names of containers that are away are known as well,
so that they are never asked for elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from pier.engine.egress import Egress
from pier.engine.store import ContainerStore
from pier.model.container import Attachment, ContainerRecord, EndpointSettings
from pier.model.network import NetworkRecord
from pier.network.dns_server import ADDRESS
from pier.network.dns_upstream import Server, host_servers
from pier.network.store import NetworkStore

Address = IPv4Address | IPv6Address


class Directory:
    """All names by network, made when somebody asks and forgotten when something `changed`."""

    def __init__(self, networks: NetworkStore, containers: ContainerStore) -> None:
        self._networks = networks
        self._containers = containers
        self._names: dict[str, dict[str, list[Address]]] | None = None
        self._holders: dict[Address, str] = {}

    def changed(self) -> None:
        self._names = None

    def lookup(self, network: NetworkRecord, name: str) -> Sequence[Address] | None:
        """The addresses of a name on a network, none when it is away, None when it is unknown."""
        known = self._all().get(network.Id, {})
        found = known.get(name)
        suffix = "." + network.Name.lower()
        if found is None and name.endswith(suffix):
            found = known.get(name.removesuffix(suffix))
        return found

    def names(self, network: NetworkRecord) -> dict[str, list[str]]:
        """All names on a network with their addresses."""
        known = self._all().get(network.Id, {})
        return {name: [str(address) for address in found] for name, found in known.items()}

    def holder(self, address: Address) -> str:
        """The full name of whoever has an address, "" for nobody."""
        self._all()
        return self._holders.get(address, "")

    def _all(self) -> dict[str, dict[str, list[Address]]]:
        if self._names is None:
            self._names, self._holders = {}, {}
            for container in self._containers:
                for name, attachment in container.record.networks.items():
                    self._add(container.record, name, attachment.settings)
        return self._names

    def _add(self, record: ContainerRecord, network_name: str, settings: EndpointSettings) -> None:
        network = self._networks.find(network_name)
        if network is None or not is_named(network):
            return
        assert self._names is not None
        names = self._names.setdefault(network.Id, {})
        found = addresses_of(settings)
        for name in settings.DNSNames or dns_names(record, settings):
            names.setdefault(name.lower(), []).extend(found)
        for address in found:
            self._holders[address] = f"{record.Name}.{network.Name}"


class ContainerNames:
    """What one container may ask for (`network.dns_server.Names`)."""

    def __init__(
        self,
        record: ContainerRecord,
        directory: Directory,
        networks: NetworkStore,
        egress: Egress,
        *,
        find: Callable[[str], ContainerRecord | None],
        dns: Sequence[str],
    ) -> None:
        self._record = record
        self._directory = directory
        self._networks = networks
        self._egress = egress
        self._find = find
        self._dns = dns

    def addresses(self, name: str) -> Sequence[Address] | None:
        known: list[Address] | None = None
        for network, attachment in self._places():
            linked = self._linked(network, attachment, name)
            found = linked if linked is not None else self._directory.lookup(network, name)
            if found is not None:
                known = [*(known or ()), *found]
        return known

    def name_of(self, address: Address) -> str | None:
        for network, _ in self._places():
            subnets = (ip_network(entry.Subnet) for entry in network.used_config)
            if any(address in subnet for subnet in subnets):
                return self._directory.holder(address)
        return None

    def servers(self) -> Sequence[Server]:
        """None when every network of the container is an internal one."""
        if all(network.Internal for network, _ in self._places()):
            return ()
        own = self._record.HostConfig.Dns or self._dns
        # What a policy lets the container look up is not a way out of its own.
        inside = not self._egress.applies(self._record)
        # Our own server would be asking itself.
        named = [Server(address, inside=inside) for address in own if address != ADDRESS]
        return named if own else host_servers()

    def may_ask(self, name: str) -> bool:
        return self._egress.may_ask(self._record, name)

    def answered(self, name: str, response: bytes) -> None:
        if self._egress.applies(self._record):
            self._egress.answered(self._record, name, response)

    def _linked(
        self, network: NetworkRecord, attachment: Attachment, name: str
    ) -> list[Address] | None:
        for target, alias in links_of(attachment.settings.Links):
            if alias.lower() != name:
                continue
            record = self._find(target)
            place = record.networks.get(network.Name) if record is not None else None
            return addresses_of(place.settings) if place is not None else []
        return None

    def _places(self) -> Iterator[tuple[NetworkRecord, Attachment]]:
        for name, attachment in self._record.networks.items():
            network = self._networks.find(name)
            if network is not None and network.Driver not in ("host", "null"):
                yield network, attachment


def is_named(network: NetworkRecord) -> bool:
    """Whether containers on a network have names: not on the default bridge, as with Docker."""
    return network.Name != "bridge" and network.Driver not in ("host", "null")


def dns_names(record: ContainerRecord, settings: EndpointSettings) -> list[str]:
    """What a container is called on a network that a user made."""
    names = [record.Name, *(settings.Aliases or ()), record.Id[:12]]
    if record.Config.Hostname:
        names.append(record.Config.Hostname)
    return list(dict.fromkeys(names))


def addresses_of(settings: EndpointSettings) -> list[Address]:
    texts = (settings.IPAddress, settings.GlobalIPv6Address)
    return [ip_address(text) for text in texts if text]


def links_of(links: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """The (container, alias) pairs of "container:alias" or "container"."""
    for link in links or ():
        target, _, alias = link.partition(":")
        yield target, alias or target
