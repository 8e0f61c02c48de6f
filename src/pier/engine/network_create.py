"""Which networks a new container is to be on, out of the request that makes it."""

from msgspec.structs import replace

from pier.engine.endpoint_settings import check_endpoint
from pier.errors import InvalidParameter
from pier.model.container import Attachment, CreateRequest, EndpointSettings
from pier.network.store import NetworkStore

JOINED = "container:"
_ALONE = ("host", "none")


def attachments(request: CreateRequest, networks: NetworkStore) -> dict[str, Attachment]:
    """Return the container's places by network, the main one first.

    A network that does not exist is told at the start, as by dockerd: to clients a 404 of the
    creation means that the image is missing. Raises InvalidParameter for what an existing one
    does not allow.
    """
    mode = request.HostConfig.NetworkMode
    if mode.startswith(JOINED):
        return {}
    wished = {
        "bridge" if name == "default" else name: settings
        for name, settings in request.NetworkingConfig.EndpointsConfig.items()
    } or {mode: EndpointSettings()}
    if list(wished) == ["bridge"] and networks.find("bridge") is None:
        # The engine was told to have none (`--bridge=none`): loopback only, as with dockerd.
        wished = {"none": EndpointSettings()}
    names = sorted(wished, key=lambda name: name != mode)  # stable: the others stay in their order
    if len(names) > 1 and not set(names).isdisjoint(_ALONE):
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in"
            " private (none) mode"
            if "none" in names
            else "container cannot be disconnected from host network or connected to host network"
        )
    found: dict[str, Attachment] = {}
    for name in names:
        settings = asked(wished[name])
        mac = settings.MacAddress or (request.MacAddress if name == names[0] else "")
        settings.MacAddress = mac
        network = networks.find(name)
        if network is not None:
            check_endpoint(network, settings, where=f"invalid config for network {name}: ")
        found[name] = Attachment(settings, mac=mac)
    return found


def asked(settings: EndpointSettings) -> EndpointSettings:
    """What a user asks for of an endpoint, without what only the engine can know."""
    return replace(
        EndpointSettings(),
        IPAMConfig=settings.IPAMConfig,
        Links=settings.Links,
        Aliases=settings.Aliases,
        MacAddress=settings.MacAddress,
        DriverOpts=settings.DriverOpts,
        GwPriority=settings.GwPriority,
    )
