"""A container's published ports: taken with the start, led to it by rules and relays, given back."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pier.engine.endpoint_settings import exposed, gateway_attachment, ports_shown
from pier.engine.plug import Plug
from pier.errors import Conflict, Internal
from pier.model.container import Attachment, ContainerRecord, PortBinding
from pier.model.network import NetworkRecord
from pier.network.bridges import Bridges
from pier.network.firewall import Firewall
from pier.network.ports import Held, Ports, Wanted, wanted_ports
from pier.network.relay import Relay, Spawner
from pier.network.rules import Publication
from pier.network.store import NetworkStore

log = logging.getLogger(__name__)


class Publishing:
    """`default_hosts` are bound where a port names no address; without `relays` only rules lead.

    With `direct` what is published is reached at containers' own addresses as well, on any network.
    """

    def __init__(
        self,
        *,
        networks: NetworkStore,
        bridges: Bridges,
        firewall: Firewall,
        default_hosts: tuple[str, ...],
        tasks: Spawner,
        relays: bool,
        direct: bool = False,
    ) -> None:
        self._networks = networks
        self._bridges = bridges
        self._firewall = firewall
        self._default_hosts = default_hosts
        self._tasks = tasks
        self._relays = relays
        self._direct = direct
        self.ports = Ports()

    def take(self, record: ContainerRecord, plug: Plug) -> None:
        """Take what a container asks for, and write it into the record. Raises Internal."""
        host = record.HostConfig
        if not (host.PortBindings or host.PublishAllPorts):
            record.ports = dict.fromkeys(exposed(record)) if self._links(record) else {}
            return
        attachment = self._way_in(record)
        if attachment is None:
            # As Docker: an internal network has no way in, others are not led through the host.
            record.ports = dict.fromkeys(exposed(record)) if self._leads_out(record) else {}
            return
        wanted, routed = self._wanted(record)
        try:
            plug.held = [*self.ports.hold(wanted), *routed]
        except Internal as exc:
            raise Internal(
                f"driver failed programming external connectivity on endpoint {record.Name} "
                f"({attachment.settings.EndpointID}): {exc.message}"
            ) from exc
        record.ports = ports_shown(record, plug.held)
        plug.publications = self.publications(record, plug)

    def retake(self, record: ContainerRecord, plug: Plug) -> None:
        """Take again what a container has that runs already. What cannot be is logged."""
        for port, bindings in record.ports.items():
            number, _, protocol = port.partition("/")
            for binding in bindings or ():
                held = Held(protocol, binding.HostIp, int(binding.HostPort), int(number))
                plug.held.append(held)
                try:
                    self.ports.retake(held)
                except Internal as exc:
                    log.warning("container %s: %s", record.Id, exc.message)
        if any(bindings is None for bindings in record.ports.values()):
            plug.held += self._wanted(record)[1]
        plug.publications = self.publications(record, plug)

    def change(self, record: ContainerRecord, plug: Plug) -> None:
        """Let what a running container publishes be what its bindings say now.

        Ports that stay are not let go of for a moment. Raises Internal, nothing changed then.
        """
        if self._way_in(record) is None:
            raise Conflict(f"container {record.Id} has no network that ports can be published on")
        wanted, routed = self._wanted(record)
        kept: list[Held] = []
        missing = []
        for each in wanted:
            same = [held for held in plug.held if held not in kept and _serves(held, each)]
            chosen = {held.host: held for held in same if held.host_port == same[0].host_port}
            if set(chosen) == set(each.hosts):
                kept += chosen.values()
            else:
                missing.append(each)
        new = self.ports.hold(missing)
        gone = [held for held in plug.held if held not in kept]
        plug.held = [*kept, *new, *routed]
        record.ports = ports_shown(record, plug.held)
        self.republish(plug, record)
        self.ports.release(gone)

    def _wanted(self, record: ContainerRecord) -> tuple[list[Wanted], list[Held]]:
        """What is to be held on the host, and what is open at the container's own address instead."""
        host = record.HostConfig
        modes: dict[int, str] = {}
        network: NetworkRecord | None = None
        for version in (6, 4):
            main = gateway_attachment(record, self._networks, version)
            found = self._networks.get(main[0]) if main is not None else None
            if found is not None and found.is_bridged:
                network = found
                parsed = self._bridges.options(found)
                modes[version] = parsed.mode4 if version == 4 else parsed.mode6
        if network is None:
            return [], []
        bound: list[Wanted] = []
        routed: list[Held] = []
        for each in wanted_ports(
            host.PortBindings,
            record.Config.ExposedPorts,
            publish_all=host.PublishAllPorts,
            default_hosts=self._hosts(network),
        ):
            away = [h for h in each.hosts if modes.get(6 if ":" in h else 4) == "routed"]
            routed += [Held(each.protocol, address, 0, each.port) for address in away]
            hosts = tuple(address for address in each.hosts if address not in away)
            if hosts:
                bound.append(replace(each, hosts=hosts))
        return bound, routed

    def follow(self, record: ContainerRecord, plug: Plug) -> None:
        """After a change of networks: lead the ports to where the container is now.

        Without any way in they are given back, and taken once there is one. Raises Internal.
        """
        if self._way_in(record) is None:
            gone, plug.held = plug.held, []
            self.republish(plug, record)
            self.ports.release(gone)
            self.take(record, plug)  # which says that there are none
        elif plug.held:
            self.republish(plug, record)
        else:
            self.take(record, plug)
            self._firewall.publish(plug.publications)
            self.relay(plug, record)

    def republish(self, plug: Plug, record: ContainerRecord) -> None:
        wanted = self.publications(record, plug)
        gone = [each for each in plug.publications if each not in wanted]
        new = [each for each in wanted if each not in plug.publications]
        plug.publications = wanted
        self._firewall.withdraw(gone)
        self._firewall.publish(new)
        self.relay(plug, record)

    def publications(self, record: ContainerRecord, plug: Plug) -> list[Publication]:
        """The rules for the ports that are held, family by family."""
        found = []
        for version in (4, 6):
            main = gateway_attachment(record, self._networks, version)
            if main is None:
                continue
            name, attachment = main
            settings = attachment.settings
            address = settings.IPAddress if version == 4 else settings.GlobalIPv6Address
            network = self._networks.get(name)
            if not address or not network.is_bridged:
                continue
            parsed = self._bridges.options(network)
            mode = parsed.mode4 if version == 4 else parsed.mode6
            own = [held for held in plug.held if (":" in held.host) == (version == 6)]
            routed = mode == "routed"
            found += [
                Publication(held.protocol, held.host, held.host_port, address, held.port, routed)
                for held in own
            ]
            if not routed and (self._direct or parsed.trusted):
                # A port may be led to from several of the host's: opened once, or it closes too soon.
                places = sorted({(held.protocol, held.port) for held in own})
                found += [
                    Publication(protocol, "", 0, address, port, routed=True)
                    for protocol, port in places
                ]
        return found

    def relay(self, plug: Plug, record: ContainerRecord) -> None:
        """Serve the ports' own sockets with what no rule leads past them."""
        for relay in plug.relays:
            relay.close()
        plug.relays = []
        if not self._relays:
            return
        main = self._leads_out(record)
        if main is None:
            return
        settings = main[1].settings
        address = settings.IPAddress or settings.GlobalIPv6Address
        for held in plug.held:
            if held.sock is not None and held.protocol != "sctp":
                target = (address, held.port)
                plug.relays.append(Relay(held.sock, held.protocol, target, self._tasks))

    def _way_in(self, record: ContainerRecord) -> Attachment | None:
        """The place that published ports lead to, None where there is none."""
        main = self._leads_out(record)
        if main is None or not self._networks.get(main[0]).is_bridged:
            return None
        return main[1]

    def _leads_out(self, record: ContainerRecord) -> tuple[str, Attachment] | None:
        main = gateway_attachment(record, self._networks, 4)
        return main or gateway_attachment(record, self._networks, 6)

    def _hosts(self, network: NetworkRecord) -> tuple[str, ...]:
        own = self._bridges.options(network).host_binding
        if own not in ("", "0.0.0.0"):
            return (own,)
        if not self._relays and not network.EnableIPv6:
            return tuple(host for host in self._default_hosts if ":" not in host)
        return self._default_hosts

    def _links(self, record: ContainerRecord) -> bool:
        return any(self._networks.get(n).Driver not in ("null", "host") for n in record.networks)


def changed_bindings(
    present: Mapping[str, Sequence[PortBinding] | None],
    *,
    add: Mapping[str, Sequence[PortBinding] | None],
    remove: Mapping[str, Sequence[PortBinding] | None],
) -> dict[str, list[PortBinding] | None]:
    """A container's bindings without some and with others. An empty host port removes all."""
    found = {port: list(entries or ()) for port, entries in present.items()}
    for port, entries in remove.items():
        for entry in entries or (PortBinding(),):
            found[port] = [
                own
                for own in found.get(port, ())
                if (entry.HostPort and own.HostPort != entry.HostPort)
                or (entry.HostIp and own.HostIp != entry.HostIp)
            ]
    for port, entries in add.items():
        found.setdefault(port, []).extend(entries or (PortBinding(),))
    return {port: entries for port, entries in found.items() if entries}


def _serves(held: Held, wanted: Wanted) -> bool:
    """Whether a port that is held is one that is wanted."""
    return (
        (held.protocol, held.port) == (wanted.protocol, wanted.port)
        and held.host in wanted.hosts
        and (not wanted.first or wanted.first <= held.host_port <= wanted.last)
    )
