"""The freezer: stop every process of a cgroup and those below it, and let them go on.

v1: admin-guide/cgroup-v1/freezer-subsystem.rst. v2: cgroup.freeze, part of the core (Linux 5.2).
"""

import errno
import os
import time

from pier.kernel.cgroups.files import read, read_pairs, write

# A task in an uninterruptible sleep (NFS, a failing disk) freezes when it wakes up, if ever.
TIMEOUT_S = 10.0


def request(directory: str, version: int, *, frozen: bool) -> None:
    """Ask for the state without waiting for it."""
    if version == 1:
        write(f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED")
    else:
        write(f"{directory}/cgroup.freeze", "1" if frozen else "0")


def is_frozen(directory: str, version: int) -> bool:
    """Tell whether every process is stopped; False while they are on their way there."""
    if version == 1:
        return read(f"{directory}/freezer.state").strip() == "FROZEN"
    return read_pairs(f"{directory}/cgroup.events").get("frozen") == 1


def change(directory: str, version: int, *, frozen: bool) -> None:
    """Ask for the state and wait until it is reached.

    Raises OSError, ETIMEDOUT when it is not within TIMEOUT_S; a freeze is taken back then.
    """
    request(directory, version, frozen=frozen)
    if wait_frozen(directory, version, frozen=frozen, timeout_s=TIMEOUT_S):
        return
    if frozen:
        request(directory, version, frozen=False)
    verb = "freeze" if frozen else "thaw"
    raise OSError(errno.ETIMEDOUT, f"{verb} {directory}: {os.strerror(errno.ETIMEDOUT)}")


def wait_frozen(directory: str, version: int, *, frozen: bool, timeout_s: float) -> bool:
    """Wait for the state; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0002
    while is_frozen(directory, version) != frozen:
        if time.monotonic() > deadline:
            return False
        if version == 1 and frozen:
            # v1 misses tasks forked while it was at it, until it is asked again.
            request(directory, version, frozen=True)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)
    return True
