"""A request for a network made into a record: checked in dockerd's words, subnets chosen.

Pure: what is taken is handed in. Follows Docker 28.5 (daemon/network.go, libnetwork/ipams).
"""

import ipaddress
import os
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from pier.errors import Conflict, Forbidden, InvalidParameter, NotFound
from pier.model.gotime import now
from pier.model.network import IPAM, IPAMConfig, NetworkCreateRequest, NetworkRecord
from pier.network import egress, options, overlay, parents
from pier.network.ipam import Leases, Pool, Subnet, choose_subnet
from pier.network.store import PREDEFINED, NetworkStore

DRIVERS = ("bridge", "host", "null", overlay.DRIVER, *parents.DRIVERS)
NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


def plan_network(
    request: NetworkCreateRequest,
    store: NetworkStore,
    *,
    pools: Sequence[Pool],
    routes: Sequence[Subnet],
) -> NetworkRecord:
    """Return the record of a new network; nothing is made.

    `routes` are the host's, which chosen subnets keep away from. Raises InvalidParameter, Conflict,
    Forbidden, NotFound.
    """
    _check_name(request, store)
    _check_scope(request)
    request = _from_configuration(request, store)
    v4, v6 = request.EnableIPv4, request.EnableIPv6
    if v4 is None:
        v4 = options.boolean(options.ENABLE_4, request.Options.get(options.ENABLE_4, "true"))
    if v6 is None:
        v6 = options.boolean(options.ENABLE_6, request.Options.get(options.ENABLE_6, "false"))
    driver = request.Driver or ("null" if request.ConfigOnly else "bridge")
    if request.ConfigOnly:
        driver = "null"
    elif driver not in DRIVERS:
        raise NotFound(f'plugin "{driver}" not found')
    elif driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    ipam = request.IPAM
    _check_ipam(ipam.Config or [])
    if ipam.Driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.Driver}" not found')
    if not v4 and not v6 and not request.ConfigOnly:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    record = NetworkRecord(
        Name=request.Name,
        Id=os.urandom(32).hex(),
        Created=now(),
        Driver=driver,
        EnableIPv4=v4,
        EnableIPv6=v6,
        IPAM=IPAM("default", ipam.Options, ipam.Config or []),
        Internal=request.Internal,
        Attachable=request.Attachable,
        ConfigFrom=request.ConfigFrom,
        ConfigOnly=request.ConfigOnly,
        Options=request.Options,
        Labels=request.Labels,
        user_subnets=any(entry.Subnet for entry in ipam.Config or ()),
    )
    _check_options(record)
    if not request.ConfigOnly:
        taken = taken_subnets(store)
        record.IPAM.Config = assign_subnets(record, taken, routes, pools)
    return record


def _check_options(record: NetworkRecord) -> None:
    """Check what the driver can be told. Raises InvalidParameter, Unsupported."""
    if record.Driver in parents.DRIVERS:
        parents.parse_options(record)
    if egress.OPTION in record.Options:
        check_policy(record.Driver, record.Options[egress.OPTION])
    if record.Driver == overlay.DRIVER:
        _check_overlay(record)
    else:
        overlay.check_absent(record.Options)
    if record.is_bridged:
        options.parse_bridge(record.Options, internal=record.Internal)


def _check_overlay(record: NetworkRecord) -> None:
    """Raise InvalidParameter for what makes no sense between engines."""
    overlay.parse(record.Options)
    if not record.user_subnets:
        raise InvalidParameter(
            "an overlay network needs --subnet, the same on every engine, and an --ip-range of its own"
            " on each"
        )
    record.Options = {options.MTU: str(overlay.MTU), **record.Options}


def check_policy(driver: str, text: str) -> None:
    """Raise InvalidParameter for an egress policy that makes no sense, or on such a network."""
    if egress.parse(text) is not None and driver not in ("bridge", overlay.DRIVER):
        raise InvalidParameter(
            f"{egress.OPTION}: what is sent on a network of driver {driver} does not pass the host's"
            " rules"
        )


def taken_subnets(store: NetworkStore) -> list[Subnet]:
    """The subnets of all networks that there are, but of those that others are made from."""
    return [subnet for record in store if not record.ConfigOnly for subnet in subnets_of(record)]


def subnets_of(record: NetworkRecord) -> list[Subnet]:
    return [ipaddress.ip_network(c.Subnet) for c in record.used_config if c.Subnet]


def leases_of(record: NetworkRecord) -> list[Leases]:
    """Fresh leases of a network's subnets, with gateways and auxiliary addresses taken."""
    found = []
    for entry in record.used_config:
        leases = Leases(
            ipaddress.ip_network(entry.Subnet),
            ipaddress.ip_network(entry.IPRange, strict=False) if entry.IPRange else None,
        )
        for text in (entry.Gateway, *entry.AuxiliaryAddresses.values()):
            if text and ip_address(text) not in leases:
                leases.reserve(ip_address(text))
        found.append(leases)
    return found


def assign_subnets(
    record: NetworkRecord, taken: Sequence[Subnet], routes: Sequence[Subnet], pools: Sequence[Pool]
) -> list[IPAMConfig]:
    """Fill in the subnets and gateways that the request leaves open. Raises InvalidParameter."""
    asked = [replace(entry) for entry in record.IPAM.Config or ()]
    enabled = {4: record.EnableIPv4, 6: record.EnableIPv6}
    occupied = [*taken, *_pools_asked_for([e for e in asked if enabled.get(_version(e))], taken)]
    for version in (4, 6):
        if not enabled[version] or any(_version(entry) == version for entry in asked):
            continue
        subnet = choose_subnet(pools, [*occupied, *routes], version)
        open_entry = next((entry for entry in asked if not entry.Subnet), None)
        if open_entry is None:
            asked.append(IPAMConfig(Subnet=str(subnet)))
        else:
            open_entry.Subnet = str(subnet)
        occupied.append(subnet)
    # As with Docker, a subnet of a version that is not enabled stays to be seen, as it was given; and
    # those of IPv4 come first.
    config = sorted((entry for entry in asked if entry.Subnet), key=_version)
    without = _without_gateway(record)
    if _has_gateway(record):
        for entry in config:
            version = _version(entry)
            if enabled[version] and version not in without:
                _assign_gateway(entry)
    return config


def _pools_asked_for(asked: Iterable[IPAMConfig], taken: Sequence[Subnet]) -> list[Subnet]:
    """Return the subnets of entries, which get their usual spelling. Raises Forbidden."""
    found: list[Subnet] = []
    for entry in asked:
        subnet = ipaddress.ip_network(entry.Subnet)
        others = [other for other in (*taken, *found) if other.version == subnet.version]
        if any(subnet.overlaps(other) for other in others):
            raise Forbidden(
                "invalid pool request: Pool overlaps with other one on this address space"
            )
        entry.Subnet = str(subnet)  # users may write the same one in other ways
        entry.Gateway = str(ip_address(entry.Gateway)) if entry.Gateway else ""
        found.append(subnet)
    return found


def _assign_gateway(entry: IPAMConfig) -> None:
    if entry.Gateway:
        return
    subnet = ipaddress.ip_network(entry.Subnet)
    span = ipaddress.ip_network(entry.IPRange, strict=False) if entry.IPRange else None
    leases = Leases(subnet, span)
    for text in entry.AuxiliaryAddresses.values():
        leases.reserve(ip_address(text))
    entry.Gateway = str(leases.allocate())


def _has_gateway(record: NetworkRecord) -> bool:
    if record.Driver in ("macvlan", "ipvlan"):
        return not record.Internal
    return record.is_bridged


def _without_gateway(record: NetworkRecord) -> tuple[int, ...]:
    """The families in which the bridge gets no address, and so keeps none from containers."""
    if not record.is_bridged or not record.Internal:
        return ()
    parsed = options.parse_bridge(record.Options, internal=True)
    v4 = parsed.mode4 == "isolated" or parsed.inhibit4
    return (*([4] if v4 else []), *([6] if parsed.mode6 == "isolated" else []))


def _version(entry: IPAMConfig) -> int:
    return ipaddress.ip_network(entry.Subnet).version if entry.Subnet else 0


def _check_name(request: NetworkCreateRequest, store: NetworkStore) -> None:
    name = request.Name
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if name in PREDEFINED or name == "default":
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if name in store:
        raise Conflict(f"network with name {name} already exists")


def _check_scope(request: NetworkCreateRequest) -> None:
    if request.Scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if request.Scope not in ("", "local"):
        raise InvalidParameter(f"invalid network scope: {request.Scope}")
    if request.Driver == overlay.DRIVER and not request.Options.get(overlay.PEERS):
        raise Forbidden(NO_SWARM)  # as dockerd without a swarm
    if request.Ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if request.ConfigOnly and request.ConfigFrom.Network:
        raise Forbidden("a configuration network cannot depend on another configuration network")


def _from_configuration(request: NetworkCreateRequest, store: NetworkStore) -> NetworkCreateRequest:
    name = request.ConfigFrom.Network
    if not name:
        return request
    source = store.find(name)
    if source is None or not source.ConfigOnly:
        raise NotFound(f'configuration network "{name}" does not exist')
    if request.IPAM.Config or request.Options:
        raise Forbidden(
            "user-specified configurations are not supported if the network depends on a"
            " configuration network"
        )
    return replace(
        request,
        EnableIPv4=source.EnableIPv4,
        EnableIPv6=source.EnableIPv6,
        IPAM=IPAM("default", source.IPAM.Options, [replace(e) for e in source.IPAM.Config or ()]),
        Options=dict(source.Options),
        Labels={**source.Labels, **request.Labels},
    )


def _check_ipam(config: Sequence[IPAMConfig]) -> None:
    """Raise InvalidParameter, with a line for each thing that is wrong."""
    problems: list[str] = []
    for entry in config:
        problems += _subnet_problems(entry)
    if problems:
        raise InvalidParameter("invalid network config:\n" + "\n".join(problems))


def _subnet_problems(entry: IPAMConfig) -> list[str]:
    if not entry.Subnet:
        given = entry.IPRange or entry.Gateway or entry.AuxiliaryAddresses
        return ["invalid subnet : invalid CIDR block notation"] if given else []
    try:
        subnet = ipaddress.ip_network(entry.Subnet, strict=False)
    except ValueError:
        subnet = None
    if subnet is None or "/" not in entry.Subnet:
        return [f"invalid subnet {entry.Subnet}: invalid CIDR block notation"]
    if str(subnet) != _canonical(entry.Subnet):
        return [f"invalid subnet {entry.Subnet}: it should be {subnet}"]
    return [*_range_problems(entry, subnet), *_member_problems(entry, subnet)]


def _range_problems(entry: IPAMConfig, subnet: Subnet) -> list[str]:
    if not entry.IPRange:
        return []
    try:
        span = ipaddress.ip_network(entry.IPRange, strict=False)
    except ValueError:
        return [f"invalid ip-range {entry.IPRange}: invalid CIDR block notation"]
    if span.version != subnet.version or not span.subnet_of(subnet):  # type: ignore[arg-type]
        return [
            f"invalid ip-range {entry.IPRange}: parent subnet {subnet} doesn't contain ip-range"
        ]
    return []


def _member_problems(entry: IPAMConfig, subnet: Subnet) -> list[str]:
    problems = []
    named = [("gateway", entry.Gateway)] if entry.Gateway else []
    named += [(f"auxiliary address {key}", text) for key, text in entry.AuxiliaryAddresses.items()]
    for what, text in named:
        try:
            if ip_address(text) not in subnet:
                problems.append(
                    f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
                )
        except ValueError:
            problems.append(f"invalid {what}: invalid address")
    return problems


def _canonical(text: str) -> str:
    """The network as it was written, in the spelling that can be compared."""
    address, _, prefix = text.partition("/")
    return f"{ip_address(address)}/{prefix}"
