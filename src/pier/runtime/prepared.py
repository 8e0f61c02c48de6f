"""A container's first process, cloned before anybody asked for the container.

Cloning a process, copying the pages that it touches first and making the file systems that every
container has took half of a start. So a spare keeper clones one while it waits, in a pid namespace
of its own and in the IPC and UTS namespaces of the spare (`ready`). It makes those file systems as
detached mounts and waits for its container:

    prepared process                keeper
      │  clone3 ──────────────────────│
      │  …/proc, /dev, …              │  a container
      │◀──────── "bundle" + stdio ────│
      │  …init, as ever…              │  …cgroup, limits…

It stays in the host's mount namespace until then: nothing that the host unmounts is held, nothing
that it mounts is missed. On cgroup v2, where a process has to be born in its cgroup, none is made.
A container that wants something else than the usual namespaces gets a process of its own, and this
one ends.
"""

from __future__ import annotations

import os
import time

from pier.kernel import namespaces as ns
from pier.kernel.cgroups import Cgroup, Hierarchies
from pier.kernel.lean import signal, socket, suppress
from pier.kernel.process import clone3, close_range, join_session_keyring
from pier.runtime import protocol
from pier.runtime.bundle import read_filter, read_json
from pier.runtime.init import Init
from pier.runtime.made import Made, make_all
from pier.runtime.process import unmarked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pier.runtime.spec import KeeperConfig, Spec

SYNC_FD = 3
USUAL = ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS
MAY_JOIN = frozenset(("network", "cgroup"))


class Prepared:
    """The keeper's side: a process that waits at the other end of `sync`, ours to reap."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self.sync, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid, self.pidfd = clone3(ns.CLONE_NEWPID)
            if self.pid == 0:
                try:
                    self.sync.close()
                    _wait_for_container(theirs, hierarchies)
                finally:
                    os._exit(1)
        except OSError:
            self.sync.close()
            raise
        finally:
            theirs.close()

    def give(
        self, bundle: str, stdio: tuple[int, int, int] | None, flags: int, marks_fd: int
    ) -> bool:
        """Hand a container over, with stdio but for a terminal; False when the process is gone.

        `flags` are the namespaces that the container wants made; `marks_fd` is where a trace's marks
        go, -1 without a trace.
        """
        fds = stdio or ()
        left = flags & (ns.CLONE_NEWNS | ns.CLONE_NEWNET)
        packet = {"bundle": bundle, "flags": left, "stdio": len(fds), "marks": marks_fd >= 0}
        try:
            protocol.send(self.sync, packet, (*fds, marks_fd) if marks_fd >= 0 else fds)
        except OSError:
            return False
        return True

    def discard(self) -> None:
        """Let the process end, and reap it."""
        self.sync.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)


def fits(spec: Spec, flags: int) -> bool:
    """Tell whether a container can have a prepared process; `flags` are the namespaces it wants made."""
    linux = spec.get("linux", {})
    if flags & ~ns.CLONE_NEWNET != USUAL:
        return False
    if spec.get("hooks") or linux.get("netDevices"):
        return False
    listed = linux.get("namespaces", [])
    joined = {entry["type"] for entry in listed if entry.get("path")}
    return joined <= MAY_JOIN and not any(entry["type"] == "time" for entry in listed)


def _wait_for_container(sync: socket.socket, hierarchies: Hierarchies) -> NoReturn:
    """In the clone: make what can be made, wait, and become a container's first process."""
    os.dup2(sync.fileno(), SYNC_FD, inheritable=False)
    sync.detach()
    sync = socket.socket(fileno=SYNC_FD)
    close_range(SYNC_FD + 1)
    made = make_all(hierarchies)
    received = protocol.receive(sync)
    if received is None:
        os._exit(0)
    packet, fds = received
    try:
        _take_container(sync, packet, fds, hierarchies, made).run()
    except Exception as exc:  # noqa: BLE001  # whatever it is, silence would look like success
        protocol.send_failure(sync, "start", exc)
    finally:
        os._exit(1)


def _take_container(
    sync: socket.socket, packet: protocol.Packet, fds: list[int], hierarchies: Hierarchies,
    made: Made,
) -> Init:  # fmt: skip
    mark: Callable[[str], None] = unmarked
    if packet["marks"]:
        began = time.monotonic_ns()
        from pier.runtime.marks import Marks  # noqa: PLC0415  # rare, and memory of every keeper

        marks = Marks(fds[-1])
        marks("trace is set up", began)
        mark = marks
    mark("bundle is read")
    bundle: str = packet["bundle"]
    spec: Spec = read_json(bundle, "config.json")
    config: KeeperConfig = read_json(bundle, "keeper.json")
    bpf = read_filter(config["seccomp_bpf"])
    join_session_keyring(f"_ses.{config['id']}")
    made.fit(spec)
    flags: int = packet["flags"]
    return Init(
        spec,
        config,
        bundle=bundle,
        sync=sync,
        stdio=(fds[0], fds[1], fds[2]) if packet["stdio"] else None,
        seccomp_bpf=bpf,
        hierarchies=hierarchies,
        joins=Cgroup(hierarchies, config["cgroup"]),
        overlay_fd=-1,
        loopback_is_down=bool(flags & ns.CLONE_NEWNET),
        unshared=flags,
        made=made,
        mark=mark,
    )
