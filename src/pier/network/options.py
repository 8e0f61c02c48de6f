"""What a bridge network and its endpoints can be told (`com.docker.network.*`), in libnetwork's words.

Parsed once into a struct; a key of this namespace that we do not know is refused, not ignored.
"""

from collections.abc import Mapping
from ipaddress import ip_address

from msgspec import Struct

from pier.errors import InvalidParameter, Unsupported
from pier.network import overlay

BRIDGE = "com.docker.network.bridge."
NAME = BRIDGE + "name"
DEFAULT_BRIDGE = BRIDGE + "default_bridge"
ICC = BRIDGE + "enable_icc"
MASQUERADE = BRIDGE + "enable_ip_masquerade"
HOST_BINDING = BRIDGE + "host_binding_ipv4"
GATEWAY_MODE_4 = BRIDGE + "gateway_mode_ipv4"
GATEWAY_MODE_6 = BRIDGE + "gateway_mode_ipv6"
INHIBIT_4 = BRIDGE + "inhibit_ipv4"
TRUSTED = BRIDGE + "trusted_host_interfaces"
MTU = "com.docker.network.driver.mtu"
INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
HOST_4 = "com.docker.network.host_ipv4"
HOST_6 = "com.docker.network.host_ipv6"
ENABLE_4 = "com.docker.network.enable_ipv4"
ENABLE_6 = "com.docker.network.enable_ipv6"

ENDPOINT_NAME = "com.docker.network.endpoint.ifname"
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"

MODES = ("nat", "nat-unprotected", "routed", "isolated")
DEFAULT_MTU = 1500
MAX_INTERFACE_NAME = 15

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_KNOWN = frozenset({
    *(NAME, DEFAULT_BRIDGE, ICC, MASQUERADE, HOST_BINDING, GATEWAY_MODE_4, GATEWAY_MODE_6),
    *(INHIBIT_4, TRUSTED, MTU, overlay.VXLAN_IDS, INTERFACE_PREFIX, HOST_4, HOST_6, ENABLE_4, ENABLE_6),
})  # fmt: skip


class BridgeOptions(Struct, frozen=True):
    """`name` "" lets the engine choose; `mtu` 0 leaves the kernel's; modes are out of MODES.

    From `trusted` links of the host published ports are reached at the container's own address too.
    """

    name: str = ""
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""
    mode4: str = "nat"
    mode6: str = "nat"
    inhibit4: bool = False
    trusted: tuple[str, ...] = ()
    mtu: int = 0
    prefix: str = "eth"
    host4: str = ""
    host6: str = ""
    default: bool = False


def parse_bridge(options: Mapping[str, str], *, internal: bool = False) -> BridgeOptions:
    """Check a bridge network's options. Raises InvalidParameter, Unsupported."""
    for key in options:
        if key.startswith("com.docker.network.") and key not in _KNOWN:
            raise Unsupported(f"network option {key} is not supported by pierd")
    name = options.get(NAME, "")
    if name:
        check_interface_name(name)
    prefix = options.get(INTERFACE_PREFIX, "eth")
    check_interface_name(prefix + "0")
    trusted = tuple(filter(None, options.get(TRUSTED, "").split(":")))
    for link in trusted:
        check_interface_name(link)
    for key in (HOST_BINDING, HOST_4, HOST_6):
        _check_address(key, options.get(key, ""))
    modes = [_mode(key, options.get(key, "nat"), internal) for key in (GATEWAY_MODE_4, GATEWAY_MODE_6)]  # fmt: skip
    return BridgeOptions(
        name=name,
        icc=boolean(ICC, options.get(ICC, "true")),
        masquerade=boolean(MASQUERADE, options.get(MASQUERADE, "true")),
        host_binding=options.get(HOST_BINDING, ""),
        mode4=modes[0],
        mode6=modes[1],
        inhibit4=boolean(INHIBIT_4, options.get(INHIBIT_4, "false")),
        trusted=trusted,
        mtu=mtu(options),
        prefix=prefix,
        host4=options.get(HOST_4, ""),
        host6=options.get(HOST_6, ""),
        default=boolean(DEFAULT_BRIDGE, options.get(DEFAULT_BRIDGE, "false")),
    )


def mtu(options: Mapping[str, str]) -> int:
    """The MTU that is asked for, 0 for none. Raises InvalidParameter."""
    text = options.get(MTU, "0")
    try:
        value = int(text)
    except ValueError:
        raise InvalidParameter(
            f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        ) from None
    if value < 0:
        raise InvalidParameter(f"invalid MTU number: {value}")
    if value and not 68 <= value <= 65535:
        raise InvalidParameter(f"invalid MTU number: {value}")
    return value


def boolean(key: str, text: str) -> bool:
    """Read a boolean as Go does. Raises InvalidParameter naming the key."""
    if text not in _TRUE and text not in _FALSE:
        raise InvalidParameter(
            f"failed to parse {key} value: {text} "
            f'(strconv.ParseBool: parsing "{text}": invalid syntax)'
        )
    return text in _TRUE


def check_interface_name(name: str) -> None:
    """Raise InvalidParameter for what cannot be a link's name (netdevice(7))."""
    if not 0 < len(name.encode()) <= MAX_INTERFACE_NAME:
        raise InvalidParameter(f"invalid interface name '{name}': 1 to 15 bytes are allowed")
    if name in (".", "..") or any(c in '/:"' or c.isspace() or not c.isprintable() for c in name):
        raise InvalidParameter(f"invalid interface name '{name}'")


def endpoint_sysctls(options: Mapping[str, str], interface: str) -> dict[str, str]:
    """The sysctls of an endpoint, "net.ipv4.conf.IFNAME.log_martians=1,…", by path below /proc/sys.

    Raises InvalidParameter.
    """
    found: dict[str, str] = {}
    for item in filter(None, options.get(ENDPOINT_SYSCTLS, "").split(",")):
        key, equals, value = item.partition("=")
        parts = key.strip().split(".")
        # The docker command writes all of `--network name=…,driver-opt=…` in lower case.
        if (
            not equals
            or len(parts) != 5
            or parts[0] != "net"
            or parts[1] not in ("ipv4", "ipv6", "mpls")
            or parts[2] not in ("conf", "neigh")
            or parts[3].upper() != "IFNAME"
        ):
            raise InvalidParameter(
                f"unrecognised network interface sysctl '{item}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        if not parts[4].replace("_", "").isalnum():
            raise InvalidParameter(f"invalid endpoint sysctl '{item}'")
        found[f"net/{parts[1]}/{parts[2]}/{interface}/{parts[4]}"] = value.strip()
    return found


def _mode(key: str, text: str, internal: bool) -> str:
    if text not in MODES:
        raise InvalidParameter(f"unknown gateway mode {text}")
    if text == "isolated" and not internal:
        raise InvalidParameter("gateway mode 'isolated' can only be used for an internal network")
    return text


def _check_address(key: str, text: str) -> None:
    if not text:
        return
    try:
        ip_address(text)
    except ValueError:
        raise InvalidParameter(f"failed to parse {key} value: {text} (invalid ip)") from None
