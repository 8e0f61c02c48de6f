"""Capabilities: capabilities(7), capget(2), prctl(2). Sets are int bit masks, bit n for number n.

A container's process gets them in two steps, as the change of user lies between: `drop_bounding`
while it still has CAP_SETPCAP, then (PR_SET_KEEPCAPS, setresuid) `capset` and `raise_ambient`. No
policy: which ones a container may have is decided in `pier.engine`.
"""

from __future__ import annotations

import ctypes
import errno

from pier.kernel.process import PR_SET_KEEPCAPS, prctl
from pier.kernel.syscalls import call, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of their numbers, include/uapi/linux/capability.h.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
LAST_CAP_PATH = "/proc/sys/kernel/cap_last_cap"

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_BITS = 64
_WORD = 0xFFFFFFFF

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct; pid 0 is the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    """struct __user_cap_data_struct: 32 bits of each set, the low half first."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_capset = function("capset", ctypes.c_void_p, ctypes.c_void_p)
_capget = function("capget", ctypes.c_void_p, ctypes.c_void_p)


def mask(names: Iterable[str]) -> int:
    """Return the bits of these names ("CAP_CHOWN"); unknown ones are left out, as runc does."""
    bits = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is not None:
            bits |= 1 << number
    return bits


def names(bits: int) -> list[str]:
    """Return the names of the bits, by number; bits that have no name here are left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def last_cap() -> int:
    """Number of the newest capability that the running kernel knows."""
    with open(LAST_CAP_PATH, "rb") as file:
        return int(file.read())


def capget() -> tuple[int, int, int]:
    """Return this thread's (effective, permitted, inheritable). See capget(2)."""
    header, data = _Header(_LINUX_CAPABILITY_VERSION_3, 0), (_Words * 2)()
    call(_capget, ctypes.addressof(header), ctypes.addressof(data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def permitted() -> int:
    """Return this thread's permitted set: the most that `capset` can ask for."""
    return capget()[1]


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's three sets. See capset(2).

    Raises OSError(EPERM) when `permitted` is not part of the present permitted set, `effective`
    not part of `permitted`, or `inheritable` neither of the bounding nor of the inheritable set.
    """
    header, data = _Header(_LINUX_CAPABILITY_VERSION_3, 0), (_Words * 2)()
    for index, word in enumerate(data):
        shift = 32 * index
        word.effective = effective >> shift & _WORD
        word.permitted = permitted >> shift & _WORD
        word.inheritable = inheritable >> shift & _WORD
    call(_capset, ctypes.addressof(header), ctypes.addressof(data))


def bounding() -> int:
    """Return this thread's bounding set."""
    bits = 0
    for number in range(_BITS):
        try:
            bits |= prctl(PR_CAPBSET_READ, number) << number
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            break
    return bits


def drop_bounding(keep: int) -> None:
    """Drop all but `keep` from the bounding set, for ever; what is missing already stays missing.

    Raises OSError(EPERM) without CAP_SETPCAP.
    """
    for number in range(_BITS):
        if keep >> number & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as exc:
            # The first number that the kernel does not know ends the walk: no look into /proc.
            if exc.errno != errno.EINVAL:
                raise
            break


def raise_ambient(bits: int) -> None:
    """Make the ambient set exactly `bits`.

    Raises OSError(EPERM) for a bit that is not both permitted and inheritable.
    """
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def ambient() -> int:
    """Return this thread's ambient set."""
    bits = 0
    for number in range(len(NAMES)):
        try:
            bits |= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, number) << number
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            break
    return bits


def set_keepcaps(keep: bool) -> None:
    """Say whether the permitted set survives a change from uid 0 to others; execve clears it."""
    prctl(PR_SET_KEEPCAPS, int(keep))
