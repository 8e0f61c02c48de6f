"""Making a container: the image's configuration and the request's become one record."""

import os

from pier.engine.joins import resolve_joins
from pier.engine.legacy_links import settle_links
from pier.engine.log_values import parse_binary
from pier.engine.network_create import attachments
from pier.engine.own_options import is_traced
from pier.engine.services import Services
from pier.engine.settle import image_mount_warnings, settle
from pier.engine.validate import validate_create
from pier.engine.working_directory import make_working_directory
from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.model.api_containers import CreateResponse
from pier.model.container import (
    ContainerConfig,
    ContainerRecord,
    CreateRequest,
    HealthConfig,
    HostConfig,
)
from pier.model.gotime import now
from pier.model.platform import host_platform, parse_platform

_INHERITED_WHOLE = ("User", "WorkingDir", "StopSignal", "StopTimeout", "Shell")
_INHERITED_KEYS = ("ExposedPorts", "Labels", "Volumes")


async def create_container(
    services: Services,
    request: CreateRequest,
    *,
    name: str,
    platform: str,
    readonly_recursive: bool,
) -> CreateResponse:
    """Make a container, durably. Raises NotFound, InvalidParameter, Conflict, Unsupported."""
    store = services.store
    name = store.reserve_name(name)
    if not request.Image:
        if not (request.Cmd or request.Entrypoint):
            raise InvalidParameter("no command specified")
        raise InvalidParameter("config cannot be empty in order to create a container")
    wanted = parse_platform(platform) if platform else None
    image = services.images.get(request.Image, wanted)
    if services.settings.image_budget:
        services.images.touch(image)
    inherit(request, image.config.config)
    try:
        warnings = validate_create(request, services.settings)
    except NotFound as exc:
        # To clients a 404 of the creation means that the image is missing, and they pull it.
        raise InvalidParameter(exc.message) from exc
    warnings += image_mount_warnings(request.HostConfig)
    size = layer_size(services, request.HostConfig)
    resolve_joins(request.HostConfig, store)
    record = _record(request, image, name)
    settle_links(request.HostConfig, name, store)
    record.networks = attachments(request, services.networks.store)
    record.mounts = await settle(
        services, request, image, record.Id, readonly_recursive=readonly_recursive
    )
    try:
        services.directories.make(record.Id, size=size)
        try:
            waited = await make_working_directory(services, record, image)
            if waited or record.mounts:
                _check_again(services, request, record)
            store.add(record)
        except BaseException:
            services.directories.discard(record.Id)
            raise
    except BaseException:
        services.volumes.release(record.Id, record.mounts, remove=True)
        raise
    services.traces.begin(record.Id, wanted=is_traced(record.HostConfig))
    services.events.container(record, "create")
    return CreateResponse(Id=record.Id, Warnings=warnings)


def layer_size(services: Services, host: HostConfig) -> int:
    """How many bytes its writable layer may have, 0 for any number. Raises InvalidParameter."""
    if "size" not in host.StorageOpt:
        return services.settings.layer_size
    if not services.directories.has_quota():
        raise InvalidParameter(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
    return parse_binary(host.StorageOpt["size"])


def _check_again(services: Services, request: CreateRequest, record: ContainerRecord) -> None:
    """While volumes were filled, the name may have been taken and the image removed."""
    services.store.reserve_name(record.Name)
    if record.Image not in services.images:
        raise NotFound(f"No such image: {request.Image}")


def inherit(config: ContainerConfig, image: ContainerConfig) -> None:
    """Fill in what the request leaves to the image. The request wins; an entrypoint of its own
    also drops the image's command, and an entrypoint of "" means none.

    Raises InvalidParameter when there is nothing to run.
    """
    for name in _INHERITED_WHOLE:
        value = getattr(config, name)
        if not value and value != 0:  # a StopTimeout of 0 is one: no grace at all
            setattr(config, name, getattr(image, name))
    for name in _INHERITED_KEYS:
        inherited = getattr(image, name)
        if inherited:
            setattr(config, name, inherited | (getattr(config, name) or {}))
    config.Volumes = config.Volumes or None
    config.Healthcheck = _merge_health(config.Healthcheck, image.Healthcheck)
    config.Env = _merge_environment(config.Env or [], image.Env or [])
    if not config.Entrypoint:
        if not config.Cmd:
            config.Cmd = image.Cmd
            config.ArgsEscaped = image.ArgsEscaped
        if config.Entrypoint is None:
            config.Entrypoint = image.Entrypoint
    if config.Entrypoint == [""]:
        config.Entrypoint = None
    if not config.Entrypoint and not config.Cmd:
        raise InvalidParameter("no command specified")


def _merge_health(own: HealthConfig | None, inherited: HealthConfig | None) -> HealthConfig | None:
    """The request's health check, each of its fields that is empty taken from the image's."""
    if inherited is None:
        return own
    merged = HealthConfig()
    for name in HealthConfig.__struct_fields__:
        setattr(merged, name, getattr(own, name, None) or getattr(inherited, name))
    return merged


def _merge_environment(own: list[str], inherited: list[str]) -> list[str]:
    """The request's variables, then those of the image that it does not name."""
    named = {entry.partition("=")[0] for entry in own}
    return own + [entry for entry in inherited if entry.partition("=")[0] not in named]


def _record(request: CreateRequest, image: Image, name: str) -> ContainerRecord:
    container_id = os.urandom(32).hex()
    while container_id[:12].isdigit():  # a short ID that looks like a number confuses tools
        container_id = os.urandom(32).hex()
    fields = {name: getattr(request, name) for name in ContainerConfig.__struct_fields__}
    config = ContainerConfig(**fields)
    if not config.Hostname:
        config.Hostname = _default_hostname(request, container_id)
    command = [*(config.Entrypoint or []), *(config.Cmd or [])]
    return ContainerRecord(
        Id=container_id,
        Name=name,
        Created=now(),
        Image=image.id,
        Config=config,
        HostConfig=request.HostConfig,
        Path=command[0],
        Args=command[1:],
        layers=list(image.chain_ids),
        Platform=image.config.os or host_platform().os,
    )


def _default_hostname(request: CreateRequest, container_id: str) -> str:
    host = request.HostConfig
    if "host" in (host.NetworkMode, host.UTSMode):
        return os.uname().nodename
    return container_id[:12]
