"""Processes: clone3(2), prctl(2), close_range(2), session keyrings, and a process's title."""

from __future__ import annotations

import ctypes
import errno
import os

from pier.kernel.lean import signal
from pier.kernel.syscalls import (
    SYS_clone3,
    SYS_close_range,
    SYS_pidfd_getfd,
    call,
    function,
    syscall,
)

CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x200000000

CLOSE_RANGE_CLOEXEC = 4
UINT_MAX = 0xFFFFFFFF

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

KEYCTL_JOIN_SESSION_KEYRING = 1
# glibc has no wrapper, and the call is older than the common numbering.
_SYS_keyctl = 250 if os.uname().machine == "x86_64" else 219

_argv: list[int] = []
_prctl = function(
    "prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong
)
# A name of 15 bytes, and no buffer: each length of those is a type of its own, a kilobyte to make.
_prctl_text = function("prctl", ctypes.c_int, ctypes.c_char_p)

PER_LINUX = 0
PER_LINUX32 = 8
_personality = function("personality", ctypes.c_ulong)


class CloneArgs(ctypes.Structure):
    """struct clone_args, its Linux 5.7 size (with `cgroup`)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    )


def clone3(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork this single-threaded process with CLONE_* `flags`.

    Returns (pid, pidfd) in the parent, the pidfd close-on-exec and the caller's to close, and
    (0, -1) in the child. With `cgroup_fd`, a directory of a cgroup v2, the child starts in it.
    The child must be as careful as after os.fork in C: it owns a copy of everything.
    """
    pidfd = ctypes.c_int(-1)
    args = CloneArgs(flags | CLONE_PIDFD, ctypes.addressof(pidfd))
    if not flags & CLONE_PARENT:
        # Else it is that of our own, and must not be given.
        args.exit_signal = signal.SIGCHLD
    if cgroup_fd is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = syscall("clone3", SYS_clone3, ctypes.byref(args), ctypes.sizeof(args))
    return pid, -1 if pid == 0 else pidfd.value


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """prctl(2)."""
    return call(_prctl, option, arg2, arg3, 0, 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """Return a copy of another process's descriptor, close-on-exec, the caller's. Linux 5.6.

    Raises OSError: EPERM without the right to trace it, EBADF when it has no such descriptor.
    """
    return syscall("pidfd_getfd", SYS_pidfd_getfd, pidfd, number, 0)


def personality(persona: int) -> None:
    """Set the execution domain that programs executed from here on see, personality(2)."""
    call(_personality, persona)


def set_name(name: str) -> None:
    """Set the thread's name, /proc/self/comm; at most 15 bytes show."""
    call(_prctl_text, PR_SET_NAME, name.encode()[:15])


def set_title(title: str) -> None:
    """Overwrite argv, so that ps shows `title`; cut to the room that argv takes.

    The bounds are arg_start and arg_end of /proc/self/stat (proc(5)). They can only be moved with
    CAP_SYS_RESOURCE, so whoever wants a long title starts with a padded argv. A fork has the same.
    """
    if not _argv:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        _argv.extend((int(fields[45]), int(fields[46])))
    start, end = _argv
    ctypes.memmove(
        start, os.fsencode(title)[: end - start - 1].ljust(end - start, b"\0"), end - start
    )


def close_range(first: int, last: int = UINT_MAX, *, cloexec: bool = False) -> None:
    """Close descriptors first..last, or mark them close-on-exec. Linux 5.9 (5.11 for the mark)."""
    syscall("close_range", SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC if cloexec else 0)


def join_session_keyring(name: str) -> None:
    """Leave the session keyring that was inherited for the one called `name`, made if need be.

    keyctl(2), KEYCTL_JOIN_SESSION_KEYRING. A kernel without keyrings, and a user who has used up
    the number of keys allowed, go without.
    """
    try:
        syscall("keyctl", _SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.encode())
    except OSError as exc:
        if exc.errno not in (errno.ENOSYS, errno.EDQUOT):
            raise


def status_code(status: int) -> int:
    """Return the exit code that a shell and Docker report for a wait status: 128+n for a signal."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)
