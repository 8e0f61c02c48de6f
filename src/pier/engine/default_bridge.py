"""What the engine's settings say of its own network: the default bridge, pools, where ports are."""

import hashlib
import ipaddress
import os
from collections.abc import Callable, Sequence

from pier.engine.endpoint_settings import OTHER_GATEWAY
from pier.engine.settings import Settings
from pier.errors import InvalidParameter
from pier.model.gotime import now
from pier.model.network import IPAM, IPAMConfig, NetworkRecord
from pier.network import egress, links, options
from pier.network.ipam import DEFAULT_POOLS, Pool, Subnet, parse_pool, unique_local_pool
from pier.network.plan import assign_subnets, taken_subnets
from pier.network.store import NetworkStore

NAME = "pier0"


def default_bridge(
    settings: Settings,
    found: NetworkRecord | None,
    *,
    networks: NetworkStore,
    routes: Sequence[Subnet],
    pools: Sequence[Pool],
    choose_name: Callable[..., str],
) -> NetworkRecord:
    """The network "bridge" as the settings want it; `found` is what it was until now.

    `networks` are all that there are, `routes` the host's own, whose addresses are kept away from.
    `choose_name` is `Bridges.choose_name`.
    """
    network = NetworkRecord(
        Name="bridge",
        Id=found.Id if found else os.urandom(32).hex(),
        Created=found.Created if found else now(),
        Driver="bridge",
        EnableIPv6=settings.ipv6,
    )
    network.IPAM = IPAM("default", None, _subnets(settings, found))
    own = {entry.Subnet for entry in found.IPAM.Config or ()} if found else set()
    others = [subnet for subnet in taken_subnets(networks) if str(subnet) not in own]
    network.IPAM.Config = assign_subnets(network, others, routes, pools)
    first = (found.interface if found else "") or NAME
    network.interface = settings.bridge or choose_name(network, first=first)
    network.Options = {
        options.DEFAULT_BRIDGE: "true",
        options.ICC: str(settings.icc).lower(),
        options.MASQUERADE: str(settings.ip_masq).lower(),
        options.HOST_BINDING: settings.ip or "0.0.0.0",
        options.NAME: network.interface,
        options.MTU: str(settings.mtu or options.DEFAULT_MTU),
    }
    if found is not None and egress.OPTION in found.Options:
        network.Options[egress.OPTION] = found.Options[egress.OPTION]
    return network


def _subnets(settings: Settings, found: NetworkRecord | None) -> list[IPAMConfig]:
    """What is said of them, or what they were. Raises InvalidParameter."""
    config: list[IPAMConfig] = []
    if settings.bip:
        interface = ipaddress.ip_interface(settings.bip)
        config.append(IPAMConfig(Subnet=str(interface.network), Gateway=str(interface.ip)))
    elif found is not None and found.IPAM.Config:
        # Its subnet stays what it was: people write it down.
        config += [IPAMConfig(Subnet=e.Subnet) for e in found.IPAM.Config if ":" not in e.Subnet]
    if settings.fixed_cidr:
        if not config:
            config.append(IPAMConfig(Subnet=settings.fixed_cidr))
        config[0].IPRange = settings.fixed_cidr
    if settings.default_gateway:
        config = config or [IPAMConfig()]
        config[0].AuxiliaryAddresses = {OTHER_GATEWAY[4]: settings.default_gateway}
    return [*config, *(_subnets6(settings) if settings.ipv6 else ())]


def _subnets6(settings: Settings) -> list[IPAMConfig]:
    entry = IPAMConfig(Subnet=settings.fixed_cidr_v6)
    if settings.bip6:
        interface = ipaddress.ip_interface(settings.bip6)
        entry = IPAMConfig(Subnet=str(interface.network), Gateway=str(interface.ip))
        entry.IPRange = settings.fixed_cidr_v6
    if settings.default_gateway_v6:
        if not entry.Subnet:
            raise InvalidParameter("default-gateway-v6 needs bip6 or fixed-cidr-v6")
        entry.AuxiliaryAddresses = {OTHER_GATEWAY[6]: settings.default_gateway_v6}
    return [entry] if entry.Subnet else []


def pools(settings: Settings) -> tuple[Pool, ...]:
    """Where networks get their subnets from."""
    found = tuple(parse_pool(base, size) for base, size in settings.default_address_pools)
    if not any(pool.base.version == 4 for pool in found):
        found += DEFAULT_POOLS
    if not any(pool.base.version == 6 for pool in found):
        found += (unique_local_pool(hashlib.sha256(_machine_id().encode()).digest()),)
    return found


def default_hosts(settings: Settings) -> tuple[str, ...]:
    """Where ports are published that name no address."""
    if settings.ip:
        return (settings.ip,)
    has_v6 = links.read_sysctl("net/ipv6/conf/lo/disable_ipv6") == "0"
    return ("0.0.0.0", "::") if has_v6 else ("0.0.0.0",)


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.uname().nodename
