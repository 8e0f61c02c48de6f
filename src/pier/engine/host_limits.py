"""Which limits this host can enforce: the control files that its cgroups have.

Read once for the life of pierd, as what it says takes a remount to change. Docker's name for it is
sysinfo (moby/moby, pkg/sysinfo).
"""

import functools
import os
from typing import NamedTuple

from pier.kernel.cgroups import Hierarchies, detect


class HostLimits(NamedTuple):
    """`cpus` and `mems` are lists such as "0-3,7", "" when the host does not say."""

    memory: bool = True
    swap: bool = True
    reservation: bool = True
    swappiness: bool = True
    oom_kill_disable: bool = True
    pids: bool = True
    cpu_shares: bool = True
    cpu_cfs: bool = True
    cpu_realtime: bool = True
    cpuset: bool = True
    blkio_weight: bool = True
    blkio_throttle: bool = True
    cgroup_v2: bool = False
    cpu_count: int = 1
    cpus: str = ""
    mems: str = ""


@functools.cache
def host_limits() -> HostLimits:
    """What can be enforced here."""
    return probe(detect())


def probe(hierarchies: Hierarchies) -> HostLimits:
    """Look for the control files of v1, or for the controllers of v2, which come whole."""

    def has(controller: str, *files: str) -> bool:
        home = hierarchies.home(controller)
        if home is None:
            return False
        return home.version == 2 or any(os.path.exists(f"{home.mount}/{name}") for name in files)

    def only_v1(controller: str, name: str) -> bool:
        home = hierarchies.home(controller)
        return home is not None and home.version == 1 and os.path.exists(f"{home.mount}/{name}")

    return HostLimits(
        memory=has("memory", "memory.limit_in_bytes"),
        swap=hierarchies.has_swap_limit(),
        reservation=has("memory", "memory.soft_limit_in_bytes"),
        swappiness=only_v1("memory", "memory.swappiness"),
        oom_kill_disable=only_v1("memory", "memory.oom_control"),
        pids=hierarchies.home("pids") is not None,
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_cfs=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=only_v1("cpu", "cpu.rt_runtime_us"),
        cpuset=hierarchies.home("cpuset") is not None,
        blkio_weight=has("blkio", "blkio.weight", "blkio.bfq.weight"),
        blkio_throttle=has("blkio", "blkio.throttle.read_bps_device"),
        cgroup_v2=hierarchies.mode == "v2",
        cpu_count=len(os.sched_getaffinity(0)),
        cpus=_cpuset(hierarchies, "cpuset.cpus"),
        mems=_cpuset(hierarchies, "cpuset.mems"),
    )


def _cpuset(hierarchies: Hierarchies, name: str) -> str:
    home = hierarchies.home("cpuset")
    if home is None:
        return ""
    try:
        with open(
            f"{home.mount}/{name}{'.effective' if home.version == 2 else ''}", encoding="ascii"
        ) as file:
            return file.read().strip()
    except OSError:
        return ""
