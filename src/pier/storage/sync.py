"""syncfs(2) for worker threads.

Not in `pier.kernel`, whose library handle keeps the GIL held through a call (it serves
single-threaded keepers): this call may take seconds, and pierd's loop must go on meanwhile.
"""

import ctypes
import os
from contextlib import suppress

_libc = ctypes.CDLL(None, use_errno=True)
_syncfs = _libc.syncfs
_syncfs.argtypes = (ctypes.c_int,)
_syncfs.restype = ctypes.c_int


def syncfs(fd: int) -> None:
    """Write the whole file system that `fd` lies on to its device. Raises OSError."""
    if _syncfs(fd) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs({fd}): {os.strerror(number)}")


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable: the last step after a rename into it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def link_durably(path: str, name: str) -> None:
    """Give a file a further name, its bytes first; that the name is there already is fine."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        with suppress(FileExistsError):
            os.link(path, name)
    finally:
        os.close(fd)
    fsync_directory(os.path.dirname(name))


def boot_id() -> str:
    """Return what is different after every start of the machine (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
