"""One cgroup in every hierarchy of the host: its life from `create` to `remove`."""

from __future__ import annotations

import errno
import os
import time

from pier.kernel.cgroups import (
    blkio,
    cpu,
    cpuset,
    devices,
    freezer,
    hugetlb,
    memory,
    pids,
    rdma,
    tree,
)
from pier.kernel.cgroups.files import apply, unsupported, write
from pier.kernel.cgroups.hierarchies import Hierarchies, Hierarchy
from pier.kernel.cgroups.network import NetCls, NetPrio
from pier.kernel.cgroups.snapshot import collect
from pier.kernel.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pier.kernel.cgroups.stats import Stats

# Those that are set by writing files; devices are not, on v2.
_CONTROLLERS = (
    ("memory", memory),
    ("cpu", cpu),
    ("cpuset", cpuset),
    ("pids", pids),
    ("blkio", blkio),
    ("hugetlb", hugetlb),
    ("net_cls", NetCls),
    ("net_prio", NetPrio),
    ("rdma", rdma),
)

_KILL_TIMEOUT_S = 10.0
_KILL_ROUND_S = 0.5


class Cgroup:
    """The cgroup `path` ("/pier/<id>", below the root of each hierarchy's mount).

    Opening touches nothing: any process may open it at any time by the same path. Methods raise
    OSError with the file and the value that failed; FileNotFoundError when the cgroup is not there.

    On a hybrid host the v2 directory is made only if a controller that was asked for lives there.
    """

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        parts = path.split("/")
        if len(parts) < 2 or parts[0] or not all(parts[1:]) or ".." in parts or "." in parts:
            raise ValueError(f"invalid cgroup path {path!r}")
        self.path = path
        # Mount of a hierarchy → what `add` and `join` enter below the cgroup there ("/sub").
        self.below: dict[str, str] = {}
        self._hierarchies = hierarchies

    # -- life ----------------------------------------------------------------------------------

    def create(self, resources: Mapping[str, Any]) -> None:
        """Make the directories, and their parents, and apply the limits (OCI linux.resources).

        Idempotent. Raises OSError EOPNOTSUPP, naming the controller, when a limit needs one that
        this host does not have; ValueError for a limit that makes no sense. What was made stays
        for `remove`.
        """
        fresh = True
        failed: dict[str, OSError] = {}
        for hierarchy in self._hierarchies.all:
            directory = hierarchy.mount + self.path
            if hierarchy.version == 1:
                new = tree.make_v1(hierarchy, directory)
            elif self._needs_v2(resources):
                new, failed = tree.make_v2(hierarchy, directory)
            else:
                continue
            fresh = fresh and new
        self._apply(resources, fresh=fresh, failed=failed)

    def update(self, resources: Mapping[str, Any]) -> None:
        """Change limits of a living cgroup; what is absent stays as it is. Raises as `create`."""
        self._apply(resources, fresh=False, failed={})

    def remove(self) -> None:
        """Remove the cgroup and all below it from every hierarchy; missing is fine.

        Its parents stay. Raises OSError EBUSY when processes remain after two seconds; what could
        be removed is gone then.
        """
        busy: OSError | None = None
        for hierarchy in self._hierarchies.all:
            try:
                tree.remove(hierarchy.mount + self.path)
            except OSError as exc:
                busy = exc
        if busy is not None:
            raise busy

    def remove_empty_parents(self, levels: int) -> None:
        """Remove that many parents, from the nearest on, where nothing is in them any more."""
        parent = self.path
        for _ in range(levels):
            parent = os.path.dirname(parent)
            for hierarchy in self._hierarchies.all:
                tree.remove_empty(hierarchy.mount + parent)

    def exists(self) -> bool:
        """Tell whether there is anything of it in any hierarchy."""
        return any(os.path.lexists(h.mount + self.path) for h in self._hierarchies.all)

    # -- processes -----------------------------------------------------------------------------

    def add(self, pid: int) -> None:
        """Move process `pid` with all its threads into the cgroup.

        On a host that has been idle the first write waits for an RCU grace period, 5 to 10 ms
        (cgroup_threadgroup_rwsem); the other hierarchies follow within 0.03 ms each, in any order.
        To place a child that is only just being born, `open_fd` and `join` do not wait.
        """
        for hierarchy in self._hierarchies.all:
            self._enter(hierarchy, "cgroup.procs", pid)

    def join(self) -> None:
        """Move the calling process, which must have one thread only, into the cgroup.

        In v1 a thread that writes 0 to `tasks` moves without the lock that `add` waits for: 0.2 ms
        for nine hierarchies. v2 has no such door: there a process is best born inside, by clone3(2)
        with CLONE_INTO_CGROUP and `open_fd`, and this is not called. (A hybrid host's v2 directory,
        where there is one, is entered with the wait: a limit or device program may hang on it.)

        A new cgroup namespace must be unshared after this, not by the same clone3, or its root
        would be the parent's cgroup.
        """
        for hierarchy in self._hierarchies.all:
            self._enter(hierarchy, "tasks" if hierarchy.version == 1 else "cgroup.procs", 0)

    def open_fd(self) -> int | None:
        """Open the v2 directory for CLONE_INTO_CGROUP, close-on-exec, the caller's to close.

        None when this cgroup has no v2 directory: on v1, and mostly on hybrid hosts.
        """
        v2 = self._hierarchies.v2
        if v2 is None:
            return None
        try:
            path = v2.mount + self.path + self.below.get(v2.mount, "")
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self._hierarchies.mode == "v2":
                raise
            return None

    def open_fd_of(self, pidfd: int) -> int:
        """As `open_fd`, for the cgroup at or below this one in which a process of it is, on v2.

        Raises OSError: ESRCH when the process is no more, EBUSY when it is elsewhere.
        """
        v2 = self._hierarchies.v2
        pid = _pid_of(pidfd)
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
        if _pid_of(pidfd) != pid or v2 is None:
            raise OSError(errno.ESRCH, "the process is no more")
        for line in lines:
            path = line.removeprefix("0::")
            if path != line and path.startswith(self.path + "/"):
                return os.open(v2.mount + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        raise OSError(errno.EBUSY, f"the cgroup {self.path} is divided, and takes no process")

    def pids(self) -> list[int]:
        """Return the processes of the cgroup and all below it, [] when it does not exist.

        Processes of PID namespaces that are not below ours cannot be told and are left out.
        """
        found: set[int] = set()
        for hierarchy in self._hierarchies.all:
            found |= tree.processes(hierarchy.mount + self.path)
        return sorted(found)

    def kill(self) -> None:
        """Kill everything inside, paused or not, and wait until the cgroup is empty.

        Raises OSError ETIMEDOUT, naming processes, when some remain after ten seconds (asleep in
        the kernel, or of a PID namespace in which we cannot see them). A missing cgroup is fine.
        """
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while self.pids():
            self._kill_round()
            round_end = min(time.monotonic() + _KILL_ROUND_S, deadline)
            pause_s = 0.0002
            while self.pids() and time.monotonic() < round_end:
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 0.02)
            if time.monotonic() >= deadline:
                left = ", ".join(map(str, self.pids()[:8]))
                if left:
                    raise OSError(errno.ETIMEDOUT, f"kill {self.path}: processes {left} remain")

    # -- freezer -------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stop every process inside; returns when all are. Raises OSError ETIMEDOUT."""
        freezer.change(*self._freezer(), frozen=True)

    def thaw(self) -> None:
        """Let them go on. Raises OSError ETIMEDOUT, as when an ancestor is frozen."""
        freezer.change(*self._freezer(), frozen=False)

    def frozen(self) -> bool:
        """Tell whether every process is stopped."""
        return freezer.is_frozen(*self._freezer())

    # -- observation ---------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return what the controllers count, see `Stats`.

        Raises FileNotFoundError when the cgroup does not exist in any hierarchy.
        """
        return collect(self._hierarchies, self.path)

    def oom_kills(self) -> int:
        """How many processes the OOM killer took; 0 without a memory controller or cgroup.

        v2 counts the cgroups below too, v1 only this one.
        """
        home = self._hierarchies.home("memory")
        if home is None:
            return 0
        read = memory.oom_kills_v1 if home.version == 1 else memory.oom_kills_v2
        try:
            return read(home.mount + self.path)
        except FileNotFoundError:
            return 0

    def oom_events_are_true(self) -> bool:
        """Tell whether `oom_event_fd` speaks of nothing but memory that ran out.

        So it is on v1 while the cgroup is there. It speaks before anybody is dead, and where nobody
        is killed (disableOOMKiller).
        """
        home = self._hierarchies.home("memory")
        return home is not None and home.version == 1 and os.path.exists(home.mount + self.path)

    def oom_event_fd(self) -> int:
        """Return a descriptor that polls readable when memory ran out; the caller closes it.

        Non-blocking and close-on-exec. Drain it with os.read(fd, 4096), whatever it is: an
        eventfd(2) on v1, inotify(7) on v2. It is a hint, since it also fires when the cgroup is
        removed (v1) or only hits its limit (v2), and on v1 before the victim is dead: `oom_kills`
        and `oom_events_are_true` decide. Raises OSError EOPNOTSUPP without a memory controller.
        """
        home = self._home("memory")
        open_event = memory.oom_event_fd_v1 if home.version == 1 else memory.oom_event_fd_v2
        return open_event(home.mount + self.path)

    # -- inside --------------------------------------------------------------------------------

    def _home(self, controller: str) -> Hierarchy:
        home = self._hierarchies.home(controller)
        if home is None:
            raise unsupported(f"cgroup controller {controller}")
        return home

    def _freezer(self) -> tuple[str, int]:
        home = self._home("freezer")
        return home.mount + self.path, home.version

    def _needs_v2(self, resources: Mapping[str, Any]) -> bool:
        """Tell whether the v2 directory is needed; always so where freezing is done with it."""
        v2 = self._hierarchies.v2
        if v2 is self._hierarchies.home("freezer"):
            return True
        if v2 is self._hierarchies.home("devices") and resources.get("devices"):
            return True
        return any(
            v2 is self._hierarchies.home(name) and controller.settings_v1(resources, "")
            for name, controller in _CONTROLLERS
        )

    def _apply(
        self, resources: Mapping[str, Any], *, fresh: bool, failed: dict[str, OSError]
    ) -> None:
        for name, controller in _CONTROLLERS:
            home = self._hierarchies.home(name)
            if home is None:
                if controller.settings_v1(resources, ""):
                    raise unsupported(f"cgroup controller {name}")
                continue
            directory = home.mount + self.path
            if home.version == 1:
                apply(directory, controller.settings_v1(resources, directory))
            elif settings := controller.settings_v2(resources, directory):
                reason = failed.get("io" if name == "blkio" else name)
                if reason is not None:
                    raise OSError(
                        reason.errno,
                        f"cgroup controller {name} cannot be enabled: {reason.strerror}",
                    ) from reason
                apply(directory, settings)
        self._apply_devices(resources, fresh=fresh)
        self._apply_unified(resources)

    def _apply_devices(self, resources: Mapping[str, Any], *, fresh: bool) -> None:
        if resources.get("devices") is None:
            return
        rules = devices.parse(resources["devices"])
        home = self._hierarchies.home("devices")
        if home is None:
            if not devices.allows_everything(rules):
                raise unsupported("cgroup controller devices")
        elif home.version == 1:
            devices.apply_v1(home.mount + self.path, rules)
        else:
            devices.apply_v2(home.mount + self.path, rules, fresh=fresh)

    def _apply_unified(self, resources: Mapping[str, Any]) -> None:
        """OCI `unified`: v2 files, written as they are; one write a line, as the files want it."""
        unified = resources.get("unified") or {}
        v2 = self._hierarchies.v2
        if unified and (v2 is None or self._hierarchies.mode != "v2"):
            raise unsupported("cgroup v2, which unified resources need,")
        for name, value in unified.items():
            if "/" in name:
                raise ValueError(f"unified resource {name!r} is not a file name")
            for line in value.split("\n"):
                assert v2 is not None
                write(f"{v2.mount}{self.path}/{name}", line)

    def _enter(self, hierarchy: Hierarchy, file: str, pid: int) -> None:
        try:
            below = self.below.get(hierarchy.mount, "")
            write(f"{hierarchy.mount}{self.path}{below}/{file}", str(pid))
        except FileNotFoundError:
            # On a hybrid host the v2 directory may not have been needed.
            if hierarchy.version == 1 or self._hierarchies.mode == "v2":
                raise

    def _kill_round(self) -> None:
        """Send SIGKILL to everything inside, once."""
        v2 = self._hierarchies.v2
        if v2 is not None and self._hierarchies.mode == "v2":
            try:
                write(f"{v2.mount}{self.path}/cgroup.kill", "1")
            except FileNotFoundError:
                pass  # before Linux 5.14
            else:
                return
        # Frozen, so that nothing forks or ends (and has its number taken) between list and signal.
        # Not waited for long: what cannot be frozen is signalled all the same, in rounds.
        freezer_home = self._hierarchies.home("freezer")
        where = None
        if freezer_home is not None and os.path.isdir(freezer_home.mount + self.path):
            where = (freezer_home.mount + self.path, freezer_home.version)
            freezer.request(*where, frozen=True)
            freezer.wait_frozen(*where, frozen=True, timeout_s=0.1)
        try:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        finally:
            if where is not None:  # v1 delivers even SIGKILL only after the thaw
                freezer.request(*where, frozen=False)


def _pid_of(pidfd: int) -> int:
    """The number of a pidfd's process, pidfd_open(2). Raises OSError ESRCH when it is no more."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            if name == b"Pid" and int(value) > 0:
                return int(value)
    raise OSError(errno.ESRCH, "the process is no more")
