"""namespaces(7): the CLONE_NEW* flags, unshare(2), setns(2), names, and lo in a new network."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from pier.kernel.lean import socket
from pier.kernel.syscalls import call, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# The OCI runtime spec's names (config-linux.md, Namespaces) and those under /proc/<pid>/ns.
FLAGS = {
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
PROC_NAMES = {
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)
_setdomainname = function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call(_unshare, flags)


def setns(fd: int, flags: int) -> None:
    """setns(2): `fd` is a namespace file, or a pidfd and `flags` says which of its namespaces."""
    call(_setns, fd, flags)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace, setdomainname(2)."""
    raw = name.encode()
    call(_setdomainname, raw, len(raw))


def enter_new_time(offsets: Mapping[str, tuple[int, int]]) -> None:
    """Make a time namespace and enter it; time_namespaces(7).

    `offsets` are (seconds, nanoseconds) of "monotonic" and "boottime", which can only be set before
    anybody is inside. unshare(2) moves children alone; the way in for ourselves is setns(2).
    """
    unshare(CLONE_NEWTIME)
    if offsets:
        lines = "".join(f"{clock} {s} {n}\n" for clock, (s, n) in offsets.items())
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, lines.encode())
        finally:
            os.close(fd)
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWTIME)
    finally:
        os.close(fd)


def bring_loopback_up() -> None:
    """Set lo up in this network namespace, which gives it 127.0.0.1 and ::1; netdevice(7)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        request = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        flags = struct.unpack_from("16sH", request)[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))
    finally:
        sock.close()
