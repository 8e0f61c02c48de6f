"""openat2(2): open a path that a hostile tree cannot turn against us. Linux 5.6."""

import ctypes
import errno
import os

from pier.kernel.syscalls import SYS_openat2, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# The kernel answers EAGAIN when a rename raced with the walk of "..": try again, but not for ever,
# since a hostile process in a shared volume can go on renaming.
ATTEMPTS = 128


class OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` relative to `dirfd`; the descriptor is close-on-exec and the caller's to close.

    With RESOLVE_IN_ROOT `dirfd` acts as the root directory for absolute paths, symbolic links and
    "..". Raises OSError with the call's errno: EXDEV or ELOOP when a resolve rule was broken.
    """
    how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(ATTEMPTS):
        try:
            return syscall("openat2", SYS_openat2, dirfd, path, ctypes.byref(how), 24)
        except OSError as exc:
            if exc.errno != errno.EAGAIN or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
