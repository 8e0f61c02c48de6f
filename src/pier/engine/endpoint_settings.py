"""What an endpoint asks of its network, and what a container's endpoints amount to.

Pure: settings and records in, addresses, gateways and Docker's complaints out.
"""

import ipaddress
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

from pier.engine import capability_set
from pier.errors import InvalidParameter, PierError
from pier.model.container import (
    Attachment,
    ContainerRecord,
    EndpointSettings,
    HostConfig,
    PortBinding,
)
from pier.model.network import NetworkRecord
from pier.network import links, options
from pier.network.bridges import VETH_PREFIX
from pier.network.ipam import Address, Leases
from pier.network.ports import Held
from pier.network.store import PREDEFINED, NetworkStore

FAILED = "failed to set up container networking: "
OTHER_GATEWAY = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}
"""The auxiliary addresses of a network that stand for its containers' gateways, by family."""


def veth_name(endpoint_id: str) -> str:
    """The host's end of an endpoint's pair."""
    return VETH_PREFIX + endpoint_id[:7]


def check_endpoint(network: NetworkRecord, settings: EndpointSettings, *, where: str = "") -> None:
    """Check what an endpoint asks of its network; `where` is said before what is wrong.

    Raises InvalidParameter, all problems listed.
    """
    problems = list(_endpoint_problems(network, settings))
    if not problems:
        return
    lines = problems if len(problems) == 1 else [f"* {text}" for text in problems]
    raise InvalidParameter(f"{where}invalid endpoint settings:\n" + "\n".join(lines))


def _endpoint_problems(network: NetworkRecord, settings: EndpointSettings) -> Iterator[str]:
    asked = settings.IPAMConfig or {}
    default = network.Name in PREDEFINED
    keys = ((4, "IPv4Address"), (6, "IPv6Address"))
    given = [(version, str(asked[key])) for version, key in keys if asked.get(key)]
    if default and given:
        yield "user specified IP address is supported on user defined networks only"
    if default and settings.Aliases:
        yield "network-scoped alias is supported only for containers in user defined networks"
    for version, text in given:
        yield from _address_problems(network, version, text)
    local = asked.get("LinkLocalIPs") or ()
    if isinstance(local, list):
        for text in local:
            if not _version(text):
                yield f"invalid link-local IP address: {text}"
    name = (settings.DriverOpts or {}).get(options.ENDPOINT_NAME, "")
    try:
        if name:
            options.check_interface_name(name)
        options.endpoint_sysctls(settings.DriverOpts or {}, name or "eth0")
    except InvalidParameter as exc:
        yield exc.message


def _address_problems(network: NetworkRecord, version: int, text: str) -> Iterator[str]:
    if not _is_usable(text, version):
        yield f"invalid IPv{version} address: {text}"
    if not network.user_subnets:
        yield (
            "user specified IP address is supported only when connecting to networks with"
            " user configured subnets"
        )
    elif not _contained(network, text):
        yield f"no configured subnet or ip-range contain the IP address {text}"


def _version(text: str) -> int:
    """The IP version of an address, 0 for what is none."""
    try:
        return ip_address(text).version
    except ValueError:
        return 0


def _is_usable(text: str, version: int) -> bool:
    """Whether it is an address of the family, and one that there can be: not all zeros, not IPv4 in IPv6."""
    if _version(text) != version:
        return False
    address = ip_address(text)
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    return not mapped and not address.is_unspecified


def _contained(network: NetworkRecord, text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(e.Subnet) for e in network.IPAM.Config or ())


def wanted_address(settings: EndpointSettings, version: int) -> Address | None:
    text = (settings.IPAMConfig or {}).get("IPv4Address" if version == 4 else "IPv6Address")
    return ip_address(text) if isinstance(text, str) and text else None


def may_configure_networks(host: HostConfig) -> bool:
    """Whether a container may give itself addresses and routes (CAP_NET_ADMIN)."""
    return host.Privileged or "CAP_NET_ADMIN" in capability_set.resolve(
        host.CapAdd, host.CapDrop, privileged=False
    )


def addresses(settings: EndpointSettings) -> list[links.Interface]:
    """All addresses of an endpoint; the link-local ones that were asked for are not leased."""
    found = []
    if settings.IPAddress:
        found.append(ip_interface(f"{settings.IPAddress}/{settings.IPPrefixLen}"))
    if settings.GlobalIPv6Address:
        found.append(ip_interface(f"{settings.GlobalIPv6Address}/{settings.GlobalIPv6PrefixLen}"))
    asked = (settings.IPAMConfig or {}).get("LinkLocalIPs")
    local = asked if isinstance(asked, list) else []
    return found + [ip_interface(f"{text}/{64 if ':' in text else 16}") for text in local]


def gateway_of(network: NetworkRecord, leases: Leases) -> str:
    """The address that containers route through: another machine's where one is named as libnetwork does."""
    for entry in network.IPAM.Config or ():
        if entry.Subnet and ipaddress.ip_network(entry.Subnet) == leases.subnet:
            return entry.AuxiliaryAddresses.get(OTHER_GATEWAY[leases.subnet.version], entry.Gateway)
    return ""


def gateway_attachment(
    record: ContainerRecord, networks: NetworkStore, version: int
) -> tuple[str, Attachment] | None:
    """The place that the container's default route of a family leads through, None for none.

    The highest priority wins, then the name that comes first; internal networks have no way out.
    """
    candidates = [
        (name, attachment)
        for name, attachment in record.networks.items()
        if (attachment.settings.Gateway if version == 4 else attachment.settings.IPv6Gateway)
        and (network := networks.find(name)) is not None
        and not network.Internal
    ]
    if not candidates:
        return None
    return min(candidates, key=lambda item: (-item[1].settings.GwPriority, item[0]))


def gateways(record: ContainerRecord, networks: NetworkStore) -> tuple[str, ...]:
    found = []
    for version in (4, 6):
        main = gateway_attachment(record, networks, version)
        if main is not None:
            settings = main[1].settings
            found.append(settings.Gateway if version == 4 else settings.IPv6Gateway)
    return tuple(found)


def mac_of(address: str) -> str:
    """A locally administered address made from the IPv4 address, as by dockerd up to 27.

    The same address of the network always has the same MAC: nobody's neighbour table goes stale
    when an address is used again.
    """
    tail = IPv4Address(address).packed if address else os.urandom(4)
    return f"02:42:{tail.hex(':')}"


def exposed(record: ContainerRecord) -> list[str]:
    return sorted(p if "/" in p else f"{p}/tcp" for p in record.Config.ExposedPorts)


def ports_shown(record: ContainerRecord, held: list[Held]) -> dict[str, list[PortBinding] | None]:
    shown: dict[str, list[PortBinding] | None] = dict.fromkeys(exposed(record))
    for each in held:
        key = f"{each.port}/{each.protocol}"
        if not each.host_port:  # open at the container's own address
            shown.setdefault(key)
            continue
        binding = PortBinding(HostIp=each.host, HostPort=str(each.host_port))
        shown[key] = [*(shown.get(key) or ()), binding]
    return shown


def prefixed(exc: PierError) -> PierError:
    return type(exc)(exc.message if exc.message.startswith(FAILED) else FAILED + exc.message)
