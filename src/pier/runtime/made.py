"""The file systems that every container has, made before there is a container (`prepared`).

Detached mounts. Since Linux 6.15 they can be mounted on each other, so /dev comes with what is mounted
in it and /proc with what covers its parts, to be attached in one go; before, each is attached at the
start. What a container wants otherwise is made at its start.
"""

from __future__ import annotations

import os

from pier.kernel import mount as mnt
from pier.kernel.cgroups import Hierarchies
from pier.kernel.lean import suppress
from pier.runtime import mounts
from pier.runtime.device_nodes import make_default_devices
from pier.runtime.rootfs import O_PATH_CLOEXEC, Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.runtime.spec import Mount, Spec

# As an engine's containers have them: another source or option, and the mount is made at the start.
MOUNTS: tuple[Mount, ...] = (
    {
        "destination": "/proc",
        "type": "proc",
        "source": "proc",
        "options": ["nosuid", "noexec", "nodev"],
    },
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"],
    },
    {
        "destination": "/dev/shm",  # the container's
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
    },
)
PROC, DEV = (mounts.key(MOUNTS[0]), mounts.key(MOUNTS[1]))
IN_DEV = frozenset(mounts.key(entry) for entry in MOUNTS[2:])
# But /proc/sys, which sysctls are written to before it is covered.
MASKED = frozenset(
    f"/proc/{name}"
    for name in (
        *("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi"),
        *("timer_list", "timer_stats"),
    )
)
READONLY = frozenset(("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"))


class Made:
    """What was made: descriptors by `mounts.key`. Who uses one takes it out.

    `nested` are those that are mounted in /dev already, `covered` the paths of /proc that are.
    """

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self.nested: frozenset[str] = frozenset()
        self.covered: frozenset[str] = frozenset()

    def fit(self, spec: Spec) -> None:
        """Give up what has more in it than this container wants."""
        linux = spec.get("linux", {})
        wanted = {mounts.key(entry) for entry in spec.get("mounts", [])}
        if self.nested and not wanted >= {DEV, *self.nested}:
            self._forget(DEV, *self.nested)
            self.nested = frozenset()
        if self.covered and not (
            PROC in wanted
            and MASKED.issubset(linux.get("maskedPaths", ()))
            and READONLY.issubset(linux.get("readonlyPaths", ()))
        ):
            self._forget(PROC)
            self.covered = frozenset()

    def _forget(self, *keys: str) -> None:
        for key in keys:
            if (fd := self.fds.pop(key, -1)) >= 0:
                os.close(fd)


def make_all(hierarchies: Hierarchies) -> Made:
    """Make what can be made now; the rest is left to the start."""
    made = Made()
    for entry in MOUNTS:
        with suppress(OSError):
            made.fds[mounts.key(entry)] = mounts.make(entry)
    with suppress(OSError):
        made.fds[mounts.CGROUP_ROOT] = mounts.make_cgroup_root(hierarchies)
    if DEV in made.fds:
        _fill_dev(made)
    if PROC in made.fds:
        _cover_proc(made)
    return made


def _fill_dev(made: Made) -> None:
    """Make the devices in /dev, and mount in it what belongs there. All of it, or it is given up."""
    try:
        make_default_devices(made.fds[DEV])
        for entry in MOUNTS[2:]:
            os.mkdir(entry["destination"].rpartition("/")[2], 0o755, dir_fd=made.fds[DEV])
    except OSError:
        os.close(made.fds.pop(DEV))
        return
    nested = set()
    try:
        for entry in MOUNTS[2:]:
            key = mounts.key(entry)
            mnt.move_mount(made.fds[key], made.fds[DEV], entry["destination"].rpartition("/")[2])
            nested.add(key)
    except (OSError, KeyError):
        # Linux before 6.15. What is nested all the same counts, and is asked for by `fit`.
        pass
    made.nested = frozenset(nested)


def _cover_proc(made: Made) -> None:
    """Cover what containers must not see or write of /proc; nothing of it where that cannot be."""
    root = Root(made.fds[PROC])
    null_fd = empty_fd = -1
    begun = False
    try:
        null_fd = os.open("/dev/null", O_PATH_CLOEXEC)
        if os.fstat(null_fd).st_rdev != os.makedev(1, 3):
            return
        empty_fd = mounts.make_empty()
        # The first of them, /proc/bus, is always there: where this cannot be, nothing was done.
        for path in sorted(READONLY):
            root.make_readonly(path.removeprefix("/proc"))
            begun = True
        attached = False
        for path in sorted(MASKED):
            attached = root.mask(path.removeprefix("/proc"), null_fd, empty_fd, attached=attached)
        made.covered = MASKED | READONLY
    except OSError:
        if begun:
            os.close(made.fds.pop(PROC))
    finally:
        for fd in (null_fd, empty_fd):
            if fd >= 0:
                os.close(fd)
