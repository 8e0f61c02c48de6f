"""The cpu controller: shares or weight, quota and period, burst, idle; and CPU time used.

Documentation/scheduler/sched-bwc.rst, admin-guide/cgroup-v1/cpuacct.rst, admin-guide/cgroup-v2.rst.
"""

import os

from pier.kernel.cgroups.files import Setting, read, read_int, read_pairs, unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pier.kernel.cgroups.stats import CpuStats

# OCI name → v1 file, in the order in which they are written to a fresh cgroup.
_V1 = (
    ("shares", "cpu.shares"),
    ("period", "cpu.cfs_period_us"),
    ("quota", "cpu.cfs_quota_us"),
    ("burst", "cpu.cfs_burst_us"),
    ("realtimePeriod", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu.rt_runtime_us"),
)


def settings_v1(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """Zero means not asked for, except for `idle` and `burst`."""
    cpu = resources.get("cpu") or {}
    settings: list[Setting] = [
        ((file, str(cpu[key])),)
        for key, file in _V1
        if cpu.get(key) or (key == "burst" and cpu.get(key) == 0)
    ]
    if cpu.get("idle") is not None:
        settings.append((("cpu.idle", str(cpu["idle"])),))
    return settings


def settings_v2(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """As for v1; real-time bandwidth does not exist in v2 and raises OSError."""
    cpu = resources.get("cpu") or {}
    if cpu.get("realtimeRuntime") or cpu.get("realtimePeriod"):
        raise unsupported("the cpu controller's real-time bandwidth (cgroup v1 only)")
    settings: list[Setting] = []
    if cpu.get("shares"):
        settings.append((("cpu.weight", str(weight(cpu["shares"]))),))
    if cpu.get("quota") or cpu.get("period"):
        settings.append((("cpu.max", _cpu_max(cpu, directory)),))
    if cpu.get("burst") is not None:
        settings.append((("cpu.max.burst", str(cpu["burst"])),))
    if cpu.get("idle") is not None:
        settings.append((("cpu.idle", str(cpu["idle"])),))
    return settings


def weight(shares: int) -> int:
    """Map v1's 2..262144 to v2's 1..10000, linearly, as runc did up to 1.3.1."""
    shares = min(max(shares, 2), 262144)
    return 1 + (shares - 2) * 9999 // 262142


def _cpu_max(cpu: "Mapping[str, Any]", directory: str) -> str:
    """A quota alone keeps the period; for a period alone the quota has to be repeated."""
    period = cpu.get("period")
    if cpu.get("quota"):
        quota = str(cpu["quota"]) if cpu["quota"] > 0 else "max"
    else:
        quota = read(f"{directory}/cpu.max").split()[0]
    return f"{quota} {period}" if period else quota


def stats_v1(cpu_directory: str | None, cpuacct_directory: str | None) -> "CpuStats":
    """The two may be one hierarchy, two, or partly missing (None)."""
    stats = _empty()
    if cpuacct_directory is not None:
        tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        times = read_pairs(f"{cpuacct_directory}/cpuacct.stat")
        stats["usage_ns"] = read_int(f"{cpuacct_directory}/cpuacct.usage")
        stats["user_ns"] = times.get("user", 0) * tick_ns
        stats["system_ns"] = times.get("system", 0) * tick_ns
        per_cpu = read(f"{cpuacct_directory}/cpuacct.usage_percpu").split()
        stats["percpu_ns"] = [int(n) for n in per_cpu]
    if cpu_directory is not None:
        pairs = read_pairs(f"{cpu_directory}/cpu.stat")
        stats["periods"] = pairs.get("nr_periods", 0)
        stats["throttled_periods"] = pairs.get("nr_throttled", 0)
        stats["throttled_ns"] = pairs.get("throttled_time", 0)
    return stats


def stats_v2(directory: str) -> "CpuStats":
    stats = _empty()
    pairs = read_pairs(f"{directory}/cpu.stat")
    stats["usage_ns"] = pairs.get("usage_usec", 0) * 1000
    stats["user_ns"] = pairs.get("user_usec", 0) * 1000
    stats["system_ns"] = pairs.get("system_usec", 0) * 1000
    stats["periods"] = pairs.get("nr_periods", 0)
    stats["throttled_periods"] = pairs.get("nr_throttled", 0)
    stats["throttled_ns"] = pairs.get("throttled_usec", 0) * 1000
    return stats


def _empty() -> "CpuStats":
    return {
        "usage_ns": 0,
        "user_ns": 0,
        "system_ns": 0,
        "percpu_ns": [],
        "periods": 0,
        "throttled_periods": 0,
        "throttled_ns": 0,
    }
