"""cgroups(7), version 2 and version 1 (also mixed, "hybrid") behind one interface.

    groups = detect()
    group = Cgroup(groups, "/pier/0123…")
    group.create(resources)             OCI linux.resources
    fd = group.open_fd()                v2: clone3 with CLONE_INTO_CGROUP starts the child inside
    group.join()                        v1: the child, still single-threaded, walks in itself
    …
    group.kill(); group.remove()

`manager` holds Cgroup, `hierarchies` what is mounted where, `tree` the directories, `files` the
control files; every controller has a file of its own that turns OCI resources into control file
writes and control files into statistics, for both versions side by side.
"""

from pier.kernel.cgroups.hierarchies import Hierarchies, Hierarchy, detect, namespace_mounts
from pier.kernel.cgroups.manager import Cgroup

__all__ = ["Cgroup", "Hierarchies", "Hierarchy", "detect", "namespace_mounts"]
