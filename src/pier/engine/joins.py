"""Joining another container's namespaces: `container:<name or id>` as PID, IPC or network mode."""

import contextlib

from pier.engine.container import Container
from pier.engine.oci import Sandbox
from pier.engine.store import ContainerStore
from pier.errors import Conflict, Internal, InvalidParameter, NotFound, PierError
from pier.model.container import HostConfig

PREFIX = "container:"
_RESTARTING = "Container {} is restarting, wait until the container is running"
_SHARED_IPC = ("shareable", "host", PREFIX)


def resolve_joins(host: HostConfig, store: ContainerStore) -> None:
    """Write full IDs where names were given, since names change.

    Raises InvalidParameter for one that does not exist, and not NotFound: to clients a 404 of the
    creation means that the image is missing, and they pull it. A network's is told at the start.
    """
    for mode in ("PidMode", "IpcMode", "NetworkMode"):
        value: str = getattr(host, mode)
        if value.startswith(PREFIX):
            try:
                setattr(host, mode, PREFIX + store.get(value.removeprefix(PREFIX)).id)
            except NotFound as exc:
                if mode != "NetworkMode":
                    raise InvalidParameter(exc.message) from exc


def joined_namespaces(
    container: Container, store: ContainerStore, network: str | None = None
) -> Sandbox:
    """Return the namespace files that a start joins; they live as long as the other container.

    `network` is the one that was made for this container.

    Raises InvalidParameter, Conflict and Internal, where dockerd does: of a process namespace all is
    its own fault, since it is looked for when the runtime's specification is written.
    """
    host = container.record.HostConfig
    hostname = ""
    if host.NetworkMode.startswith(PREFIX):
        with contextlib.suppress(NotFound):  # which is told below
            hostname = store.get(host.NetworkMode.removeprefix(PREFIX)).record.Config.Hostname
    return Sandbox(
        pid=_pid_namespace(host.PidMode, store),
        ipc=_process_namespace(host.IpcMode, "ipc", store),
        network=network or _network_namespace(container.id, host.NetworkMode, store),
        hostname=hostname,
    )


def _pid_namespace(mode: str, store: ContainerStore) -> str | None:
    try:
        return _process_namespace(mode, "pid", store)
    except PierError as exc:
        raise Internal(exc.message) from exc


def _process_namespace(mode: str, kind: str, store: ContainerStore) -> str | None:
    """The PID or IPC namespace of another container. Raises InvalidParameter, Conflict."""
    if not mode.startswith(PREFIX):
        return None
    failed = f"failed to join {kind.upper()} namespace: "
    try:
        other = store.get(mode.removeprefix(PREFIX))
    except NotFound as exc:
        raise InvalidParameter(failed + exc.message) from exc
    state = other.record.State
    if state.Restarting:
        raise Conflict(failed + _RESTARTING.format(other.id))
    if not state.Pid:
        raise Conflict(f"{failed}container {other.id} is not running")
    if kind == "ipc" and not other.record.HostConfig.IpcMode.startswith(_SHARED_IPC):
        raise InvalidParameter(
            f"{failed}container {other.id}: non-shareable IPC"
            " (hint: use IpcMode:shareable for the donor container)"
        )
    return f"/proc/{state.Pid}/ns/{kind}"


def _network_namespace(own_id: str, mode: str, store: ContainerStore) -> str | None:
    if not mode.startswith(PREFIX):
        return None
    try:
        other = store.get(mode.removeprefix(PREFIX))
    except NotFound as exc:
        raise Internal(f"joining network namespace of container: {exc.message}") from exc
    if other.id == own_id:
        raise Internal("cannot join own network namespace")
    state = other.record.State
    if state.Restarting:
        raise Conflict(
            f"cannot join network namespace of container: {_RESTARTING.format(other.id)}"
        )
    if not state.Pid:
        raise Conflict(
            "cannot join network namespace of a non running container:"
            f" container {other.name} is {state.Status}"
        )
    return f"/proc/{state.Pid}/ns/net"
