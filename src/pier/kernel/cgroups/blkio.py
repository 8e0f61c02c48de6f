"""The block I/O controller, v1 "blkio" and v2 "io": weights, throttling, bytes served.

Documentation/admin-guide/cgroup-v1/blkio-controller.rst, admin-guide/cgroup-v2.rst,
block/bfq-iosched.rst.
"""

from pier.kernel.cgroups.files import Setting, read, unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pier.kernel.cgroups.stats import BlkioEntry, BlkioStats

# OCI name → v1 file, key of v2's io.max.
_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def settings_v1(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """Weights go to BFQ where it is built in, else to the scheduler of old (CFQ)."""
    blkio = resources.get("blockIO") or {}
    settings: list[Setting] = []
    if blkio.get("weight"):
        value = str(blkio["weight"])
        settings.append((("blkio.bfq.weight", value), ("blkio.weight", value)))
    if blkio.get("leafWeight"):
        settings.append((("blkio.leaf_weight", str(blkio["leafWeight"])),))
    for entry in blkio.get("weightDevice") or ():
        device = f"{entry['major']}:{entry['minor']}"
        if "weight" in entry:  # 0 takes it away
            value = f"{device} {entry['weight']}"
            settings.append((("blkio.bfq.weight_device", value), ("blkio.weight_device", value)))
        if entry.get("leafWeight"):
            settings.append((("blkio.leaf_weight_device", f"{device} {entry['leafWeight']}"),))
    for key, file, _ in _THROTTLES:
        settings += [
            ((file, f"{entry['major']}:{entry['minor']} {entry['rate']}"),)
            for entry in blkio.get(key) or ()
        ]
    return settings


def settings_v2(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """BFQ takes OCI's weights as they are, io.weight (io.cost) has a wider range."""
    blkio = resources.get("blockIO") or {}
    settings: list[Setting] = []
    if blkio.get("leafWeight"):
        raise unsupported("the io controller's leaf weight (cgroup v1 only)")
    if blkio.get("weight"):
        value = blkio["weight"]
        settings.append(
            (("io.bfq.weight", str(value)), ("io.weight", f"default {io_weight(value)}"))
        )
    for entry in blkio.get("weightDevice") or ():
        if entry.get("leafWeight"):
            raise unsupported("the io controller's leaf weight (cgroup v1 only)")
        if "weight" in entry:
            device, value = f"{entry['major']}:{entry['minor']}", entry["weight"]
            settings.append(
                (
                    ("io.bfq.weight", f"{device} {value or 'default'}"),
                    ("io.weight", f"{device} {io_weight(value) if value else 'default'}"),
                )
            )
    for key, _, name in _THROTTLES:
        for entry in blkio.get(key) or ():
            rate = entry["rate"] or "max"  # v1 lifts a limit with 0
            settings.append((("io.max", f"{entry['major']}:{entry['minor']} {name}={rate}"),))
    return settings


def io_weight(weight: int) -> int:
    """Map OCI's 10..1000 to io.weight's 1..10000, linearly, as runc does."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def stats_v1(directory: str) -> "BlkioStats":
    return {
        "service_bytes": _entries_v1(directory, "io_service_bytes_recursive"),
        "serviced": _entries_v1(directory, "io_serviced_recursive"),
    }


def _entries_v1(directory: str, name: str) -> "list[BlkioEntry]":
    """BFQ counts for the devices that it schedules, the throttle layer for all.

    (Since Linux 6.10 only for those on which some cgroup is throttled: an idle throttle layer is
    not set up, and v1 has no other place for the numbers. They are missing then, as with runc.)
    """
    for policy in ("bfq", "throttle"):
        try:
            text = read(f"{directory}/blkio.{policy}.{name}")
        except FileNotFoundError:
            if policy == "throttle":
                raise
            continue
        entries: list[BlkioEntry] = []
        for line in text.splitlines():
            fields = line.split()  # "8:0 Read 4096", and one "Total 4096" over all devices
            if len(fields) == 3:
                major, _, minor = fields[0].partition(":")
                entries.append(_entry(major, minor, fields[1], fields[2]))
        if entries:
            return entries
    return []


def stats_v2(directory: str) -> "BlkioStats":
    stats: BlkioStats = {"service_bytes": [], "serviced": []}
    for line in read(f"{directory}/io.stat").splitlines():
        device, *counters = line.split()  # "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6"
        values = dict(counter.split("=", 1) for counter in counters if "=" in counter)
        major, colon, minor = device.partition(":")
        if not colon or "rbytes" not in values:
            continue
        for prefix, op in (("r", "read"), ("w", "write")):
            stats["service_bytes"].append(_entry(major, minor, op, values[f"{prefix}bytes"]))
            stats["serviced"].append(_entry(major, minor, op, values[f"{prefix}ios"]))
    return stats


def _entry(major: str, minor: str, op: str, value: str) -> "BlkioEntry":
    return {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}
