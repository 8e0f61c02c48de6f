"""The heap of this process: mallopt(3), malloc_trim(3). With a C library that has neither, nothing."""

import ctypes
import os
from contextlib import suppress

_M_ARENA_MAX = -8  # malloc.h


def share_arenas(count: int) -> None:
    """Let all threads share `count` heaps; each new one would have its own, and keep what it used."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)


def give_back() -> None:
    """Give the kernel the pages that nobody uses any more."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def own_bytes() -> int:
    """Return what this process has resident beside files and shared memory, proc_pid_statm(5)."""
    with open("/proc/self/statm") as file:
        resident, shared = file.read().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")
