"""One snapshot of what the controllers of a cgroup count. The shapes are in `stats`."""

import errno

from pier.kernel.cgroups import blkio, cpu, hugetlb, memory, pids
from pier.kernel.cgroups.hierarchies import Hierarchies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.kernel.cgroups.stats import CpuStats, Stats

# Section, which is also the controller's name; how to read it on v1 and on v2.
_READERS: "tuple[tuple[str, Any, Any], ...]" = (
    ("memory", memory.stats_v1, memory.stats_v2),
    ("pids", pids.stats_v1, pids.stats_v2),
    ("blkio", blkio.stats_v1, blkio.stats_v2),
    ("hugetlb", hugetlb.stats_v1, hugetlb.stats_v2),
)


def collect(hierarchies: Hierarchies, path: str) -> "Stats":
    """Read all sections of the cgroup `path`; one whose controller is not there is left out.

    Raises FileNotFoundError when none is: the cgroup does not exist.
    """
    stats: dict[str, Any] = {}
    for section, read_v1, read_v2 in _READERS:
        home = hierarchies.home(section)
        if home is not None:
            try:
                stats[section] = (read_v1 if home.version == 1 else read_v2)(home.mount + path)
            except OSError as exc:
                _unless_gone(exc)
    try:
        stats["cpu"] = _cpu(hierarchies, path)
    except OSError as exc:
        _unless_gone(exc)
    if not stats:
        raise FileNotFoundError(errno.ENOENT, f"cgroup {path} does not exist")
    home = hierarchies.home("memory")
    stats["version"] = home.version if home else 2 if hierarchies.mode == "v2" else 1
    return stats  # type: ignore[return-value]  # the table keeps keys and types together


def _unless_gone(exc: OSError) -> None:
    """Raise `exc` again, unless the file is not there or (ENODEV) went while it was open."""
    if exc.errno not in {errno.ENOENT, errno.ENODEV}:
        raise exc


def _cpu(hierarchies: Hierarchies, path: str) -> "CpuStats":
    """v2 accounts CPU time without any controller, v1 in two of them."""
    accounting, bandwidth = hierarchies.home("cpuacct"), hierarchies.home("cpu")
    if accounting is not None and accounting.version == 2:
        return cpu.stats_v2(accounting.mount + path)
    if accounting is None and bandwidth is None:
        raise FileNotFoundError(errno.ENOENT, "cgroup controllers cpu and cpuacct are not here")
    return cpu.stats_v1(
        None if bandwidth is None else bandwidth.mount + path,
        None if accounting is None else accounting.mount + path,
    )
