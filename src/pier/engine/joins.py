"""Joining another container's namespaces: `container:<name or id>` as PID, IPC or network mode."""

import contextlib

from pier.engine.container import Container
from pier.engine.oci import Sandbox
from pier.engine.store import ContainerStore
from pier.errors import Conflict, NotFound
from pier.model.container import HostConfig

PREFIX = "container:"


def resolve_joins(host: HostConfig, store: ContainerStore) -> None:
    """Write full IDs where names were given, since names change.

    A container that does not exist is told at the start, as by dockerd: to clients a 404 of the
    creation means that the image is missing, and they pull it.
    """
    for mode in ("PidMode", "IpcMode", "NetworkMode"):
        value: str = getattr(host, mode)
        if value.startswith(PREFIX):
            with contextlib.suppress(NotFound):
                setattr(host, mode, PREFIX + store.get(value.removeprefix(PREFIX)).id)


def joined_namespaces(container: Container, store: ContainerStore) -> Sandbox:
    """Return the namespace files that a start joins; they live as long as the other container.

    Raises NotFound, and Conflict when the other container does not run.
    """
    host = container.record.HostConfig
    hostname = ""
    if host.NetworkMode.startswith(PREFIX):
        with contextlib.suppress(NotFound):  # which is told below
            hostname = store.get(host.NetworkMode.removeprefix(PREFIX)).record.Config.Hostname
    return Sandbox(
        pid=_namespace(host.PidMode, "pid", "PID", store),
        ipc=_namespace(host.IpcMode, "ipc", "IPC", store),
        network=_namespace(host.NetworkMode, "net", "network", store),
        hostname=hostname,
    )


def _namespace(mode: str, file: str, called: str, store: ContainerStore) -> str | None:
    if not mode.startswith(PREFIX):
        return None
    try:
        other = store.get(mode.removeprefix(PREFIX))
    except NotFound as exc:
        raise NotFound(f"joining {called} namespace of container: {exc.message}") from exc
    state = other.record.State
    if state.Restarting:
        raise Conflict(f"Container {other.id} is restarting, wait until the container is running")
    if not state.Pid:
        raise Conflict(f"cannot join {called} of a non running container: {other.id}")
    return f"/proc/{state.Pid}/ns/{file}"
