"""The network part of a request to create a container. Messages are dockerd's.

Networks are an issue of their own: for now a container has a private namespace with loopback only,
the host's, or another container's. Whatever needs an interface is refused.
"""

import ipaddress
import re

from pier.engine.etc_files import split_extra_host
from pier.errors import InvalidParameter, NotFound, Unsupported
from pier.model.container import CreateRequest, EndpointSettings, HostConfig

DEFAULT = "bridge"
_PREDEFINED = frozenset((DEFAULT, "none", "host"))
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_HOST_PORT = re.compile(r"(?:\d{1,5}(?:-\d{1,5})?)?", re.ASCII)
_CONTAINER = "container:"


def validate_network(request: CreateRequest) -> list[str]:
    """Check and normalise in place; returns the warnings.

    A network that does not exist is told at the start, see `check_networks`. Raises
    InvalidParameter, Unsupported.
    """
    host = request.HostConfig
    if host.NetworkMode in ("", "default"):
        host.NetworkMode = DEFAULT
    if request.NetworkDisabled:
        host.NetworkMode = "none"
    mode = host.NetworkMode
    _check_conflicts(request)
    _check_names(host)
    for name, endpoint in request.NetworkingConfig.EndpointsConfig.items():
        _check_endpoint(DEFAULT if name == "default" else name, endpoint, mode)
    if request.MacAddress:
        raise Unsupported("a MAC address needs a network interface: not supported yet")
    if host.Links:
        raise Unsupported("links are not supported")
    return _check_ports(request)


def check_networks(host: HostConfig) -> None:
    """Raise NotFound for a network that does not exist, when a container is about to start.

    Not when it is made, as dockerd: clients take a 404 of the creation for a missing image.
    """
    mode = host.NetworkMode
    if mode and mode not in _PREDEFINED and not mode.startswith(_CONTAINER):
        raise NotFound(f"network {mode} not found")


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
        raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
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
        if address == "host-gateway":
            raise Unsupported(
                "unable to derive the IP value for host-gateway: no bridge network yet"
            )
        if not _is_address(address):
            raise InvalidParameter(f'invalid IP address in add-host: "{item.partition(":")[2]}"')
    for server in host.Dns or ():
        if not _is_address(server):
            raise InvalidParameter(f"{server} is not an ip address")
    for word in (*(host.DnsSearch or ()), *(host.DnsOptions or ())):
        if not word or _has_space(word):
            raise InvalidParameter(f"{word!r} is not a valid domain or option")


def _check_endpoint(name: str, endpoint: EndpointSettings | None, mode: str) -> None:
    if name != mode:
        raise Unsupported(f"a container on networks '{mode}' and '{name}' is not supported yet")
    if endpoint is None:
        return
    if endpoint.IPAMConfig and any(endpoint.IPAMConfig.values()):
        raise InvalidParameter(
            "user specified IP address is supported on user defined networks only"
        )
    if endpoint.Aliases:
        raise InvalidParameter(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    for field in ("Links", "MacAddress", "DriverOpts"):
        if getattr(endpoint, field):
            raise Unsupported(f"{field} of a network endpoint: not supported yet")


def _check_ports(request: CreateRequest) -> list[str]:
    host = request.HostConfig
    for port in (*request.ExposedPorts, *host.PortBindings):
        match = _PORT.fullmatch(port)
        if (
            not match
            or int(match[2] or match[1]) > 65535
            or int(match[2] or match[1]) < int(match[1])
        ):
            raise InvalidParameter(f'invalid port specification: "{port}"')
    for bindings in host.PortBindings.values():
        for binding in bindings or ():
            if not _HOST_PORT.fullmatch(binding.HostPort):
                raise InvalidParameter(f'invalid port specification: "{binding.HostPort}"')
    match host.NetworkMode:
        case "host" if host.PortBindings:
            return ["Published ports are discarded when using host network mode"]
        case "host" | "none":  # as dockerd: there is nothing to publish from
            return []
        case _ if host.PortBindings or (host.PublishAllPorts and request.ExposedPorts):
            raise Unsupported("published ports are not supported yet (use --network host)")
        case _:
            return []


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _has_space(text: str) -> bool:
    return any(character.isspace() or character == "\0" for character in text)
