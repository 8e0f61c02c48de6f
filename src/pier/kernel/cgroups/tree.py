"""Directories of cgroups: making them with their parents, walking, listing processes, removing."""

import errno
import os
import time

from pier.kernel.cgroups import cpuset
from pier.kernel.cgroups.files import read, write
from pier.kernel.cgroups.hierarchies import Hierarchy
from pier.kernel.lean import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# After the last process is gone the kernel takes a moment to let go of the cgroup.
_REMOVE_TIMEOUT_S = 2.0


def make_v1(hierarchy: Hierarchy, directory: str) -> bool:
    """Make `directory` with its parents; True when it is new. A cpuset is made fit for joining."""
    # Again, where who removes an empty parent comes in between.
    while (made := _mkdir(directory)) is None:
        parent = os.path.dirname(directory)
        try:
            make_v1(hierarchy, parent)
            if "cpuset" in hierarchy.controllers:
                cpuset.clone_to_children_v1(parent)
        except OSError as exc:
            if exc.errno not in {errno.ENOENT, errno.ENODEV}:
                raise
    if "cpuset" in hierarchy.controllers:
        cpuset.inherit_v1(hierarchy.mount, directory)
    return made


def make_v2(hierarchy: Hierarchy, directory: str) -> tuple[bool, dict[str, OSError]]:
    """Make `directory` with its parents and enable every controller for it, as runc does.

    Also those that nothing here knows, "misc" and "dmem": `resources.unified` may name their files.

    Returns whether it is new, and the controllers (v2 names) that could not be enabled with the
    reason: EBUSY where processes live directly in an ancestor (cgroups(7), the "no internal
    processes" rule).
    """
    while (made := _mkdir(directory)) is None:
        _make_parents(directory)
    missing = set(hierarchy.controllers).difference(read(f"{directory}/cgroup.controllers").split())
    failed: dict[str, OSError] = {}
    if missing:
        ancestor = hierarchy.mount
        for name in directory[len(hierarchy.mount) + 1 :].split("/"):
            _enable(ancestor, sorted(missing), failed)
            ancestor = f"{ancestor}/{name}"
    return made, failed


def _make_parents(directory: str) -> None:
    parent = os.path.dirname(directory)
    while _mkdir(parent) is None:
        _make_parents(parent)


def _mkdir(directory: str) -> bool | None:
    """True when made, False when it was there, None when its parent is missing."""
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError:
        return None
    return True


def _enable(directory: str, controllers: list[str], failed: dict[str, OSError]) -> None:
    """Enable controllers for the children of `directory`: all at once, or else one by one."""
    path = f"{directory}/cgroup.subtree_control"
    try:
        write(path, " ".join(f"+{c}" for c in controllers))
    except OSError:
        for controller in controllers:
            try:
                write(path, f"+{controller}")
            except OSError as exc:
                failed.setdefault(controller, exc)


def walk(directory: str) -> "Iterator[str]":
    """Yield the cgroups below `directory`, children before their parents, itself last."""
    try:
        with os.scandir(directory) as entries:
            children = [e.path for e in entries if e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        yield from walk(child)
    yield directory


def processes(directory: str) -> set[int]:
    """Return the processes of `directory` and all below it.

    Those of other PID namespaces, which the kernel lists as 0, are left out: kill(2) would take 0
    for our own process group.
    """
    found: set[int] = set()
    for cgroup in walk(directory):
        try:
            found.update(map(int, read(f"{cgroup}/cgroup.procs").split()))
        except OSError as exc:
            # Gone meanwhile; or threaded (v2), and then its processes are listed further up.
            if exc.errno not in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
                raise
    found.discard(0)
    return found


def remove(directory: str) -> None:
    """Remove `directory` and all cgroups below it; missing ones are fine.

    Raises OSError EBUSY when processes remain in it.
    """
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    pause_s = 0.0002
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        else:
            return
        _remove_children(directory)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)


def remove_empty(directory: str) -> None:
    """Remove `directory` if there is nothing in it; missing is fine."""
    with suppress(OSError):
        os.rmdir(directory)


def _remove_children(directory: str) -> None:
    for cgroup in walk(directory):
        if cgroup != directory:
            try:
                os.rmdir(cgroup)
            except OSError as exc:
                if exc.errno not in {errno.EBUSY, errno.ENOENT}:
                    raise
