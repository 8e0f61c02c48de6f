"""POST /containers/{id}/update: other limits for a container, at once when it runs.

What may change, and the words for what may not, are dockerd's (moby/moby,
container/container_unix.go, UpdateContainer). Where dockerd passes over a field in silence, the
cgroup is given it if it can be, and it is refused by name otherwise.
"""

import contextlib
from collections.abc import Collection, Mapping

import msgspec

from pier.engine import resources
from pier.engine.container import Container
from pier.engine.host_limits import host_limits
from pier.engine.live_mounts import add_mounts, parse_added
from pier.engine.publishing import changed_bindings
from pier.engine.services import Services
from pier.engine.states import ALIVE
from pier.engine.validate import validate_restart_policy
from pier.engine.validate_network import check_bindings
from pier.engine.validate_resources import validate_resources
from pier.errors import Conflict, InvalidParameter, PierError, Unavailable
from pier.model.api_containers import UpdateRequest, UpdateResponse
from pier.model.container import HostConfig, Resources, ThrottleDevice, WeightDevice
from pier.network import egress, shaping

# In the request's words; what is empty was not asked for.
BY_DEVICE = (
    *("BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps"),
    *("BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
)
_CHANGEABLE = (
    *BY_DEVICE,
    *("BlkioWeight", "CpuShares", "NanoCpus", "CpuPeriod"),
    *("CpuQuota", "CpusetCpus", "CpusetMems", "CpuRealtimePeriod", "CpuRealtimeRuntime", "Memory"),
    *("MemorySwap", "MemoryReservation"),
)
_CHANGEABLE_FROM_NONE = ("PidsLimit", "MemorySwappiness", "OomKillDisable")
_FIXED = ("CgroupParent", "Devices", "DeviceCgroupRules", "DeviceRequests", "Ulimits")


async def update_container(
    services: Services,
    container: Container,
    request: UpdateRequest,
    lifted: Collection[str] = (),
) -> UpdateResponse:
    """Change limits and restart policy, durably; nothing of it when it fails.

    `lifted` are those of BY_DEVICE whose limits are to go.
    Raises InvalidParameter for what is wrong in itself, Conflict for what does not go with how the
    container is, Internal when the kernel refuses.
    """
    asks_oom = request.OomKillDisable
    warnings = validate_resources(request, host_limits(), update=True)
    if request.PidsLimit is not None and request.PidsLimit < 0:
        request.PidsLimit = 0  # no limit, in dockerd's records
    if asks_oom is None:
        request.OomKillDisable = None
    validate_restart_policy(request.RestartPolicy)
    for field in _FIXED:
        if getattr(request, field):
            raise InvalidParameter(f"{field} of a container cannot be updated")
    _check_own(request)
    async with container.lock:
        try:
            wanted = _merged(container, request)
            for name in lifted:
                setattr(request, name, _lifting(getattr(container.record.HostConfig, name)))
                setattr(wanted, name, [])
            await _apply(container, wanted, request)
            if request.MountAdd:
                await add_mounts(services, container, request.MountAdd, wanted)
        except PierError as exc:
            raise type(exc)(f"Cannot update container {container.id}: {exc.message}") from exc
        _rewire(services, container, request, wanted)
        services.store.save(container)
    services.events.container(container.record, "update")
    return UpdateResponse(Warnings=warnings or None)


def _lifting(
    limits: list[WeightDevice] | list[ThrottleDevice] | None,
) -> list[WeightDevice | ThrottleDevice]:
    """What takes limits by device away: the same devices, with 0."""
    return [type(limit)(Path=limit.Path) for limit in limits or ()]


def _check_own(request: UpdateRequest) -> None:
    """Check what Docker's request has not. Raises InvalidParameter."""
    for bindings in (request.PublishAdd, request.PublishRemove):
        check_bindings(bindings)
    for key in request.Annotations:
        if key not in (*shaping.KEYS, egress.OPTION):
            raise InvalidParameter(f"annotation {key} of a container cannot be updated")
    shaping.parse_shape(request.Annotations)
    egress.parse(request.Annotations.get(egress.OPTION, ""))
    parse_added(request.MountAdd)


def _rewire(
    services: Services, container: Container, request: UpdateRequest, wanted: HostConfig
) -> None:
    """Let the container be as `wanted`, its network at once. Raises PierError."""
    files = services.networks.files(container) if egress.OPTION in request.Annotations else {}
    before, container.record.HostConfig = container.record.HostConfig, wanted
    if request.PublishAdd or request.PublishRemove:
        _republish(services, container, request, before)
    if egress.OPTION in request.Annotations:
        _police(services, container, before, files)
    if request.Annotations:
        _reshape(services, container, before)


def _reshape(services: Services, container: Container, before: HostConfig) -> None:
    """Change rates, delay and loss. Raises Internal, nothing changed then."""
    endpoints = services.networks.endpoints
    try:
        endpoints.reshape(container)
    except PierError as exc:
        container.record.HostConfig = before
        with contextlib.suppress(PierError):
            endpoints.reshape(container)
        raise type(exc)(f"Cannot update container {container.id}: {exc.message}") from exc


def _republish(
    services: Services, container: Container, request: UpdateRequest, before: HostConfig
) -> None:
    """Change what is published, of a running container at once. Raises PierError, nothing changed."""
    host = container.record.HostConfig
    host.PortBindings = changed_bindings(
        before.PortBindings, add=request.PublishAdd, remove=request.PublishRemove
    )
    try:
        services.networks.endpoints.republish(container)
    except PierError as exc:
        container.record.HostConfig = before
        raise type(exc)(f"Cannot update container {container.id}: {exc.message}") from exc


def _police(
    services: Services, container: Container, before: HostConfig, files: Mapping[str, str]
) -> None:
    """Put another egress policy in force. Raises PierError, nothing changed then."""
    try:
        services.networks.police_container(container, files)
    except PierError as exc:
        container.record.HostConfig = before
        raise type(exc)(f"Cannot update container {container.id}: {exc.message}") from exc


def _merged(container: Container, request: UpdateRequest) -> HostConfig:
    """The container's host configuration as it is going to be. Raises Conflict."""
    if container.is_removing or container.record.State.Status in ("removing", "dead"):
        raise Conflict('container is marked for removal and cannot be "update".')
    host = msgspec.structs.replace(container.record.HostConfig)
    check_conflicts(host, request)
    for field in _CHANGEABLE:
        if value := getattr(request, field):
            setattr(host, field, value)
    for field in _CHANGEABLE_FROM_NONE:
        value = getattr(request, field)
        if value is not None:
            setattr(host, field, value)
    if request.Annotations:
        host.Annotations = {**host.Annotations, **request.Annotations}
    if request.RestartPolicy.Name:
        if host.AutoRemove and request.RestartPolicy.Name != "no":
            raise Conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        host.RestartPolicy = request.RestartPolicy
    return host


def check_conflicts(host: Resources, request: Resources) -> None:
    """Raise Conflict for a limit that does not go with one that is set already."""
    for field, called, other, other_called in (
        ("NanoCpus", "Nano CPUs", "CpuPeriod", "CPU Period has"),
        ("NanoCpus", "Nano CPUs", "CpuQuota", "CPU Quota has"),
        ("CpuPeriod", "CPU Period", "NanoCpus", "NanoCPUs has"),
        ("CpuQuota", "CPU Quota", "NanoCpus", "NanoCPUs has"),
    ):
        if getattr(request, field) > 0 and getattr(host, other) > 0:
            raise Conflict(
                f"Conflicting options: {called} cannot be updated as {other_called} already been"
                " set"
            )
    if request.Memory and not request.MemorySwap and request.Memory > host.MemorySwap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the"
            " memoryswap at the same time"
        )


async def _apply(container: Container, wanted: HostConfig, request: UpdateRequest) -> None:
    """Give a living container its new limits. Raises Internal with the kernel's words."""
    run = container.run
    if run is None or run.keeper is None or container.record.State.Status not in ALIVE:
        return
    limits = resources.build(request)
    if request.Memory or request.MemorySwap:
        # One constrains the other, and cgroup v2 counts swap alone: both are told.
        memory = resources.build(Resources(Memory=wanted.Memory, MemorySwap=wanted.MemorySwap))
        limits["memory"] = {**limits.get("memory", {}), **memory.get("memory", {})}
    if request.OomKillDisable is False and host_limits().oom_kill_disable:
        limits["memory"] = {**limits.get("memory", {}), "disableOOMKiller": False}
    if not limits:
        return
    with contextlib.suppress(Unavailable):  # it has just ended: its next start has them
        await run.keeper.update(limits)
