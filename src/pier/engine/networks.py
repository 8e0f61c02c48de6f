"""Networks: made, listed, connected, removed; and the host's state brought in line at the start."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence

from pier.engine import default_bridge, etc_files, network_clean
from pier.engine.container import Container
from pier.engine.egress import Egress
from pier.engine.endpoint_settings import check_endpoint, gateway_attachment
from pier.engine.endpoints import Endpoints
from pier.engine.etc_files import Surroundings
from pier.engine.events import Events
from pier.engine.legacy_links import hosts_lines, legacy_links, links_environment
from pier.engine.network_clean import FORWARDING, FORWARDING_6, boot_id, engine_suffix
from pier.engine.network_create import asked
from pier.engine.network_view import network_document
from pier.engine.publishing import Publishing
from pier.engine.settings import Settings
from pier.engine.settings_network import NO_BRIDGE
from pier.engine.states import ALIVE
from pier.engine.store import ContainerStore
from pier.engine.tasks import Tasks
from pier.errors import Forbidden, Internal, InvalidParameter, NotFound, PierError
from pier.kernel.netlink import Netlink
from pier.model.container import Attachment, ContainerRecord, EndpointSettings
from pier.model.filters import Filters
from pier.model.gotime import now, now_ns, parse_rfc3339, parse_timestamp
from pier.model.network import (
    IPAM,
    IPAMStatus,
    NetworkConnectRequest,
    NetworkContainer,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkInspect,
    NetworkPruneResponse,
    NetworkRecord,
    NetworkStatus,
)
from pier.network import egress, links, options, parents
from pier.network.bridges import Bridges
from pier.network.firewall import Firewall
from pier.network.guard import Port
from pier.network.ipam import Subnet
from pier.network.namespaces import Namespaces
from pier.network.parents import Parents
from pier.network.plan import check_policy, plan_network
from pier.network.rules import BridgeRules, Publication, Ways
from pier.network.store import PREDEFINED, NetworkStore
from pier.storage.database import Database

log = logging.getLogger(__name__)

FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
PRUNE_FILTERS = frozenset({"label", "label!", "until"})
DEFAULT_DATA_ROOT = Settings().data_root


class Networks:
    """`open` before anything is started, `settle` once it is known which containers run."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        containers: ContainerStore,
        events: Events,
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._database = database
        self._containers = containers
        self._events = events
        self._suffix = engine_suffix(settings.data_root, DEFAULT_DATA_ROOT)
        self._netlink = Netlink()
        self.namespaces = Namespaces(asyncio.get_running_loop().call_later)
        self._bridges = Bridges(self._netlink, self.namespaces, self._suffix or "pier")
        self._parents = Parents(self._netlink, self.namespaces, self._suffix or "pier")
        self._firewall = Firewall(
            f"pier_{self._suffix}" if self._suffix else "pier",
            self._wanted_rules,
            drops_foreign=self._drops_foreign,
            enabled=settings.iptables,
            first=settings.publish_before_firewall,
            relays=settings.userland_proxy,
            ways=Ways(settings.allow_direct_routing, settings.bridge_accept_fwmark),
        )
        self._pools = default_bridge.pools(settings)
        self.store = NetworkStore(database)
        self.egress = Egress(self.store, self._firewall.egress, self.host_gateways)
        self.endpoints = Endpoints(
            networks=self.store,
            containers=containers,
            namespaces=self.namespaces,
            bridges=self._bridges,
            parents=self._parents,
            firewall=self._firewall,
            events=events,
            publishing=Publishing(
                networks=self.store,
                bridges=self._bridges,
                firewall=self._firewall,
                default_hosts=default_bridge.default_hosts(settings),
                tasks=tasks,
                relays=settings.userland_proxy,
                direct=settings.allow_direct_routing,
            ),
            tasks=tasks,
            egress=self.egress,
            dns=settings.dns,
        )
        self._failed: dict[str, str] = {}

    # Beginning and end

    def open(self) -> None:
        """Load the networks, make those that are always there, and every bridge."""
        self.store.load()
        for network in self.store:
            self.endpoints.pools.open(network)
        self._predefine("none", "null")
        self._predefine("host", "host")
        self._predefine_bridge()
        for network in self.store:
            self._ensure(network)
        # Before anything is started: who writes rules then writes those of all that have run.
        for container in self._containers:
            if container.record.State.Status in ALIVE:
                self.egress.remember(container.record)
        for network in self.store:
            self.egress.hold_network(network, now=False)

    def settle(self) -> None:
        """Take up the containers that run, forget what others had, write the rules."""
        for container in self._containers:
            if container.record.State.Status in ALIVE:
                self.endpoints.adopt(container)
            elif container.record.sandbox_id and container.run is None:
                self.endpoints.release(container, quiet=True)
                self._containers.save(container)
        veths = self.endpoints.veths()
        known = {network.Id for network in self.store}
        try:
            for network in self.store:
                if network.is_bridged and network.interface:
                    self._bridges.sweep(network, veths)
            self._bridges.sweep_bridges(known)
            for network in self.store:
                self.egress.hold_network(network, now=False)
            self._firewall.write()
        except (OSError, PierError) as exc:
            log.error("%s", exc)  # noqa: TRY400 - the message says it
        self.namespaces.refill()

    def close(self) -> None:
        """Let go; containers stay, with bridges and rules. See `network_clean`."""
        self.endpoints.close()
        self._firewall.close()
        self.namespaces.close()
        if self._suffix and not any(c.record.State.Status in ALIVE for c in self._containers):
            self._remove_links()
        self._netlink.close()

    def _remove_links(self) -> None:
        """Take away bridges and rules.

        The veth of a container that has just ended may still be on its bridge: the kernel takes
        network namespaces apart in its own time.
        """
        try:
            for network in self.store:
                if network.is_bridged and network.interface:
                    self._bridges.sweep(network, set())
            network_clean.remove(self._suffix)
        except (OSError, PierError) as exc:
            log.warning("the networks' links are left: %s", exc)

    # What is there

    def find_all(self, filters: Filters) -> list[NetworkInspect]:
        """Raises InvalidParameter for a filter's value."""
        kinds = filters.get("type")
        for kind in kinds:
            if kind not in ("builtin", "custom"):
                raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
        dangling = filters.flag("dangling", default=False) if "dangling" in filters else None
        return [
            network_document(network)
            for network in self.store
            if filters.exact("driver", network.Driver)
            and filters.exact("scope", network.Scope)
            and filters.prefix("id", network.Id)
            and filters.pattern("name", network.Name)
            and filters.labels(network.Labels)
            and (not kinds or ("builtin" if network.Name in PREDEFINED else "custom") in kinds)
            and (dangling is None or self._dangles(network) == dangling)
        ]

    def inspect(self, ref: str, scope: str = "", *, with_status: bool = False) -> NetworkInspect:
        """`with_status` counts addresses. Raises NotFound, InvalidParameter for a short prefix."""
        network = self.store.get(ref)
        if scope not in ("", network.Scope):
            raise NotFound(f"network {ref} not found")
        shown = network_document(network)
        for record, attachment in self.endpoints.members(network):
            settings = attachment.settings
            v4, v6 = settings.IPAddress, settings.GlobalIPv6Address
            shown.Containers[record.Id] = NetworkContainer(
                Name=record.Name,
                EndpointID=settings.EndpointID,
                MacAddress=settings.MacAddress,
                IPv4Address=f"{v4}/{settings.IPPrefixLen}" if v4 else "",
                IPv6Address=f"{v6}/{settings.GlobalIPv6PrefixLen}" if v6 else "",
            )
        if with_status:
            shown.Status = NetworkStatus(IPAMStatus(self.endpoints.pools.counts(network)))
        return shown

    # Making and removing

    def create(self, request: NetworkCreateRequest) -> NetworkCreateResponse:
        """Make a network. Raises what `plan_network` does, Internal; nothing is left then."""
        defaults = self._settings.default_network_opts.get(request.Driver or "bridge")
        if defaults and not request.ConfigFrom.Network:
            given = {
                options.ENABLE_4: request.EnableIPv4 is not None,
                options.ENABLE_6: request.EnableIPv6 is not None,
            }
            defaults = {key: text for key, text in defaults.items() if not given.get(key)}
            request.Options = defaults | request.Options
        routes = self._foreign_routes()
        network = plan_network(request, self.store, pools=self._pools, routes=routes)
        self._check_clash(network)
        if network.is_bridged:
            network.interface = self._bridges.choose_name(network)
        elif network.Driver in parents.DRIVERS:
            network.interface = self._parents.choose_name(network)
        self.store.put(network)
        try:
            self._make(network)
            self.endpoints.pools.open(network)
            self._firewall.write()
            self.egress.hold_network(network)
        except BaseException:
            self._unmake(network)
            raise
        self._tell(network, "create")
        return NetworkCreateResponse(Id=network.Id)

    def remove(self, ref: str) -> None:
        """Raises NotFound, Forbidden when it is predefined or in use."""
        network = self.store.get(ref)
        if network.Name in PREDEFINED:
            raise Forbidden(f"{network.Name} is a pre-defined network and cannot be removed")
        for record, attachment in self.endpoints.members(network):
            endpoint = attachment.settings.EndpointID[:12]
            raise Forbidden(
                f"error while removing network: network {network.Name} has active endpoints "
                f'(name:"{record.Name}" id:"{endpoint}")'
            )
        for other in self.store:
            if network.ConfigOnly and other.ConfigFrom.Network == network.Name:
                raise Forbidden(
                    f"error while removing network: configuration network {network.Name} is in use"
                )
        self._remove(network)

    def prune(self, filters: Filters) -> NetworkPruneResponse:
        """Remove the networks that no container is on."""
        until = [parse_timestamp(text, now_ns=now_ns()) for text in filters.get("until")]
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        answer = NetworkPruneResponse()
        for network in self.store:
            if (
                network.Name in PREDEFINED
                or not self._dangles(network)
                or (until and parse_rfc3339(network.Created) >= until[0])
                or not filters.labels(network.Labels)
                or not filters.without_labels(network.Labels)
                or network.ConfigOnly
            ):
                continue
            self._remove(network)
            answer.NetworksDeleted = [*(answer.NetworksDeleted or ()), network.Name]
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return answer

    # Containers

    async def connect(self, ref: str, request: NetworkConnectRequest) -> None:
        """Put a container on a network, running or not. Raises NotFound, Forbidden, …"""
        network = self.store.find(ref) or self.store.get(ref)
        container = self.container(request.Container)
        async with container.lock:
            settings = request.EndpointConfig or EndpointSettings()
            self._check_connect(network, container, settings)
            attachment = Attachment(asked(settings), mac=settings.MacAddress)
            if container.record.State.Status in ALIVE:
                before = self._files(container)
                self.endpoints.connect(container, network.Name, attachment)
                self.refresh_files(container, before)
            else:
                container.record.networks[network.Name] = attachment
            self._containers.save(container)

    async def disconnect(self, ref: str, request: NetworkDisconnectRequest) -> None:
        """Take a container off a network. Raises NotFound, Forbidden, Conflict."""
        network = self.store.find(ref) or (None if request.Force else self.store.get(ref))
        name = network.Name if network is not None else ref
        container = self.container(request.Container)
        async with container.lock:
            record = container.record
            if name not in record.networks:
                raise Forbidden(f"container {record.Id} is not connected to network {name}")
            if name == "host":
                raise InvalidParameter(
                    "cannot disconnect container from host network - container was created in host"
                    " network mode"
                )
            before = self._files(container)
            self.endpoints.disconnect(container, name)
            if record.State.Status in ALIVE:
                self.refresh_files(container, before)
            self._containers.save(container)

    def _check_connect(
        self, network: NetworkRecord, container: Container, settings: EndpointSettings
    ) -> None:
        record = container.record
        mode = record.HostConfig.NetworkMode
        if network.ConfigOnly:
            raise Forbidden("cannot create endpoint on configuration-only network")
        if mode.startswith("container:"):
            raise Forbidden("container sharing network namespace with another container or host cannot be connected to any other network")  # fmt: skip
        check_endpoint(network, settings)
        if network.Name == "host" or mode == "host":
            raise InvalidParameter(
                "cannot connect container to host network - container must be created in host"
                " network mode"
            )
        if network.Name == "none" or "none" in record.networks:
            raise InvalidParameter("container cannot be connected to multiple networks with one of the networks in private (none) mode")  # fmt: skip
        if network.Name in record.networks:
            raise Forbidden(
                f"endpoint with name {record.Name} already exists in network {network.Name}"
            )

    def _files(self, container: Container) -> Mapping[str, str]:
        return etc_files.texts(container.record, self.surroundings(container.record))

    def container(self, ref: str) -> Container:
        """Find a container. Raises NotFound, InvalidParameter."""
        if not ref:
            raise InvalidParameter('invalid name or ID supplied: ""')
        return self._containers.get(ref)

    def surroundings(self, record: ContainerRecord) -> Surroundings:
        """What a container's files in /etc say of its networks."""
        settings = self._settings
        return Surroundings(
            named=self.endpoints.has_names(record),
            links=self._link_lines(record),
            gateways=self.host_gateways() if record.HostConfig.ExtraHosts else (),
            dns=settings.dns,
            dns_search=settings.dns_search,
            dns_options=settings.dns_opts,
        )

    def link_environment(self, record: ContainerRecord) -> list[str]:
        """The variables that legacy links give a container. Raises Conflict for one not running."""
        return links_environment(record, self._linked(record))

    def refresh_files(self, container: Container, before: Mapping[str, str]) -> None:
        """Bring a running container's files in /etc from what was generated `before` to now.

        What somebody edited meanwhile stays: only lines of ours come and go.
        """
        directory = f"{self._settings.data_root}/containers/{container.id}"
        after = etc_files.texts(container.record, self.surroundings(container.record))
        try:
            for name, text in after.items():
                if text != before[name]:
                    etc_files.amend(f"{directory}/{name}", before[name], text)
        except OSError as exc:
            log.warning("the files of container %s were not changed: %s", container.id, exc)

    def _link_lines(self, record: ContainerRecord) -> list[str]:
        return hosts_lines(self._linked(record)) if record.HostConfig.Links else []

    def _linked(self, record: ContainerRecord) -> list[tuple[str, ContainerRecord]]:
        """The containers that legacy links name, by alias; those that are gone are left out."""
        if record.HostConfig.NetworkMode != "bridge":
            return []
        found = []
        for target, alias in legacy_links(record.HostConfig.Links):
            with contextlib.suppress(PierError):
                found.append((alias, self._containers.get(target).record))
        return found

    def host_gateways(self) -> Sequence[str]:
        """What `host-gateway` means: the setting's, or the default bridge's own addresses."""
        if self._settings.host_gateway_ips:
            return self._settings.host_gateway_ips
        default = self.store.find("bridge")
        config = default.IPAM.Config if default is not None else None
        return [entry.Gateway for entry in config or () if entry.Gateway]

    # What is reached outside

    async def police(self, ref: str, text: str) -> None:
        """Change a network's egress policy. Raises PierError, nothing changed then."""
        network = self.store.get(ref)
        check_policy(network.Driver, text)
        before = dict(network.Options)
        members = [self._containers.get(record.Id) for record, _ in self.endpoints.members(network)]
        files = [(container, self._files(container)) for container in members]
        network.Options = {**before, egress.OPTION: text}
        try:
            self.egress.hold_network(network)
        except PierError:
            network.Options = before
            raise
        self.store.put(network)
        for container, said in files:
            async with container.lock:
                self.endpoints.police(container)
                self.refresh_files(container, said)
        self._tell(network, "update")

    def police_container(self, container: Container, before: Mapping[str, str]) -> None:
        """After a container's policy changed; its files were `before`. Raises PierError."""
        self.endpoints.police(container)
        if container.record.State.Status in ALIVE:
            self.refresh_files(container, before)

    def files(self, container: Container) -> Mapping[str, str]:
        """The texts of a container's files in /etc as they are generated now."""
        return self._files(container)

    # What is told of it

    def rules_about(self, words: Sequence[str]) -> dict[str, list[str]]:
        """The rules in force that have one of the words, by "table chain"."""
        return self._firewall.about(words)

    def publishes(self, host: str, record: ContainerRecord) -> bool:
        """Whether rules lead a published port of a host's address on, and not the relay alone."""
        version = 6 if ":" in host else 4
        return gateway_attachment(record, self.store, version) is not None

    # Parts

    def _make(self, network: NetworkRecord) -> None:
        if network.ConfigOnly or network.Driver in ("null", "host"):
            return
        if not network.is_bridged:
            self._parents.ensure(network)
            return
        self._enable_forwarding(v6=network.EnableIPv6)
        self._bridges.ensure(network)

    def _unmake(self, network: NetworkRecord) -> None:
        self.store.remove(network)
        self.endpoints.pools.close(network)
        self.egress.let_go_network(network)
        try:
            if network.Driver in parents.DRIVERS:
                self._parents.remove(network)
            elif network.interface:
                self._bridges.remove(network)
            self._firewall.write()
        except PierError as exc:
            log.warning("%s", exc.message)

    def _remove(self, network: NetworkRecord) -> None:
        self._unmake(network)
        for container in self._containers:
            attachment = container.record.networks.get(network.Name)
            if attachment is not None and attachment.settings.NetworkID == network.Id:
                attachment.settings.NetworkID = ""
        self._tell(network, "destroy")

    def _ensure(self, network: NetworkRecord) -> None:
        """At the start: one network that cannot be made does not keep the others from it."""
        try:
            self._make(network)
        except (OSError, PierError) as exc:
            log.error("network %s is not usable: %s", network.Name, exc)  # noqa: TRY400

    def _predefine(self, name: str, driver: str) -> None:
        if name in self.store:
            return
        network = NetworkRecord(Name=name, Id=os.urandom(32).hex(), Created=now(), Driver=driver)
        network.IPAM = IPAM("default", None, None)
        self.store.put(network)
        self.endpoints.pools.open(network)

    def _predefine_bridge(self) -> None:
        """The default bridge as the settings want it; none, if they say so."""
        found = self.store.find("bridge")
        if self._settings.bridge == NO_BRIDGE:
            if found is not None and not any(True for _ in self.endpoints.members(found)):
                self._unmake_quietly(found)
            return
        if found is not None and any(True for _ in self.endpoints.members(found)):
            return  # containers that run on it keep it as it is
        wanted = default_bridge.default_bridge(
            self._settings,
            found,
            networks=self.store,
            routes=self._foreign_routes(),
            pools=self._pools,
            choose_name=self._bridges.choose_name,
        )
        if found is not None and wanted == found:
            return
        if found is not None and found.interface != wanted.interface:
            self._bridges.remove(found)
        self.store.put(wanted)
        self.endpoints.pools.open(wanted)

    def _unmake_quietly(self, network: NetworkRecord) -> None:
        self.store.remove(network)
        self.endpoints.pools.close(network)
        self._bridges.remove(network)

    def _check_clash(self, network: NetworkRecord) -> None:
        name = network.Options.get(options.NAME, "")
        for other in self.store:
            if name and other.interface == name and network.is_bridged:
                raise Forbidden(
                    f"cannot create network {network.Id} ({name}): conflicts with network "
                    f"{other.Id} ({name}): networks have same bridge name"
                )

    def _foreign_routes(self) -> list[Subnet]:
        """Where the host's routes lead, but those to our own bridges."""
        own = {network.interface for network in self.store if network.interface}
        try:
            indexes = {link.index for link in links.all_links(self._netlink) if link.name in own}
            return [net for net, index in links.routes(self._netlink) if index not in indexes]
        except OSError as exc:
            raise Internal(f"the host's routes cannot be read: {exc}") from exc

    def _enable_forwarding(self, *, v6: bool) -> None:
        """Let the host forward; remember that it did not before."""
        if not self._settings.ip_forward:
            return
        for version, path in ((4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")):
            if (version == 6 and not v6) or links.read_sysctl(path) != "0":
                continue
            links.write_sysctl(path, "1")
            key = FORWARDING if version == 4 else FORWARDING_6
            self._database.set_metadata(key, boot_id())

    def _drops_foreign(self) -> bool:
        """As dockerd: who makes the host forward for containers does not make it a router."""
        if self._settings.ip_forward_no_drop:
            return False
        return self._database.get_metadata(FORWARDING) == boot_id()

    def _wanted_rules(
        self,
    ) -> tuple[Sequence[BridgeRules], Sequence[Publication], Sequence[Port]]:
        bridges = [
            self._bridges.rules(network)
            for network in self.store
            if network.is_bridged and network.interface and not network.ConfigOnly
        ]
        return bridges, self.endpoints.publications(), self.endpoints.guarded()

    def _dangles(self, network: NetworkRecord) -> bool:
        if network.Name in PREDEFINED:
            return False
        return not any(True for _ in self.endpoints.members(network))

    def _tell(self, network: NetworkRecord, action: str) -> None:
        attributes = {"name": network.Name, "type": network.Driver}
        self._events.publish("network", action, network.Id, attributes)
