"""`pier explain C`: how a container is connected, read from the kernel and not from the records.

Only what is the engine's own to say (which network, which port, whose name) comes from those.
"""

import contextlib
import os
import socket
from ipaddress import ip_address

from pier.engine.container import Container
from pier.engine.endpoint_settings import veth_name
from pier.engine.networks import Networks
from pier.engine.plug import Plug
from pier.engine.states import ALIVE
from pier.kernel import rtnetlink as rt
from pier.kernel.netlink import Netlink
from pier.model.container import Attachment, ContainerRecord
from pier.model.explain import (
    ExplainedInterface,
    ExplainedNames,
    ExplainedNamespace,
    ExplainedPort,
    ExplainedRoute,
    Explanation,
)
from pier.network import shaping
from pier.network.dns_upstream import host_servers

_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def explain(container: Container, networks: Networks, data_root: str) -> Explanation:
    """Return what is so now; of one that does not run, what is written down."""
    record = container.record
    found = Explanation(
        Id=record.Id,
        Name=record.Name,
        State=record.State.Status,
        Pid=record.State.Pid,
        NetworkMode=record.HostConfig.NetworkMode,
        Ports=_ports(record, networks),
        Egress=networks.egress.report(record),
    )
    if record.State.Status in ALIVE and record.State.Pid:
        found.Namespaces = _namespaces(record)
    plug = networks.endpoints.plug(container)
    if plug is not None:
        _inside(found, record, plug, networks)
        found.Rules = networks.rules_about(_subjects(record, networks))
        found.Names = _names(record, networks, plug, data_root)
    return found


def _namespaces(record: ContainerRecord) -> list[ExplainedNamespace]:
    host = record.HostConfig
    joined = {"net": host.NetworkMode, "ipc": host.IpcMode, "pid": host.PidMode}
    found = []
    for kind in _KINDS:
        try:
            link = os.readlink(f"/proc/{record.State.Pid}/ns/{kind}")
            own = os.readlink(f"/proc/self/ns/{kind}")
        except OSError:
            continue
        mode = joined.get(kind, "")
        whose = f"that of {mode}" if mode.startswith("container:") else "its own"
        whose = "the host's" if link == own else whose
        found.append(ExplainedNamespace(kind, link.partition("[")[2].rstrip("]"), whose))
    return found


def _inside(found: Explanation, record: ContainerRecord, plug: Plug, networks: Networks) -> None:
    """Its links, addresses and routes, as the kernel has them."""
    by_link = {a.interface: (name, a) for name, a in record.networks.items() if a.interface}
    with networks.namespaces.entered(plug.netns_fd), Netlink() as netlink:
        all_links = [rt.read_link(payload) for payload in netlink.dump(rt.get_links())]
        addresses = [rt.read_address(payload) for payload in netlink.dump(rt.get_addresses())]
        routes = [
            route
            for family in (socket.AF_INET, socket.AF_INET6)
            for payload in netlink.dump(rt.get_routes(family))
            if (route := rt.read_route(payload)) is not None
        ]
    names = {link.index: link.name for link in all_links}
    for link in all_links:
        shown = ExplainedInterface(
            link.name,
            bool(link.flags & rt.IFF_UP),
            link.address.hex(":"),
            link.mtu,
            [f"{ip_address(a.address)}/{a.prefix}" for a in addresses if a.index == link.index],
        )
        if link.name in by_link:
            _place(shown, *by_link[link.name], record, networks)
        found.Interfaces.append(shown)
    for route in routes:
        if route.destination and ip_address(route.destination).is_multicast:
            continue
        to = f"{ip_address(route.destination)}/{route.prefix}" if route.destination else "default"
        gateway = str(ip_address(route.gateway)) if route.gateway else ""
        found.Routes.append(ExplainedRoute(to, gateway, names.get(route.index, "")))


def _place(
    shown: ExplainedInterface,
    name: str,
    attachment: Attachment,
    record: ContainerRecord,
    networks: Networks,
) -> None:
    network = networks.store.find(name)
    if network is None:
        return
    shown.Network, shown.Driver = network.Name, network.Driver
    shown.Gateway = attachment.settings.Gateway or attachment.settings.IPv6Gateway
    if network.is_bridged:
        shown.Host, shown.Bridge = veth_name(attachment.settings.EndpointID), network.interface
        shown.RateIn = record.HostConfig.Annotations.get(shaping.RATE_IN, "")
        shown.RateOut = record.HostConfig.Annotations.get(shaping.RATE_OUT, "")
    else:
        shown.Host = network.interface


def _ports(record: ContainerRecord, networks: Networks) -> list[ExplainedPort]:
    found = []
    for port, bindings in record.ports.items():
        for binding in bindings or ():
            host = f"[{binding.HostIp}]" if ":" in binding.HostIp else binding.HostIp
            way = "rule" if networks.publishes(binding.HostIp, record) else "relay"
            found.append(ExplainedPort(f"{host}:{binding.HostPort}", port, way))
    return found


def _subjects(record: ContainerRecord, networks: Networks) -> list[str]:
    """The words by which rules speak of a container: its links, bridges, addresses and policies."""
    words = []
    for name, attachment in record.networks.items():
        settings = attachment.settings
        network = networks.store.find(name)
        words += [settings.IPAddress, settings.GlobalIPv6Address, f"n{settings.NetworkID[:12]}"]
        if network is not None and network.is_bridged:
            words += [f'"{network.interface}"', f'"{veth_name(settings.EndpointID)}"']
    return [word for word in [*words, f"c{record.Id[:12]}"] if word]


def _names(
    record: ContainerRecord, networks: Networks, plug: Plug, data_root: str
) -> ExplainedNames:
    shown = ExplainedNames()
    directory = f"{data_root}/containers/{record.Id}"
    for line in _lines(f"{directory}/resolv.conf"):
        key, *values = line.split() or [""]
        shown.Servers += values[:1] if key == "nameserver" else []
        shown.Search = values if key == "search" else shown.Search
    shown.Hosts = [line for line in _lines(f"{directory}/hosts") if line.strip()]
    if plug.dns is not None:
        shown.Upstream = [server.address for server in plug.dns.servers()]
        for attachment in record.networks.values():
            shown.Own += attachment.settings.DNSNames or ()
        for name in record.networks:
            network = networks.store.find(name)
            if network is not None:
                shown.Known |= networks.endpoints.directory.names(network)
    elif record.HostConfig.NetworkMode == "host":
        shown.Upstream = [server.address for server in host_servers()]
    return shown


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()
    return []
