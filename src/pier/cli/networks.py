"""The grammars of --network, --publish, --expose and --gpus, and what they add to a create body."""

from pier.cli.flags import Kind
from pier.cli.kinds import is_address
from pier.cli.mounts import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options

_PROTOCOLS = ("tcp", "udp", "sctp")
_NETWORK_TEXTS = {"name": "Target", "ip": "IPv4Address", "ip6": "IPv6Address"}
_NETWORK_LISTS = {"alias": "Aliases", "link-local-ip": "LinkLocalIPs"}


def check_mac(text: str) -> str:
    """A hardware address, checked. Raises ValueError."""
    parts = text.strip().replace("-", ":").split(":")
    digits = set("0123456789abcdefABCDEF")
    if len(parts) not in (6, 8, 20) or not all(len(p) == 2 and set(p) <= digits for p in parts):
        raise ValueError(f"{text} is not a valid mac address")
    return text


def _parse_network(text: str) -> "dict[str, Any]":
    """A name, or CSV of `name=`, `alias=`, `ip=`, …: Target and the endpoint's settings."""
    network: dict[str, Any] = {"Target": text, "Aliases": [], "LinkLocalIPs": [], "DriverOpts": {}}
    if "=" not in text and "," not in text:
        return network
    for field in fields(text):
        key, equals, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        if key in _NETWORK_TEXTS:
            network[_NETWORK_TEXTS[key]] = value
        elif key in _NETWORK_LISTS:
            network[_NETWORK_LISTS[key]].append(value)
        else:
            _set_network_option(network, key, value)
    return network


def _set_network_option(network: "dict[str, Any]", key: str, value: str) -> None:
    match key:
        case "mac-address":
            network["MacAddress"] = check_mac(value)
        case "driver-opt":
            name, pair, option = value.partition("=")
            if not pair:
                raise ValueError("invalid key value pair format in driver options")
            network["DriverOpts"][name.strip().lower()] = option.strip()
        case "gw-priority":
            try:
                network["GwPriority"] = int(value)
            except ValueError:
                raise ValueError(f"invalid gw-priority: {value}") from None
        case _:
            raise ValueError(f"invalid field key {key}")


NETWORK = Kind("network", _parse_network, repeated=True)


def network_settings(options: "Options") -> "tuple[str, dict[str, Any]]":
    """The NetworkMode and the EndpointsConfig of the flags. Raises ValueError."""
    networks: list[dict[str, Any]] = options.list("network") or [{"Target": "default"}]
    mode = str(networks[0]["Target"]) or "default"
    first = dict(networks[0])
    _merge_legacy_flags(first, mode, options)
    if options.list("network") and len(networks) == 1 and not _is_settled(first):
        return mode, {}  # NetworkMode says it all
    every = [first, *networks[1:]]
    return mode, {str(network["Target"]) or "default": _endpoint(network) for network in every}


def _merge_legacy_flags(network: "dict[str, Any]", mode: str, options: "Options") -> None:
    """--ip, --network-alias and others describe the first network."""
    if options.list("network-alias") and _is_predefined(mode):
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address"), ("mac-address", "MacAddress")):
        if options.text(flag):
            if network.get(key):
                raise ValueError(
                    f"conflicting options: cannot specify both --{flag} and per-network {flag}"
                )
            network[key] = options.text(flag)
    network["Aliases"] = [*network.get("Aliases", ()), *options.list("network-alias")]
    network["LinkLocalIPs"] = [*network.get("LinkLocalIPs", ()), *options.list("link-local-ip")]
    if not _is_predefined(mode):
        network["Links"] = options.list("link")


def _is_predefined(mode: str) -> bool:
    return mode in ("default", "bridge", "host", "none") or mode.startswith("container:")


def _is_settled(network: "dict[str, Any]") -> bool:
    return any(value for key, value in network.items() if key != "Target")


def _endpoint(network: "dict[str, Any]") -> "dict[str, Any]":
    """An EndpointSettings with every field, as Docker's client sends it."""
    ipam: dict[str, Any] = {
        key: network[key]
        for key in ("IPv4Address", "IPv6Address", "LinkLocalIPs")
        if network.get(key)
    }
    return {
        "IPAMConfig": ipam or None,
        "Links": network.get("Links") or None,
        "Aliases": network.get("Aliases") or None,
        "MacAddress": network.get("MacAddress", ""),
        "DriverOpts": network.get("DriverOpts") or None,
        "GwPriority": network.get("GwPriority", 0),
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _port_range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    for part in (low, high) if dash else (low,):
        if not part.isdigit() or not part.isascii():
            raise ValueError(f'strconv.ParseUint: parsing "{part}": invalid syntax')
        if int(part) > 65535:
            raise ValueError(f'strconv.ParseUint: parsing "{part}": value out of range')
    if dash and int(high) < int(low):
        raise ValueError(f"invalid range specified for port: {text}")
    return int(low), int(high) if dash else int(low)


def exposed_ports(specs: list[str]) -> dict[str, dict[str, str]]:
    """`80`, `90-92/udp` → {"80/tcp": {}, …}. Raises ValueError."""
    ports: dict[str, dict[str, str]] = {}
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        numbers, _, protocol = spec.partition("/")
        try:
            low, high = _port_range(numbers)
        except ValueError as error:
            raise ValueError(
                f"invalid range format for --expose: {numbers}, error: {error}"
            ) from None
        for port in range(low, high + 1):
            ports[f"{port}/{protocol or 'tcp'}"] = {}
    return ports


def published_ports(specs: list[str]) -> "dict[str, list[dict[str, str]]]":
    """`[[ip:][host-port]:]port[/protocol]`, ranges too → PortBindings. Raises ValueError."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for spec in specs:
        for port, binding in _publish(spec):
            bindings.setdefault(port, []).append(binding)
    return bindings


def _publish(spec: str) -> "list[tuple[str, dict[str, str]]]":
    if "=" in spec:
        return [_publish_long(spec)]
    address, host, inner = _split_publish(spec)
    container, _, protocol = inner.partition("/")
    protocol = protocol.lower() or "tcp"
    if address and not is_address(address):
        raise ValueError(f"invalid IP address: {address}")
    if not container:
        raise ValueError(f"no port specified: {spec}<empty>")
    try:
        low, high = _port_range(container)
    except ValueError:
        raise ValueError(f"invalid containerPort: {container}") from None
    host_low, host_high = _host_range(host)
    if host and host_high - host_low != high - low and high != low:
        raise ValueError(
            f"invalid ranges specified for container and host Ports: {container} and {host}"
        )
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if high == low:
        return [(f"{low}/{protocol}", {"HostIp": address, "HostPort": host})]
    return [
        (
            f"{low + step}/{protocol}",
            {"HostIp": address, "HostPort": str(host_low + step) if host else ""},
        )
        for step in range(high - low + 1)
    ]


def _split_publish(spec: str) -> tuple[str, str, str]:
    *before, container = spec.rsplit(":", 2)
    if not before:
        return "", "", container
    if len(before) == 1:
        return "", before[0], container
    address = before[0]
    if address[:1] == "[" and address[-1:] == "]":
        address = address[1:-1]
    return address, before[1], container


def _host_range(host: str) -> tuple[int, int]:
    if not host:
        return 0, 0
    try:
        return _port_range(host)
    except ValueError:
        raise ValueError(f"invalid hostPort: {host}") from None


def _publish_long(spec: str) -> "tuple[str, dict[str, str]]":
    """`target=80,published=8080,protocol=tcp,mode=ingress`."""
    values = {"protocol": "tcp", "published": "", "target": "", "mode": "ingress"}
    for field in fields(spec):
        key, equals, value = field.partition("=")
        if not equals or key.lower() not in values:
            raise ValueError(f"invalid field key: {key}" if equals else f"invalid field: {field}")
        values[key.lower()] = value
    if not values["target"]:
        raise ValueError("missing mandatory field 'target'")
    return f"{values['target']}/{values['protocol']}", {
        "HostIp": "",
        "HostPort": values["published"],
    }


def _parse_gpus(text: str) -> "dict[str, Any]":
    """`all`, a count, or CSV of `device=`, `count=`, `driver=`, `capabilities=`, `options=`."""
    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    counted = False
    for field in fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", key
        match key:
            case "count":
                request["Count"] = _gpu_count(value)
                counted = True
            case "device":
                request["DeviceIDs"] = value.split(",")
            case "driver":
                request["Driver"] = value
            case "capabilities":
                names = value.split(",")
                request["Capabilities"] = [[*names, *(() if "gpu" in names else ("gpu",))]]
            case "options":
                pairs = (pair.partition("=") for pair in value.split(","))
                request["Options"] = {name: text for name, _, text in pairs}
            case _:
                raise ValueError(f"unexpected key '{key}' in '{field}'")
    if not counted and request["DeviceIDs"] is None:
        request["Count"] = 1
    return request


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        ) from None


GPUS = Kind("gpu-request", _parse_gpus, repeated=True)
