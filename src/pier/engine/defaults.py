"""What a container gets when nobody says otherwise: Docker's default spec (28.5), as constants.

Shared by every spec that is built, so never to be changed in place: builders copy the lists and
take the entries as they are.
"""

import functools
import glob
import os
from typing import Final

from pier.runtime.spec import DeviceCgroup, Mount

OCI_VERSION: Final = "1.2.0"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE: Final = 64 << 20
CGROUP_PARENT: Final = "/pier"
RUNTIME: Final = "runc"
LOG_DRIVER: Final = "json-file"

CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

# In the order in which dockerd's inspect lists them.
_MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

_SYSTEM: Final = ("nosuid", "noexec", "nodev")


def mount(destination: str, fstype: str, source: str, *options: str) -> Mount:
    return {
        "destination": destination,
        "type": fstype,
        "source": source,
        "options": list(options),
    }


PROC: Final = mount("/proc", "proc", "proc", *_SYSTEM)
DEV: Final = mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k")
DEV_PTS: Final = mount(
    "/dev/pts",
    "devpts",
    "devpts",
    "nosuid",
    "noexec",
    "newinstance",
    "ptmxmode=0666",
    "mode=0620",
    "gid=5",
)
SYS: Final = mount("/sys", "sysfs", "sysfs", *_SYSTEM, "ro")
SYS_RW: Final = mount("/sys", "sysfs", "sysfs", *_SYSTEM)
CGROUP: Final = mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", *_SYSTEM)
CGROUP_RW: Final = mount("/sys/fs/cgroup", "cgroup", "cgroup", *_SYSTEM)
MQUEUE: Final = mount("/dev/mqueue", "mqueue", "mqueue", *_SYSTEM)


def shm(size_bytes: int) -> Mount:
    return mount("/dev/shm", "tmpfs", "shm", *_SYSTEM, "mode=1777", f"size={size_bytes}")


def _character(major: int, minor: int) -> DeviceCgroup:
    return {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}


# Docker's list and what runc adds to it: any node may be made, few may be opened.
DEVICE_RULES: Final[tuple[DeviceCgroup, ...]] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    _character(1, 3),  # null
    _character(1, 5),  # zero
    _character(1, 7),  # full
    _character(1, 8),  # random
    _character(1, 9),  # urandom
    _character(5, 0),  # tty
    _character(5, 1),  # console
    _character(5, 2),  # ptmx
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},  # pts
    _character(10, 200),  # net/tun
)
ANY_DEVICE: Final[DeviceCgroup] = {"allow": True, "access": "rwm"}
# Made in every container by the runtime; the host's own must not take their place.
DEFAULT_DEVICE_PATHS: Final = frozenset(
    "/dev/" + name
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console")
)


@functools.cache
def masked_paths() -> tuple[str, ...]:
    """The paths that are hidden, with those of this host's CPUs (thermal interrupts) among them."""
    thermal = sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"))
    return (*_MASKED_PATHS, *thermal)


@functools.cache
def network_sysctls() -> tuple[tuple[str, str], ...]:
    """Docker's own sysctls for a private network namespace, as far as the kernel has them.

    They let any user ping and listen on ports below 1024, without capabilities.
    """
    wanted = (
        ("net.ipv4.ping_group_range", "0 2147483647"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
    )
    return tuple(
        (key, value)
        for key, value in wanted
        if os.path.exists("/proc/sys/" + key.replace(".", "/"))
    )
