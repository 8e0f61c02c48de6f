"""What `Cgroup.stats` returns. Times in nanoseconds, sizes in bytes, -1 for no limit.

Only types: nothing here is imported by a running keeper.
"""

from typing import TypedDict


class CpuStats(TypedDict):
    """`percpu_ns` is [] on v2. `periods` counts enforcement periods of the quota."""

    usage_ns: int
    user_ns: int
    system_ns: int
    percpu_ns: list[int]
    periods: int
    throttled_periods: int
    throttled_ns: int


class MemoryStats(TypedDict):
    """`max_usage` is 0 where the kernel does not tell; `failcnt` how often the limit was hit.

    `stat` is memory.stat as it is, whose keys differ between v1 and v2.
    """

    usage: int
    max_usage: int
    limit: int
    failcnt: int
    oom_kills: int
    stat: dict[str, int]


class PidsStats(TypedDict):
    current: int
    limit: int


class BlkioEntry(TypedDict):
    """`op` as Docker shows it: "read" and "write" on v2; v1 has the kernel's own spelling:
    "Read", "Write", "Sync", "Async", "Discard", "Total".
    """

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(TypedDict):
    """Bytes transferred, and operations, of the cgroup and those below it."""

    service_bytes: list[BlkioEntry]
    serviced: list[BlkioEntry]


class HugetlbStats(TypedDict):
    """`max_usage` is 0 on v2, which does not keep it."""

    usage: int
    max_usage: int
    failcnt: int


class Stats(TypedDict, total=False):
    """A section is absent when its controller is. `hugetlb` is keyed by page size ("2MB").

    `version` is that of the memory controller's hierarchy (or of what there is): it decides
    whether Docker's /stats answer takes the v1 or the v2 shape.
    """

    version: int
    cpu: CpuStats
    memory: MemoryStats
    pids: PidsStats
    blkio: BlkioStats
    hugetlb: dict[str, HugetlbStats]
