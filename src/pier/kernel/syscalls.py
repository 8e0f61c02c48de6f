"""System calls through ctypes, for calls that `os` does not have. Not for anything with policy.

Every wrapper in this room goes through `call` or `syscall`, so that there is one place where errno
becomes OSError (with the call's name and arguments) and where EINTR is retried: ctypes has no
PEP 475. The library is opened as PyDLL, with the GIL held: the callers are single-threaded keepers
for whom releasing it costs more than most of these calls, and a raw clone3 in a thread that had
let go of the GIL would leave the child to fight for it.

Numbers: only calls that glibc 2.31 has no wrapper for are made by number, and only those added
since Linux 5.1, which have the same number on every architecture (asm-generic/unistd.h).
"""

import ctypes
import errno
import os

libc = ctypes.PyDLL(None, use_errno=True)

SYS_open_tree = 428
SYS_move_mount = 429
SYS_fsopen = 430
SYS_fsconfig = 431
SYS_fsmount = 432
SYS_fspick = 433
SYS_clone3 = 435
SYS_close_range = 436
SYS_openat2 = 437
SYS_pidfd_getfd = 438
SYS_mount_setattr = 442

NULL = None


def _fail(name: str, args: tuple[object, ...]) -> OSError:
    number = ctypes.get_errno()
    shown = ", ".join(
        os.fsdecode(a) if isinstance(a, bytes) else str(a)
        for a in args
        if isinstance(a, bytes | int | str)
    )
    return OSError(number, f"{name}({shown}): {os.strerror(number)}")


def function(name: str, *argtypes: type) -> "ctypes._NamedFuncPointer":
    """Return libc's function `name` with its prototype set: int result, these argument types."""
    # By index: an attribute would be one and the same object for every prototype.
    found = libc[name]
    found.argtypes = argtypes
    found.restype = ctypes.c_int
    return found


def _prototype(count: int) -> "ctypes._NamedFuncPointer":
    """Return syscall(2) with `count` words: a void * takes integers, bytes and references alike."""
    found = libc["syscall"]
    found.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * count)
    found.restype = ctypes.c_long
    return found


_syscalls = tuple(map(_prototype, range(7)))


def call(found: "ctypes._NamedFuncPointer", *args: object) -> int:
    """Call a libc function; raise OSError(errno) when it answers -1."""
    while True:
        result: int = found(*args)
        if result != -1:
            return result
        if ctypes.get_errno() != errno.EINTR:
            raise _fail(found.__name__, args)


def syscall(name: str, number: int, *args: object) -> int:
    """Make system call `number`; raise OSError(errno), naming it `name`, when it answers -1.

    ENOSYS means that the running kernel is older than the call.
    """
    found = _syscalls[len(args)]
    while True:
        result: int = found(number, *args)
        if result != -1:
            return result
        if ctypes.get_errno() != errno.EINTR:
            raise _fail(name, args)
