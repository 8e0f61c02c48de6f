"""The network part of a request to create a container. Messages are dockerd's.

What can be said without knowing the networks that there are; `network_create` says the rest.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

from pier.engine.etc_files import HOST_GATEWAY, split_extra_host
from pier.errors import InvalidParameter
from pier.model.container import CreateRequest, HostConfig, PortBinding
from pier.network.links import mac_bytes

DEFAULT = "bridge"
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_HOST_PORT = re.compile(r"(?:\d{1,5}(?:-\d{1,5})?)?", re.ASCII)
_CONTAINER = "container:"


def validate_network(request: CreateRequest) -> list[str]:
    """Check and normalise in place; returns the warnings.

    A network that does not exist is told at the start, not when it is made: clients take a 404 of
    the creation for a missing image. Raises InvalidParameter.
    """
    host = request.HostConfig
    if host.NetworkMode in ("", "default"):
        host.NetworkMode = DEFAULT
    if request.NetworkDisabled:
        host.NetworkMode = "none"
    _check_conflicts(request)
    _check_names(host)
    _check_links(host)
    _check_macs(request)
    return _check_ports(request)


def _check_conflicts(request: CreateRequest) -> None:
    host = request.HostConfig
    mode = host.NetworkMode
    if mode == "container" or mode.startswith(_CONTAINER):
        _check_joined(request)
    if host.UTSMode == "host" and request.Hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if mode == "host" and host.Links:
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links."
            " This would result in undefined behavior"
        )
    if request.MacAddress and mode in ("host", "none"):
        raise InvalidParameter("conflicting options: mac-address and the network mode")


def _check_joined(request: CreateRequest) -> None:
    """What a container cannot have of its own that shares the network of another one."""
    host = request.HostConfig
    if host.NetworkMode in ("container", _CONTAINER):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if request.Hostname:
        raise InvalidParameter("conflicting options: hostname and the network mode")
    if host.Links:
        raise InvalidParameter(
            "conflicting options: container type network can't be used with links."
            " This would result in undefined behavior"
        )
    if host.Dns:
        raise InvalidParameter("conflicting options: dns and the network mode")
    if host.ExtraHosts:
        raise InvalidParameter(
            "conflicting options: custom host-to-IP mapping and the network mode"
        )
    if host.PortBindings or host.PublishAllPorts:
        raise InvalidParameter(
            "conflicting options: port publishing and the container type network mode"
        )
    if request.ExposedPorts:
        raise InvalidParameter(
            "conflicting options: port exposing and the container type network mode"
        )


def _check_names(host: HostConfig) -> None:
    """Everything that ends up in /etc/hosts and /etc/resolv.conf."""
    for item in host.ExtraHosts or ():
        name, address = split_extra_host(item)
        if ":" not in item or not name or _has_space(name):
            raise InvalidParameter(f'bad format for add-host: "{item}"')
        if address != HOST_GATEWAY and not _is_address(address):
            raise InvalidParameter(f'invalid IP address in add-host: "{item.partition(":")[2]}"')
    for server in host.Dns or ():
        if not _is_address(server):
            raise InvalidParameter(f"{server} is not an ip address")
    for word in (*(host.DnsSearch or ()), *(host.DnsOptions or ())):
        if not word or _has_space(word):
            raise InvalidParameter(f"{word!r} is not a valid domain or option")


def _check_macs(request: CreateRequest) -> None:
    for name, endpoint in request.NetworkingConfig.EndpointsConfig.items():
        text = endpoint.MacAddress
        try:
            if text:
                mac_bytes(text)
        except ValueError:
            raise InvalidParameter(
                f"invalid config for network {name}: invalid MAC address {text}"
            ) from None


def _check_links(host: HostConfig) -> None:
    for link in host.Links or ():
        name, _, alias = link.partition(":")
        if not name or link.count(":") > 1 or (":" in link and not alias):
            raise InvalidParameter(f"bad format for links: {link}")


def _check_ports(request: CreateRequest) -> list[str]:
    host = request.HostConfig
    check_bindings(host.PortBindings)
    for port in request.ExposedPorts:
        _check_port(port)
    match host.NetworkMode:
        case "host" if host.PortBindings:
            return ["Published ports are discarded when using host network mode"]
        case "host" | "none":  # as dockerd: there is nothing to publish from
            return []
        case _:
            return []


def check_bindings(bindings: Mapping[str, Sequence[PortBinding] | None]) -> None:
    """Raise InvalidParameter for a port or a binding of it that makes no sense."""
    for port, entries in bindings.items():
        _check_port(port)
        for entry in entries or ():
            _check_binding(entry)


def _check_port(port: str) -> None:
    match = _PORT.fullmatch(port)
    last = int(match[2] or match[1]) if match else 0
    if match is None or last > 65535 or last < int(match[1]):
        raise InvalidParameter(f'invalid port specification: "{port}"')


def _check_binding(binding: PortBinding) -> None:
    match = _HOST_PORT.fullmatch(binding.HostPort)
    first, _, last = binding.HostPort.partition("-")
    if not match or (first and not 0 <= int(first) <= int(last or first) <= 65535):
        raise InvalidParameter(f'invalid port specification: "{binding.HostPort}"')
    if binding.HostIp and not _is_address(binding.HostIp):
        raise InvalidParameter(f"invalid IP address: {binding.HostIp}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _has_space(text: str) -> bool:
    return any(character.isspace() or character == "\0" for character in text)
