"""The cpuset controller: which CPUs and memory nodes. See cpuset(7)."""

import os

from pier.kernel.cgroups.files import Setting, read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def settings_v1(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """`cpus` and `mems` of the OCI cpu section, lists such as "0-2,4"; "" is not asked for."""
    cpu = resources.get("cpu") or {}
    return [((f"cpuset.{key}", cpu[key]),) for key in ("cpus", "mems") if cpu.get(key)]


settings_v2 = settings_v1


def inherit_v1(mount: str, directory: str) -> None:
    """Give a v1 cpuset that has no CPUs and nodes yet those of its parent.

    No process can join it before. A cgroup made below one with cgroup.clone_children has them from
    birth, and then one read is all that this costs. The nodes are written first, so that CPUs
    imply nodes even if we are killed half way.
    """
    if directory == mount or read(f"{directory}/cpuset.cpus").strip():
        return
    parent = os.path.dirname(directory)
    inherit_v1(mount, parent)
    for name in ("cpuset.mems", "cpuset.cpus"):
        write(f"{directory}/{name}", read(f"{parent}/{name}").strip())


def clone_to_children_v1(directory: str) -> None:
    """Let cgroups made below `directory` start with its CPUs and nodes."""
    write(f"{directory}/cgroup.clone_children", "1")
