"""The settings about networks, checked: dockerd's flags and their spelling in daemon.json."""

import ipaddress
from collections.abc import Callable
from typing import Any

from pier.engine.settings_option import Option
from pier.errors import InvalidParameter
from pier.network.ipam import parse_pool
from pier.network.options import check_interface_name, mtu

NO_BRIDGE = "none"

_MARK_MAX = 0xFFFFFFFF

OPTIONS = (
    Option(
        "allow-direct-routing",
        "",
        "allow-direct-routing",
        "allow_direct_routing",
        "bool",
        "Published ports are reached at containers' own addresses too",
    ),
    Option("bip", "", "bip", "bip", "string", "IPv4 address of the default bridge (CIDR)"),
    Option("bip6", "", "bip6", "bip6", "string", "IPv6 address of the default bridge (CIDR)"),
    Option(
        "bridge-accept-fwmark",
        "",
        "bridge-accept-fwmark",
        "bridge_accept_fwmark",
        "string",
        "Let packets with this firewall mark (VALUE[/MASK]) into bridge networks",
    ),
    Option("bridge", "b", "bridge", "bridge", "string", 'Default bridge network, or "none"'),
    Option(
        "default-address-pool",
        "",
        "default-address-pools",
        "default_address_pools",
        "pools",
        "Address pools for networks (base=CIDR,size=BITS)",
    ),
    Option(
        "default-gateway",
        "",
        "default-gateway",
        "default_gateway",
        "string",
        "Default gateway of the default bridge",
    ),
    Option(
        "default-gateway-v6",
        "",
        "default-gateway-v6",
        "default_gateway_v6",
        "string",
        "Default IPv6 gateway of the default bridge",
    ),
    Option("dns", "", "dns", "dns", "list", "DNS server to use"),
    Option("dns-opt", "", "dns-opts", "dns_opts", "list", "DNS options to use"),
    Option("dns-search", "", "dns-search", "dns_search", "list", "DNS search domains to use"),
    Option(
        "fixed-cidr",
        "",
        "fixed-cidr",
        "fixed_cidr",
        "string",
        "Range of the default bridge's addresses",
    ),
    Option(
        "fixed-cidr-v6",
        "",
        "fixed-cidr-v6",
        "fixed_cidr_v6",
        "string",
        "IPv6 subnet of the default bridge",
    ),
    Option(
        "host-gateway-ip",
        "",
        "host-gateway-ips",
        "host_gateway_ips",
        "list",
        "What host-gateway means in --add-host",
    ),
    Option("icc", "", "icc", "icc", "bool", "Containers of the default bridge reach each other"),
    Option("ip", "", "ip", "ip", "string", "Default address for published ports"),
    Option("ip-forward", "", "ip-forward", "ip_forward", "bool", "Enable net.ipv4.ip_forward"),
    Option(
        "ip-forward-no-drop",
        "",
        "ip-forward-no-drop",
        "ip_forward_no_drop",
        "bool",
        "Forward for others too where we enabled it",
    ),
    Option(
        "ip-masq", "", "ip-masq", "ip_masq", "bool", "Masquerade what leaves the default bridge"
    ),
    Option("iptables", "", "iptables", "iptables", "bool", "Make firewall rules (nftables)"),
    Option("ipv6", "", "ipv6", "ipv6", "bool", "IPv6 on the default bridge"),
    Option("mtu", "", "mtu", "mtu", "number", "MTU of the default bridge's interfaces"),
    Option(
        "publish-before-firewall",
        "",
        "publish-before-firewall",
        "publish_before_firewall",
        "bool",
        "Accept containers' traffic ahead of the host's own iptables rules, as Docker does",
    ),
    Option(
        "userland-proxy",
        "",
        "userland-proxy",
        "userland_proxy",
        "bool",
        "Relay published ports where the firewall cannot",
    ),
)


def _address_with_prefix(value: Any) -> str:
    try:
        found = str(ipaddress.ip_interface(value))
    except ValueError:
        found = ""
    if not found or "/" not in value:
        raise InvalidParameter(f"failed to parse bip: invalid CIDR address: {value}")
    return found


def _address6_with_prefix(value: Any) -> str:
    found = _address_with_prefix(value)
    if ":" not in found:
        raise InvalidParameter(f"failed to parse bip6: invalid CIDR address: {value}")
    return found


def _subnet(value: Any) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise InvalidParameter(
            f"failed to parse fixed-cidr: invalid CIDR address: {value}"
        ) from None


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise InvalidParameter(f"{value} is not an ip address") from None


def _addresses(value: Any) -> tuple[str, ...]:
    return tuple(_address(item) for item in value)


def _words(value: Any) -> tuple[str, ...]:
    for word in value:
        if not word or any(character.isspace() for character in word):
            raise InvalidParameter(f"{word!r} is not a valid domain or option")
    return tuple(value)


def _bridge(value: Any) -> str:
    if value != NO_BRIDGE:
        check_interface_name(value)
    return str(value)


def _mark(value: Any) -> str:
    """A mark "VALUE[/MASK]" as numbers of C's, as "VALUE/MASK". "" is none."""
    if value == "":
        return ""
    text, slash, mask = str(value).partition("/")
    try:
        numbers = [int(text, 0), int(mask, 0) if slash else _MARK_MAX]
    except ValueError:
        numbers = [-1]
    if any(not 0 <= number <= _MARK_MAX for number in numbers):
        raise InvalidParameter(f"invalid firewall mark: {value}")
    return "/".join(f"{number:#x}" for number in numbers)


def _mtu(value: Any) -> int:
    return mtu({"com.docker.network.driver.mtu": str(value)})


def _pools(value: Any) -> tuple[tuple[str, int], ...]:
    """Pools as "base=CIDR,size=BITS" (the flag) or {"base": …, "size": …} (the file)."""
    found = []
    for item in value:
        fields = item if isinstance(item, dict) else dict(f.partition("=")[::2] for f in item.split(","))  # fmt: skip
        base, size = fields.get("base"), str(fields.get("size", ""))
        if not isinstance(base, str) or not size.isdigit():
            raise InvalidParameter(f"invalid default address pool: {item}")
        parse_pool(base, int(size))
        found.append((base, int(size)))
    return tuple(found)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "bip": _address_with_prefix,
    "bip6": _address6_with_prefix,
    "bridge": _bridge,
    "bridge-accept-fwmark": _mark,
    "default-address-pools": _pools,
    "default-gateway": _address,
    "default-gateway-v6": _address,
    "dns": _addresses,
    "dns-opts": _words,
    "dns-search": _words,
    "fixed-cidr": _subnet,
    "fixed-cidr-v6": _subnet,
    "host-gateway-ips": _addresses,
    "ip": _address,
    "mtu": _mtu,
}
