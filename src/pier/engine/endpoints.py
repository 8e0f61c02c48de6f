"""A container's places on networks, from the start to the end of a run.

    allocate    a namespace, addresses, host ports: taken, and recorded before anything is made
    attach      links, rules, sockets are made; the keeper is being forked meanwhile
    release     everything is given back; links go with the namespace
    adopt       a container that runs since before this pierd gets its descriptors and sockets again

Each is one step of the loop, so that nobody sees half of one. What is taken stands in the
container's record: a pierd that starts after a crash fills its pools from the records of what still
runs, and forgets the rest.
"""

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace

from pier.engine.address_pools import AddressPools
from pier.engine.container import Container
from pier.engine.egress import Egress, of_container
from pier.engine.endpoint_settings import (
    FAILED,
    addresses,
    check_endpoint,
    gateway_of,
    gateways,
    mac_of,
    may_configure_networks,
    prefixed,
    veth_name,
)
from pier.engine.events import Events
from pier.engine.names_of_networks import ContainerNames, Directory, dns_names, is_named
from pier.engine.plug import Plug
from pier.engine.publishing import Publishing
from pier.engine.store import ContainerStore
from pier.engine.tasks import Tasks
from pier.errors import Conflict, Forbidden, Internal, PierError
from pier.kernel.netlink import Netlink
from pier.model.container import Attachment, ContainerRecord, EndpointSettings
from pier.model.network import NetworkRecord
from pier.network import links, options, shaping
from pier.network.bridges import Bridges
from pier.network.dns_server import DnsServer
from pier.network.firewall import Firewall
from pier.network.guard import Port
from pier.network.links import Inside
from pier.network.namespaces import Namespaces
from pier.network.parents import Parents
from pier.network.rules import Publication
from pier.network.shaping import Shape, parse_shape
from pier.network.store import NetworkStore

log = logging.getLogger(__name__)

JOINED = "container:"


class Endpoints:
    def __init__(  # noqa: PLR0913  # what it brings together
        self,
        *,
        networks: NetworkStore,
        containers: ContainerStore,
        namespaces: Namespaces,
        bridges: Bridges,
        parents: Parents,
        firewall: Firewall,
        events: Events,
        publishing: Publishing,
        tasks: Tasks,
        egress: Egress,
        dns: tuple[str, ...],
    ) -> None:
        self._networks = networks
        self._containers = containers
        self._namespaces = namespaces
        self._bridges = bridges
        self._parents = parents
        self._firewall = firewall
        self._events = events
        self._publishing = publishing
        self._tasks = tasks
        self._egress = egress
        self._dns = dns
        self.directory = Directory(networks, containers)
        self.pools = AddressPools()
        self._plugs: dict[str, Plug] = {}

    def publications(self) -> list[Publication]:
        """What is published now."""
        return [each for plug in self._plugs.values() for each in plug.publications]

    def guarded(self) -> list[Port]:
        """The endpoints that are held to their addresses now."""
        return [each for plug in self._plugs.values() for each in plug.guarded]

    def members(self, network: NetworkRecord) -> Iterator[tuple[ContainerRecord, Attachment]]:
        """The containers that are on a network now."""
        for container in self._containers:
            for attachment in container.record.networks.values():
                settings = attachment.settings
                if settings.NetworkID == network.Id and settings.EndpointID:
                    yield container.record, attachment

    # A run

    def allocate(self, container: Container) -> str | None:
        """Take what a start needs; return the namespace to join, None when it is not a private one.

        Undone by `release`. Raises PierError in Docker's words, nothing taken then.
        """
        record = container.record
        mode = record.HostConfig.NetworkMode
        if mode.startswith(JOINED):
            return None
        try:
            self._take_names(record)
            self._egress.check(record)
            if mode == "host":
                self._mark(record, "host")
                self._containers.save(container)
                return None
            plug = Plug(self._namespaces.take())
            self._plugs[container.id] = plug
            interfaces = _interfaces_asked_for(record)
            for name in record.networks:
                self._assign(record, name, interfaces)
            self._publishing.take(record, plug)
            record.sandbox_id = secrets.token_hex(32)
            # Before anything is made: whoever finds it knows whose it is.
            self._containers.save(container)
        except PierError as exc:
            self.release(container, quiet=True)
            raise prefixed(exc) from exc
        except OSError as exc:
            self.release(container, quiet=True)
            raise Internal(f"{FAILED}{exc.strerror or exc}") from exc
        return plug.path

    def attach(self, container: Container) -> None:
        """Make what was taken. Raises Internal; `release` undoes what was made by then."""
        plug = self._plugs.get(container.id)
        record = container.record
        try:
            if plug is not None:
                routes = gateways(record, self._networks)
                if of_container(record) is not None:
                    self._egress.hold(record)
                for name, attachment in record.networks.items():
                    self._plug_in(plug, self._networks.get(name), attachment, routes)
                self._guard(plug, record)
                self._shape(plug, record)
                self._firewall.publish(plug.publications)
                self._publishing.relay(plug, record)
                self._serve_names(plug, record)
        except OSError as exc:
            raise Internal(f"{FAILED}{exc.strerror or exc}") from exc
        except PierError as exc:
            raise prefixed(exc) from exc
        self.directory.changed()
        for name in record.networks:
            self._tell(record, name, "connect")

    def release(self, container: Container, *, quiet: bool = False) -> None:
        """Give back what a run had; nothing to give is fine. The record is the caller's to save."""
        record = container.record
        plug = self._plugs.pop(container.id, None)
        if plug is not None:
            self._firewall.withdraw(plug.publications)
            self._firewall.let_go(plug.guarded)
            self._unplug(plug)
        self._egress.let_go(record)
        for name, attachment in record.networks.items():
            if attachment.settings.EndpointID:
                self.pools.free(attachment)
                if not quiet:
                    self._tell(record, name, "disconnect")
        record.ports = {}
        record.sandbox_id = ""
        self.directory.changed()

    def adopt(self, container: Container) -> None:
        """Take up the network of a container that runs already. What cannot be is logged."""
        record = container.record
        if container.id in self._plugs or not record.sandbox_id or not record.State.Pid:
            return
        try:
            fd = os.open(f"/proc/{record.State.Pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            log.warning("the network of container %s is out of reach: %s", record.Id, exc)
            return
        if record.HostConfig.NetworkMode == "host":
            os.close(fd)
            return
        plug = Plug(fd)
        self._plugs[container.id] = plug
        for name, attachment in list(record.networks.items()):
            network = self._networks.find(name)
            if network is None or not attachment.settings.EndpointID:
                continue
            self.pools.reserve(network, attachment)
            self._repair(plug, network, attachment, record)
        self._publishing.retake(record, plug)
        plug.guarded = self._ports_to_guard(record)
        self._egress.remember(record)
        plug.shape = parse_shape(record.HostConfig.Annotations)
        self._publishing.relay(plug, record)
        self.directory.changed()
        try:
            self._serve_names(plug, record)
        except OSError as exc:
            log.warning("container %s has no DNS: %s", record.Id, exc)

    def renamed(self, container: Container) -> None:
        """Let the networks know a container by its new name."""
        record = container.record
        for name, attachment in record.networks.items():
            network = self._networks.find(name)
            if network is not None and is_named(network):
                attachment.settings.DNSNames = dns_names(record, attachment.settings)
        self.directory.changed()
        self._containers.save(container)

    def veths(self) -> set[str]:
        """The names of all links that endpoints have on the host."""
        return {
            veth_name(attachment.settings.EndpointID)
            for container in self._containers
            for attachment in container.record.networks.values()
            if attachment.settings.EndpointID
        }

    def close(self) -> None:
        """Let go of descriptors; containers go on."""
        for plug in self._plugs.values():
            self._unplug(plug)
        self._plugs.clear()

    # Live changes

    def connect(self, container: Container, name: str, attachment: Attachment) -> None:
        """Put a running container on one more network. Raises PierError; nothing changed then."""
        record = container.record
        plug = self._plugs.get(container.id)
        if plug is None:
            raise Conflict(f"container {container.id} has no network of its own")
        record.networks[name] = attachment
        try:
            interfaces = {a.interface for a in record.networks.values() if a is not attachment}
            self._egress.check(record)
            self._assign(record, name, interfaces)
            network = self._networks.get(name)
            if of_container(record) is not None:
                self._egress.hold(record)
            self._plug_in(plug, network, attachment, ())
            self._guard(plug, record)
            self._shape(plug, record)
            self._reroute(plug, record)
            self._follow(plug, record)
            self._serve_names(plug, record)
        except (OSError, PierError) as exc:
            del record.networks[name]
            if attachment.settings.EndpointID:
                with contextlib.suppress(OSError):
                    self._pull_out(plug, attachment, name)
                self.pools.free(attachment)
            with contextlib.suppress(OSError, PierError):
                self._egress.hold(record)
                self._guard(plug, record)
                self._reroute(plug, record)
                self._follow(plug, record)
            if isinstance(exc, PierError):
                raise
            raise Internal(str(exc)) from exc
        finally:
            self.directory.changed()
        self._tell(record, name, "connect")

    def disconnect(self, container: Container, name: str) -> None:
        """Take a container off a network, running or not. Raises Internal."""
        record = container.record
        attachment = record.networks.pop(name)
        plug = self._plugs.get(container.id)
        if not attachment.settings.EndpointID:
            return
        self._tell_of(record, attachment, name, "disconnect")
        try:
            if plug is not None:
                self._pull_out(plug, attachment, name)
        except OSError as exc:
            raise Internal(str(exc)) from exc
        finally:
            self.pools.free(attachment)
            self.directory.changed()
            if plug is not None:
                self._guard(plug, record)
                self._egress.hold(record)
                self._follow(plug, record)
                with contextlib.suppress(OSError):
                    self._reroute(plug, record)

    # Parts

    def _take_names(self, record: ContainerRecord) -> None:
        """Let the record name its networks as they are called: users give IDs as well."""
        if not record.networks:  # it was made before there were networks, or taken off all
            mode = record.HostConfig.NetworkMode or "bridge"
            record.networks = {mode: Attachment(EndpointSettings())}
        named = {}
        for given, attachment in record.networks.items():
            network = self._networks.get(given)
            if network.ConfigOnly:
                raise Forbidden("cannot create endpoint on configuration-only network")
            attachment.settings.NetworkID = network.Id
            named[network.Name] = attachment
        record.networks = named

    def _mark(self, record: ContainerRecord, name: str) -> None:
        """A place without a link: it has an ID, and that is all."""
        network = self._networks.get(name)
        settings = record.networks[name].settings
        settings.NetworkID = network.Id
        settings.EndpointID = secrets.token_hex(32)
        record.sandbox_id = secrets.token_hex(32)

    def _assign(self, record: ContainerRecord, name: str, interfaces: set[str]) -> None:
        """Take addresses for one endpoint and write them into its settings.

        Its interface gets a name that is not among `interfaces`, unless it was asked for, and is added.
        """
        network = self._networks.get(name)
        attachment = record.networks[name]
        settings = attachment.settings
        if network.Driver in ("null", "host"):
            settings.NetworkID = network.Id
            settings.EndpointID = secrets.token_hex(32)
            return
        check_endpoint(network, settings)
        taken = self.pools.lease(network, settings)
        settings.NetworkID = network.Id
        settings.EndpointID = secrets.token_hex(32)
        for leases, address in taken:
            gateway = "" if network.Internal else gateway_of(network, leases)
            if address.version == 4:
                settings.IPAddress, settings.IPPrefixLen = str(address), leases.subnet.prefixlen
                settings.Gateway = gateway
            else:
                settings.GlobalIPv6Address = str(address)
                settings.GlobalIPv6PrefixLen = leases.subnet.prefixlen
                settings.IPv6Gateway = gateway
        settings.MacAddress = attachment.mac or mac_of(settings.IPAddress)
        settings.DNSNames = dns_names(record, settings) if is_named(network) else None
        driver = settings.DriverOpts or {}
        prefix = self._bridges.options(network).prefix if network.is_bridged else "eth"
        free = next(n for n in range(len(interfaces) + 1) if f"{prefix}{n}" not in interfaces)
        attachment.interface = driver.get(options.ENDPOINT_NAME) or f"{prefix}{free}"
        interfaces.add(attachment.interface)

    def _plug_in(
        self,
        plug: Plug,
        network: NetworkRecord,
        attachment: Attachment,
        routes: tuple[str, ...],
    ) -> None:
        """Make an endpoint's link. `routes` are the container's gateways; others' are ignored."""
        settings = attachment.settings
        if network.Driver in ("null", "host"):
            return
        own = {settings.Gateway, settings.IPv6Gateway} - {""}
        inside = Inside(
            attachment.interface,
            settings.MacAddress,
            addresses(settings),
            mtu=options.mtu(network.Options),
            gateways=tuple(g for g in routes if g in own),
            hairpin=bool(plug.publications),
            sysctls=options.endpoint_sysctls(settings.DriverOpts or {}, attachment.interface),
        )
        if network.is_bridged:
            try:
                self._bridges.attach(network, plug.netns_fd, veth_name(settings.EndpointID), inside)
            except OSError as exc:
                if exc.errno != errno.EEXIST:
                    raise
                veth = veth_name(settings.EndpointID)
                raise Internal(
                    f'error renaming interface "{veth}" to "{attachment.interface}": file exists'
                ) from exc
            return
        if self._parents.routes(network) and inside.gateways:
            inside = replace(inside, gateways=("%",))
        self._parents.attach(network, plug.netns_fd, inside)

    def _pull_out(self, plug: Plug, attachment: Attachment, name: str) -> None:
        """Take an endpoint's link away. Raises OSError."""
        network = self._networks.find(name)
        if network is not None and not network.is_bridged:
            self._parents.detach(plug.netns_fd, attachment.interface)
        else:
            self._bridges.detach(veth_name(attachment.settings.EndpointID))

    def _repair(
        self, plug: Plug, network: NetworkRecord, attachment: Attachment, record: ContainerRecord
    ) -> None:
        """Give a running container its link back when that has gone (with its bridge, perhaps)."""
        if not network.is_bridged:
            return
        try:
            with Netlink() as netlink:
                veth = veth_name(attachment.settings.EndpointID)
                link = links.find(netlink, veth)
                if link is not None:
                    self._bridges.join(network, link)
                    return
            self._plug_in(plug, network, attachment, gateways(record, self._networks))
        except (OSError, PierError) as exc:
            log.warning("container %s has lost network %s: %s", record.Id, network.Name, exc)

    def _reroute(self, plug: Plug, record: ContainerRecord) -> None:
        """Let the default routes be those of the network that has the gateway now."""
        routes = gateways(record, self._networks)
        with self._namespaces.entered(plug.netns_fd), Netlink() as netlink:
            links.set_default_routes(netlink, routes)

    def _guard(self, plug: Plug, record: ContainerRecord) -> None:
        """Hold the endpoints that a container has now to what they were given. Raises Internal."""
        wanted = self._ports_to_guard(record)
        gone = [port for port in plug.guarded if port not in wanted]
        new = [port for port in wanted if port not in plug.guarded]
        plug.guarded = wanted
        self._firewall.let_go(gone)
        self._firewall.hold(new)

    def republish(self, container: Container) -> None:
        """Let a running container publish what its bindings say now. Raises PierError."""
        record = container.record
        plug = self._plugs.get(container.id)
        if plug is None:
            return
        self._publishing.change(record, plug)
        self._set_hairpins(plug, record)

    def _follow(self, plug: Plug, record: ContainerRecord) -> None:
        """Let published ports lead to where the container is now. Raises Internal."""
        before = bool(plug.publications)
        self._publishing.follow(record, plug)
        if bool(plug.publications) != before:
            self._set_hairpins(plug, record)

    def _set_hairpins(self, plug: Plug, record: ContainerRecord) -> None:
        for name, attachment in record.networks.items():
            network = self._networks.find(name)
            if network is not None and network.is_bridged:
                veth = veth_name(attachment.settings.EndpointID)
                with contextlib.suppress(OSError):
                    self._bridges.set_hairpin(veth, on=bool(plug.publications))

    def police(self, container: Container) -> None:
        """Let the policy of a container's way out be what its annotations say. Raises PierError."""
        record = container.record
        self._egress.check(record)
        plug = self._plugs.get(container.id)
        if plug is None:
            return
        try:
            self._egress.hold(record)
            self._guard(plug, record)
            self._serve_names(plug, record)
        except OSError as exc:
            raise Internal(str(exc)) from exc

    def plug(self, container: Container) -> Plug | None:
        """What a running container with a network of its own has here."""
        return self._plugs.get(container.id)

    def reshape(self, container: Container) -> None:
        """Let a running container's interfaces be as fast as its annotations say now.

        Raises Internal.
        """
        plug = self._plugs.get(container.id)
        if plug is not None:
            try:
                self._shape(plug, container.record)
            except OSError as exc:
                raise Internal(f"the rate of the container's interfaces: {exc.strerror}") from exc

    def _shape(self, plug: Plug, record: ContainerRecord) -> None:
        """Limit rates where that is asked for, or was. Raises OSError."""
        shape = parse_shape(record.HostConfig.Annotations)
        if shape == plug.shape == Shape():
            return
        plug.shape = shape
        for name, attachment in record.networks.items():
            network = self._networks.find(name)
            if network is None or not network.is_bridged:
                continue
            with Netlink() as netlink:
                veth = veth_name(attachment.settings.EndpointID)
                shaping.apply_in(netlink, veth, shape)
            with self._namespaces.entered(plug.netns_fd), Netlink() as netlink:
                shaping.apply_out(netlink, attachment.interface, shape)

    def _ports_to_guard(self, record: ContainerRecord) -> list[Port]:
        confined = of_container(record) is not None
        if may_configure_networks(record.HostConfig) and not confined:
            return []
        found = []
        for name, attachment in record.networks.items():
            network = self._networks.find(name)
            settings = attachment.settings
            if network is None or not network.is_bridged or not settings.EndpointID:
                continue
            texts = tuple(str(address.ip) for address in addresses(settings))
            found.append(Port(veth_name(settings.EndpointID), settings.MacAddress, texts, confined))
        return found

    def _serve_names(self, plug: Plug, record: ContainerRecord) -> None:
        """Serve DNS in the container as long as it is on a network with names. Raises OSError."""
        if plug.dns is None and self.has_names(record):
            names = ContainerNames(
                record,
                self.directory,
                self._networks,
                self._egress,
                find=self._find,
                dns=self._dns,
            )
            plug.dns = DnsServer(self._namespaces, plug.netns_fd, names, self._tasks)

    def has_names(self, record: ContainerRecord) -> bool:
        """Whether a container has a DNS server of ours: for names, or for a policy's."""
        if record.HostConfig.NetworkMode == "host":
            return False
        places = (self._networks.find(name) for name in record.networks)
        return any(n is not None and is_named(n) for n in places) or self._egress.applies(record)

    def _find(self, ref: str) -> ContainerRecord | None:
        try:
            return self._containers.get(ref).record
        except PierError:
            return None

    def _unplug(self, plug: Plug) -> None:
        if plug.dns is not None:
            plug.dns.close()
        for relay in plug.relays:
            relay.close()
        self._publishing.ports.release(plug.held)
        os.close(plug.netns_fd)

    # Word of it

    def _tell(self, record: ContainerRecord, name: str, action: str) -> None:
        self._tell_of(record, record.networks[name], name, action)

    def _tell_of(
        self, record: ContainerRecord, attachment: Attachment, name: str, action: str
    ) -> None:
        network = self._networks.find(name)
        driver = network.Driver if network is not None else ""
        attributes = {"container": record.Id, "name": name, "type": driver}
        self._events.publish("network", action, attachment.settings.NetworkID, attributes)


def _interfaces_asked_for(record: ContainerRecord) -> set[str]:
    """The names that endpoints want for their interfaces: those of others keep clear of them."""
    drivers = (attachment.settings.DriverOpts or {} for attachment in record.networks.values())
    return {driver[options.ENDPOINT_NAME] for driver in drivers if options.ENDPOINT_NAME in driver}
