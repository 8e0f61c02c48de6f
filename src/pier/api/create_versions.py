"""What a request to create a container means in the API version of the client that sent it.

A field that a version did not have yet is passed over or refused, and defaults are those of its
time, as dockerd has it (moby/moby, daemon/server/router/container/container_routes.go). What holds
for every version is checked in `engine.validate`.

One default is not restored: API 1.40 and older took the host's cgroup namespace on cgroup v1, and
Pier's default is a private one for everybody (ARCHITECTURE.md).
"""

from pier.api.call import Version
from pier.errors import InvalidParameter
from pier.model.container import (
    BindOptions,
    CreateRequest,
    EndpointSettings,
    HostConfig,
    Mount,
    PortBinding,
)

_DEFAULT_NETWORK = "bridge"
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_MAC_WARNING = (
    "The container-wide MacAddress field is now deprecated. It should be specified in"
    " EndpointsConfig instead."
)
_DRIVER_WARNING = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via"
    " 'mount'. Use '--mount type=volume,volume-driver=...' instead"
)
_EMPTY_WARNING = (
    "Following container port(s) have an empty list of port-bindings: {}. Starting with API 1.53,"
    " such bindings will be discarded."
)


def adapt_create(request: CreateRequest, version: Version) -> list[str]:
    """Change a request in place to what it means; returns warnings. Raises InvalidParameter."""
    host = request.HostConfig
    if version < (1, 25):
        host.AutoRemove = False  # the client removes the container itself
    if version < (1, 40) and not host.IpcMode:
        host.IpcMode = "shareable"
    if version < (1, 42):
        host.ConsoleSize = (0, 0)
    if version < (1, 43):
        host.Annotations = {}
    if version < (1, 44) and request.Healthcheck is not None:
        request.Healthcheck.StartInterval = 0
    for mount in host.Mounts:
        _adapt_mount(mount, version)
    _adapt_endpoints(request, version)
    return [
        *_volume_driver(host, version),
        *_mac_address(request, version),
        *_interface_sysctls(request, version),
        *_empty_bindings(host, version),
    ]


def readonly_is_recursive(version: Version) -> bool:
    """Whether `ro` of a bind means what is mounted below it as well, where nobody says so."""
    return version >= (1, 44)


def _adapt_mount(mount: Mount, version: Version) -> None:
    if version < (1, 45) and mount.VolumeOptions is not None and mount.VolumeOptions.Subpath:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and mount.Type == "image":
        raise InvalidParameter('Mount type "Image" needs API v1.48 or newer')
    if not readonly_is_recursive(version) and mount.Type == "bind":
        _adapt_bind(mount, version)
    if version >= (1, 42):
        _check_options(mount)
    else:
        # These were wrong then too, and nobody looked.
        if mount.Type != "volume":
            mount.VolumeOptions = None
        if mount.Type != "tmpfs":
            mount.TmpfsOptions = None


def _check_options(mount: Mount) -> None:
    for options, kind in (
        (mount.VolumeOptions, "volume"),
        (mount.BindOptions, "bind"),
        (mount.TmpfsOptions, "tmpfs"),
    ):
        if options is not None and mount.Type != kind:
            raise InvalidParameter(
                f'{kind.title()}Options must not be specified on mount type "{mount.Type}"'
            )


def _adapt_bind(mount: Mount, version: Version) -> None:
    """Before API 1.44; read-only was not recursive then."""
    options = mount.BindOptions or BindOptions()
    if options.ReadOnlyForceRecursive:
        raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 40):
        options.NonRecursive = False
    if version < (1, 42):
        options.CreateMountpoint = False
    if mount.ReadOnly:
        options.ReadOnlyNonRecursive = True
        mount.BindOptions = options


def _adapt_endpoints(request: CreateRequest, version: Version) -> None:
    endpoints = request.NetworkingConfig.EndpointsConfig
    if version < (1, 44) and len(endpoints) > 1:
        raise InvalidParameter(
            "Container cannot be created with multiple network endpoints: " + ", ".join(endpoints)
        )
    if version < (1, 48):
        for endpoint in endpoints.values():
            endpoint.GwPriority = 0


def _volume_driver(host: HostConfig, version: Version) -> list[str]:
    """The CLI warned of it before the engine did."""
    if not host.VolumeDriver or version < (1, 48):
        return []
    for mount in host.Mounts:
        if mount.Type == "volume":
            driver = mount.VolumeOptions and mount.VolumeOptions.DriverConfig
            if not (driver and driver.Name):
                return [_DRIVER_WARNING]
    return []


def _mac_address(request: CreateRequest, version: Version) -> list[str]:
    """Move a MAC address of the container to that of its main endpoint.

    The field came before endpoints had addresses (1.44), and is none any more since 1.52.
    """
    if version >= (1, 52):
        request.MacAddress = ""
        return []
    endpoints = request.NetworkingConfig.EndpointsConfig
    mac = request.MacAddress
    if version < (1, 44):
        if not mac:
            for endpoint in endpoints.values():
                endpoint.MacAddress = ""
            return []
        if not _has_endpoint(request.HostConfig):
            raise InvalidParameter("conflicting options: mac-address and the network mode")
        _main_endpoint(request, version).MacAddress = mac
        request.MacAddress = ""
        return []
    if not mac:
        return []
    if _has_endpoint(request.HostConfig):
        try:
            endpoint = _main_endpoint(request, version)
        except InvalidParameter as exc:
            raise InvalidParameter(
                "unable to migrate container-wide MAC address to a specific network: " + exc.message
            ) from exc
        if endpoint.MacAddress not in ("", mac):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for"
                " the main network, or be left empty"
            )
        endpoint.MacAddress = mac
    request.MacAddress = ""
    return [_MAC_WARNING]


def _interface_sysctls(request: CreateRequest, version: Version) -> list[str]:
    """Move sysctls of eth0 to the main endpoint, which has had them itself since 1.46."""
    host = request.HostConfig
    if not (_has_endpoint(host) or host.NetworkMode == "none"):
        return []
    moved = []
    for name in host.Sysctls:
        parts = name.split(".", 4)
        if len(parts) < 5 or parts[0] != "net" or not parts[3].startswith("eth"):
            continue
        if version > (1, 47):
            raise InvalidParameter(
                f'interface specific sysctl setting "{name}" must be supplied using driver option'
                f" '{_SYSCTLS}'"
            )
        if parts[3] != "eth0":
            raise InvalidParameter(
                f"unable to determine network endpoint for sysctl {name}, use driver option"
                f" '{_SYSCTLS}' to set per-interface sysctls"
            )
        moved.append(name)
    if not moved:
        return []
    endpoint = _main_endpoint(request, version)
    texts = [f"{name.replace('.eth0.', '.IFNAME.', 1)}={host.Sysctls.pop(name)}" for name in moved]
    warning = (
        f'Migrated sysctl "{",".join(moved)}" to DriverOpts{{"{_SYSCTLS}":"{",".join(texts)}"}}.'
    )
    options = dict(endpoint.DriverOpts or {})
    if options.get(_SYSCTLS):
        texts.append(options[_SYSCTLS])
    endpoint.DriverOpts = options | {_SYSCTLS: ",".join(texts)}
    return [warning]


def _empty_bindings(host: HostConfig, version: Version) -> list[str]:
    """A port without bindings got one of the engine's choice, until 1.53."""
    empty = [port for port, bindings in host.PortBindings.items() if not bindings]
    for port in empty:
        if version > (1, 52):
            del host.PortBindings[port]
        else:
            host.PortBindings[port] = [PortBinding()]
    if not empty or version != (1, 52):
        return []
    ports = ", ".join(empty)
    return [_EMPTY_WARNING.format(ports)]


def _has_endpoint(host: HostConfig) -> bool:
    mode = host.NetworkMode
    return mode not in ("host", "none") and not mode.startswith("container:")


def _main_endpoint(request: CreateRequest, version: Version) -> EndpointSettings:
    """Find or make the settings of the network that NetworkMode names. Raises InvalidParameter."""
    endpoints = request.NetworkingConfig.EndpointsConfig
    mode = request.HostConfig.NetworkMode
    if mode in ("", "default"):
        mode = _DEFAULT_NETWORK
        if "default" in endpoints:
            return endpoints["default"]
    if not endpoints:
        request.NetworkingConfig.EndpointsConfig = {mode: (made := EndpointSettings())}
        return made
    if version < (1, 44):
        return next(iter(endpoints.values()))
    if mode not in endpoints:
        raise InvalidParameter(
            "HostConfig.NetworkMode must match the identity of a network in"
            " NetworkSettings.Networks"
        )
    return endpoints[mode]
