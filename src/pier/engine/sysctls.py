"""Sysctls that a container may set: those of its own namespaces.

Rules and messages are those of runc (opencontainers/runc, libcontainer/configs/validate). Names
have dots; one with slashes alone is turned into it. So no path with ".." can come out of one.
"""

import re

from pier.errors import InvalidParameter
from pier.model.container import HostConfig

_IPC = frozenset(
    "kernel." + name for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni")
) | {"kernel.shm_rmid_forced"}
_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)+", re.ASCII)


def validate(host: HostConfig) -> dict[str, str]:
    """Return the sysctls by their names with dots. Raises InvalidParameter."""
    checked = {}
    for given, value in host.Sysctls.items():
        name = given.replace("/", ".") if "." not in given else given
        _check(host, name)
        checked[name] = value
    return checked


def _check(host: HostConfig, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f'sysctl "{name}" is not a valid name')
    if name in _IPC or name.startswith("fs.mqueue."):
        if host.IpcMode == "host":
            raise InvalidParameter(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        return
    if name.startswith("net."):
        if host.NetworkMode == "host":
            raise InvalidParameter(f'sysctl "{name}" not allowed in host network namespace')
        return
    if host.UTSMode != "host":
        if name == "kernel.domainname":
            return
        if name == "kernel.hostname":
            raise InvalidParameter(
                f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
            )
    raise InvalidParameter(f'sysctl "{name}" is not in a separate kernel namespace')
