"""The keeper's side of a start: stdio, namespaces, cgroup, and word from the new process.

`launch_init` and `launch_exec` return at once with a `Launch`; the keeper's loop goes on and calls
`Launch.listen` when its socket is readable. The dialogue is drawn in `init`.
"""

from __future__ import annotations

import errno
import os

from pier.errors import StartFailed
from pier.kernel import namespaces as ns
from pier.kernel import overlay, pty
from pier.kernel.cgroups import Cgroup, Hierarchies
from pier.kernel.lean import signal, socket, suppress
from pier.kernel.process import clone3, join_session_keyring
from pier.runtime import protocol
from pier.runtime.bundle import read_filter
from pier.runtime.exec import Exec
from pier.runtime.gate import Gate
from pier.runtime.init import Init, root_target
from pier.runtime.prepared import fits
from pier.runtime.process import set_before_birth, set_oom_score, unmarked
from pier.runtime.ready import Ready
from pier.runtime.stdio import Stdio, make_stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pier.runtime.marks import Marks
    from pier.runtime.spec import ExecConfig, IDMapping, KeeperConfig, Linux, Resources, Spec

INHERITED_STDIO = (0, 1, 2)
# What makes a mount one of `sources`.
MADE_OUTSIDE = frozenset(("idmap", "ridmap", "shared", "rshared"))
MADE_OUTSIDE_KEYS = frozenset(("uidMappings", "gidMappings", "mountNamespace"))


class Launch:
    """A process that was cloned and has not yet said that it runs.

    `terminal` says that it makes a terminal inside and is going to send us the master.
    """

    def __init__(
        self, pid: int, pidfd: int, sync: socket.socket, stdio: Stdio, *, terminal: bool = False,
        run_hooks: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.pid = pid
        self.pidfd = pidfd
        self.sync = sync
        self.stdio = stdio
        self.terminal = terminal
        self.devpts_fd = -1
        # Holds its mount namespace: taking that down is the keeper's, once the end was told.
        self.mounts_fd = -1
        self._run_hooks = run_hooks
        # Gets the pidfd and the pid of the process, and the number of its listener.
        self.agent: Callable[[int, int, int], None] | None = None
        self._reset = False
        # At its gate.
        self.waiting = False

    def listen(self) -> bool:  # one branch a packet
        """Take what the process says; True when it has executed its program, and `sync` is done.

        Also when it waits at its gate, and for us to record that.
        Raises StartFailed when it could not; it is dead then or about to be, but not reaped.
        """
        while True:
            try:
                received = protocol.receive(self.sync)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                # It ended without reading all that we told it, so it cannot have come far. The
                # kernel reports that once, and ahead of what the process had to say.
                self._reset = True
                continue
            if received is not None and "created" in received[0]:
                self.waiting = True
                return True
            if received is None:
                if self._reset or (self.terminal and self.stdio.master < 0):
                    raise StartFailed("the process was killed while it was set up", step="start")
                return True
            packet, fds = received
            if "error" in packet:
                error = packet["error"]
                raise StartFailed(error["message"], step=error["step"], errno=error["errno"])
            self._serve(packet, fds)

    def _serve(self, packet: protocol.Packet, fds: list[int]) -> None:
        if "mounted" in packet:
            self._hook()
        if "seccomp" in packet:
            self._hand_over(packet["seccomp"])
        if "devpts" in packet:
            self._keep(fds)

    def _hook(self) -> None:
        """Run the hooks that come before the pivot, and let the process go on."""
        if self._run_hooks is not None:
            self._run_hooks(self.pid)
        try:
            protocol.send(self.sync, {"hooked": True})
        except BrokenPipeError:
            raise StartFailed("the process was killed while hooks ran", step="hook") from None

    def _hand_over(self, number: int) -> None:
        """Give the process's listener to its agent, and let it go on."""
        if self.agent is None:
            raise StartFailed("nobody listens for this filter", step="seccomp")
        self.agent(self.pidfd, self.pid, number)
        with suppress(BrokenPipeError):
            protocol.send(self.sync, {"passed": True})

    def _keep(self, fds: list[int]) -> None:
        """Keep the container's devpts, and the master of its terminal."""
        if len(fds) != 1 + self.terminal:
            # The keeper has no room for them, or the packet would have been refused.
            _close_all(tuple(fds))
            raise StartFailed("too many open files in the keeper", step="console",
                              errno=errno.EMFILE)  # fmt: skip
        self.devpts_fd = fds[0]
        with suppress(OSError):
            self.mounts_fd = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        if self.terminal:
            self.stdio.master = fds[1]

    def abandon(self) -> None:
        """Kill and reap the process and close what was opened for it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.sync.close()
        self.stdio.close()
        for fd in (self.pidfd, self.devpts_fd, self.mounts_fd):
            if fd >= 0:
                os.close(fd)


def launch_init(  # noqa: C901, PLR0913, PLR0915  # a sequence, whose order matters
    spec: Spec,
    config: KeeperConfig,
    bundle: str,
    cgroup: Cgroup,
    hierarchies: Hierarchies,
    *,
    stdio: tuple[int, int, int] | None = None,
    ready: Ready | None = None,
    gate: Gate | None = None,
    mark: Callable[[str], None] = unmarked,
    marks_inside: Marks | None = None,
) -> Launch:
    """Start setting up the container's first process.

    With `stdio`, which stays the caller's, it gets those descriptors; otherwise pipes are made, or
    a terminal. It inherits what namespaces are `ready`. With a `gate`, which is closed here, it
    waits there for its start and does not end with us. A trace's marks are made with `mark` here and
    `marks_inside` there. Raises StartFailed with nothing left behind but perhaps the cgroup.
    """
    mark("files and pipes")
    flags, joined_pid = _namespaces(spec, alone=gate is None)
    makes_user_namespace = bool(flags & ns.CLONE_NEWUSER)
    joined_user = _joined(spec, "user")
    own_user_namespace = makes_user_namespace or joined_user is not None
    run_hooks = _runtime_hooks(spec, config, bundle)
    source_fds = _open_sources(spec, bundle)
    if ready is not None and not source_fds and fits(spec, flags):
        given = _launch_prepared(
            spec, config, bundle, cgroup, ready, flags=flags, mark=mark, marks_inside=marks_inside
        )
        if given is not None:
            return given
    if ready is not None:
        # Hooks run in the host's namespaces: then none that was made ahead is of use.
        useless = run_hooks is not None or joined_user is not None
        left = ready.take(0 if useless else flags)
        flags = flags if useless else left
    bpf = read_filter(config["seccomp_bpf"])
    overlay_fd = _mount_for_user_namespace(config) if own_user_namespace else -1
    resources = spec.get("linux", {}).get("resources", {})
    born_inside = _born_inside(hierarchies)
    if born_inside:
        _create(cgroup, resources)
    cgroup_fd = cgroup.open_fd() if born_inside else None
    child_stdio, ours = (stdio, Stdio()) if stdio else _own_stdio(spec, config)
    sync, child_sync = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    entered: set[str] = set()

    # Inherited by the container and its execs, in place of that of whoever started pierd.
    if gate is None or gate.keyring:
        join_session_keyring(f"_ses.{config['id']}")

    def child() -> NoReturn:
        # The end of the keeper has to show as the end of its socket.
        sync.close()
        Init(
            spec,
            config,
            bundle=bundle,
            sync=child_sync,
            stdio=child_stdio,
            seccomp_bpf=bpf,
            hierarchies=hierarchies,
            joins=None if own_user_namespace or hierarchies.mode == "v2" else cgroup,
            overlay_fd=overlay_fd,
            loopback_is_down=bool(flags & ns.CLONE_NEWNET),
            gate=gate,
            source_fds=source_fds,
            in_target=own_user_namespace,
            entered=entered,
            mark=marks_inside or unmarked,
        ).run()

    mark("clone3")
    if own_user_namespace:
        from pier.runtime import userns  # noqa: PLC0415  # rare

        # In what it could not reach from in there.
        with userns.around(root_target(spec, config, bundle), spec, entered):
            pid, pidfd = _clone(
                flags, cgroup_fd, joined_pid, child, user_namespace=joined_user,
                before=lambda: set_before_birth(spec["process"]),
            )  # fmt: skip
    else:
        pid, pidfd = _clone(flags, cgroup_fd, joined_pid, child)
    mark("after the clone")
    child_sync.close()
    if gate is not None:
        gate.listener.close()
    sync.setblocking(False)
    _close_all(() if stdio else child_stdio, overlay_fd, cgroup_fd, *source_fds.values())
    launch = Launch(pid, pidfd, sync, ours, terminal=child_stdio is None, run_hooks=run_hooks)
    launch.agent = _agent(spec, config, bundle)
    try:
        # While it is still one of ours: once it is root in there, its /proc is not ours to write.
        set_oom_score(pid, spec["process"])
        if makes_user_namespace:
            _map_ids(pid, spec)
            protocol.send(sync, {"mapped": True})
        _move_devices(spec, pid)
        if not born_inside:
            # Meanwhile the process makes its mounts on another core.
            mark("cgroup")
            _create(cgroup, resources)
        if own_user_namespace and hierarchies.mode != "v2":
            # Nobody in there may write to the host's cgroup files.
            _place(cgroup, pid)
        protocol.send(sync, {"go": True})
        mark("waits for execve")
    except BaseException as exc:  # noqa: BLE001  # raised again, once nothing is left
        _fail(launch, exc)
    return launch


def _launch_prepared(
    spec: Spec, config: KeeperConfig, bundle: str, cgroup: Cgroup, ready: Ready,
    *, flags: int, mark: Callable[[str], None], marks_inside: Marks | None,
) -> Launch | None:  # fmt: skip
    """As `launch_init`, with the process that was cloned ahead; None when there is none."""
    process = ready.process
    if process is None:
        return None
    child_stdio, ours = _own_stdio(spec, config)
    given = process.give(bundle, child_stdio, flags, marks_inside.fd if marks_inside else -1)
    _close_all(child_stdio)
    if not given:
        ours.close()
        return None
    ready.process = None
    ready.take(flags)
    join_session_keyring(f"_ses.{config['id']}")
    process.sync.setblocking(False)
    launch = Launch(process.pid, process.pidfd, process.sync, ours, terminal=child_stdio is None)
    launch.agent = _agent(spec, config, bundle)
    try:
        set_oom_score(launch.pid, spec["process"])
        mark("cgroup")
        _create(cgroup, spec.get("linux", {}).get("resources", {}))
        protocol.send(launch.sync, {"go": True})
        mark("waits for execve")
    except BaseException as exc:  # noqa: BLE001  # raised again, once nothing is left
        _fail(launch, exc)
    return launch


def _move_devices(spec: Spec, pid: int) -> None:
    devices = spec.get("linux", {}).get("netDevices")
    if not devices:
        return
    from pier.runtime import netdevices  # noqa: PLC0415  # rare, and memory of every keeper's

    joined = _joined(spec, "network")
    netdevices.move(devices, joined or f"/proc/{pid}/ns/net")


def _fail(launch: Launch, exc: BaseException) -> NoReturn:
    """Abandon a launch that `exc` has ended; raise what says why."""
    try:
        if isinstance(exc, BrokenPipeError):
            # It ended before we had spoken: its own words say why.
            launch.listen()
    finally:
        launch.abandon()
    if isinstance(exc, OSError):
        raise StartFailed(str(exc), step="clone", errno=exc.errno or 0) from exc
    raise exc


def _runtime_hooks(spec: Spec, config: KeeperConfig, bundle: str) -> Callable[[int], None] | None:
    """Return what runs the hooks between the mounts and the pivot, given the process's pid."""
    listed = spec.get("hooks")
    if not listed:
        return None
    from pier.runtime import hooks  # noqa: PLC0415  # rare, and the zygote's memory is every keeper's

    def run(pid: int) -> None:
        state = hooks.state(spec, config["id"], bundle, pid=pid, status="creating")
        hooks.run(listed, "prestart", state, cwd=bundle)
        hooks.run(listed, "createRuntime", state, cwd=bundle)

    return run


def _agent(spec: Spec, config: KeeperConfig, bundle: str) -> Callable[[int, int, int], None] | None:
    """Return what gives the filter's listener to its agent, for the few profiles that have one."""
    profile = spec.get("linux", {}).get("seccomp")
    if not profile or not profile.get("listenerPath"):
        return None
    from pier.runtime import hooks, listener  # noqa: PLC0415  # rare

    state = hooks.state(spec, config["id"], bundle, pid=0, status="creating")
    return listener.agent(profile, state)


def _own_stdio(spec: Spec, config: KeeperConfig) -> tuple[tuple[int, int, int] | None, Stdio]:
    return make_stdio(spec["process"], stdin_open=config["stdin_open"], devpts_fd=None)


def launch_exec(  # noqa: PLR0913  # what an exec is made of
    config: ExecConfig, target_pidfd: int, cgroup: Cgroup, hierarchies: Hierarchies, devpts_fd: int,
    *, own_user_namespace: bool, linux: Linux, inherited: int | None = None,
    keeps_newlines: bool = False,
) -> Launch:  # fmt: skip
    """Start a further process in the container whose first process is `target_pidfd`.

    `devpts_fd` is the container's devpts, where its terminal is opened; `linux` that part of its
    config.json, for what an exec shares with the container's first process. With `inherited` it
    does not end with us, and without a terminal has our own stdio and that many descriptors after
    it. `keeps_newlines` is for a terminal that is joined to what may be none: `pty.keep_newlines`.
    Raises StartFailed, and OSError when the keeper itself is short of something; no descriptor
    is left open then.
    """
    bpf = read_filter(config["seccomp_bpf"])
    cgroup_fd = cgroup.open_fd() if _born_inside(hierarchies) else None
    try:
        stdio, ours = _exec_stdio(config, devpts_fd, inherits=inherited is not None)
        if keeps_newlines and ours.master >= 0:
            pty.keep_newlines(ours.master)
    except BaseException:
        _close_all((), cgroup_fd)
        raise
    closed = () if stdio == INHERITED_STDIO else stdio
    # For a user the way to the pid namespace leads through its user namespace.
    through = target_pidfd if own_user_namespace and os.geteuid() != 0 else None
    try:
        sync, child_sync = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        ours.close()
        _close_all(closed, cgroup_fd)
        raise

    def child() -> NoReturn:
        # The end of the keeper has to show as the end of its socket.
        sync.close()
        assert stdio is not None
        Exec(
            config,
            sync=child_sync,
            stdio=stdio,
            seccomp_bpf=bpf,
            target_pidfd=target_pidfd,
            own_user_namespace=own_user_namespace and through is None,
            prepared=through is not None,
            joins=None if hierarchies.mode == "v2" else cgroup,
            inherited=inherited,
            linux=linux,
        ).run()

    def clone(fd: int | None) -> tuple[int, int]:
        return _clone(
            0, fd, target_pidfd, child, user_namespace=through,
            before=lambda: set_before_birth(config["process"]),
        )  # fmt: skip

    try:
        try:
            pid, pidfd = clone(cgroup_fd)
        except StartFailed as exc:
            if exc.errno != errno.EBUSY or cgroup_fd is None or cgroup.below:
                raise
            # Controllers were given to cgroups below, as systemd and dockerd do it inside of a
            # container: no process may be in this one then (cgroups(7)). Beside the first, as runc.
            beside_fd = cgroup.open_fd_of(target_pidfd)
            try:
                pid, pidfd = clone(beside_fd)
            finally:
                os.close(beside_fd)
    except BaseException:
        # A container that is just ending cannot be joined: its keeper may live on for a while.
        ours.close()
        sync.close()
        raise
    finally:
        child_sync.close()
        _close_all(closed, cgroup_fd)
    sync.setblocking(False)
    return Launch(pid, pidfd, sync, ours)


def _exec_stdio(
    config: ExecConfig, devpts_fd: int, *, inherits: bool
) -> tuple[tuple[int, int, int] | None, Stdio]:
    process = config["process"]
    if inherits and not process.get("terminal"):
        return INHERITED_STDIO, Stdio()
    return make_stdio(process, stdin_open=config["stdin_open"], devpts_fd=devpts_fd)


def _clone(
    flags: int,
    cgroup_fd: int | None,
    pid_namespace: str | int | None,
    child: Callable[[], NoReturn],
    *,
    user_namespace: str | int | None = None,
    before: Callable[[], None] | None = None,
) -> tuple[int, int]:
    """clone3 with the child born in other namespaces: paths, or the pidfd of one inside.

    `before` is for one that is born in a user namespace: `userns.clone_through`.
    """
    if user_namespace is not None:
        from pier.runtime import userns  # noqa: PLC0415  # rare

        try:
            return userns.clone_through(
                user_namespace, flags, cgroup_fd, pid_namespace, child, before=before
            )
        except OSError as exc:
            raise StartFailed(str(exc), step="clone", errno=exc.errno or 0) from exc
    own_fd = -1
    try:
        if pid_namespace is not None:
            own_fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            if isinstance(pid_namespace, str):
                fd = os.open(pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
                ns.setns(fd, ns.CLONE_NEWPID)
                os.close(fd)
            else:
                ns.setns(pid_namespace, ns.CLONE_NEWPID)
        pid, pidfd = clone3(flags, cgroup_fd)
        if pid == 0:
            # Never to return: a second keeper inside the container would be the end of isolation.
            try:
                child()
            finally:
                os._exit(1)
    except OSError as exc:
        raise StartFailed(str(exc), step="clone", errno=exc.errno or 0) from exc
    finally:
        if own_fd >= 0:
            # Only our children's namespace had changed; ours never does.
            ns.setns(own_fd, ns.CLONE_NEWPID)
            os.close(own_fd)
    return pid, pidfd


def _mount_for_user_namespace(config: KeeperConfig) -> int:
    """Mount the overlay out here: in there we would not be allowed to, nor have its layers."""
    layers = config["overlay"]
    if layers is None:
        return -1
    try:
        return overlay.open_overlay(
            layers["base"], layers["lower"], layers["upper"], layers["work"]
        )
    except OSError as exc:
        raise StartFailed(str(exc), step="rootfs", errno=exc.errno or 0) from exc


def _open_sources(spec: Spec, bundle: str) -> dict[int, int]:
    """Make the bind mounts that cannot be made inside; most containers have none."""
    namespaces = spec.get("linux", {}).get("namespaces", [])
    in_user_namespace = any(entry["type"] == "user" for entry in namespaces)
    if os.geteuid() != 0 or not (
        in_user_namespace
        or any(
            MADE_OUTSIDE.intersection(entry.get("options", ())) or MADE_OUTSIDE_KEYS & entry.keys()
            for entry in spec.get("mounts", [])
        )
    ):
        return {}
    from pier.runtime import sources  # noqa: PLC0415  # rare, and the zygote's memory is every keeper's

    return sources.open_all(spec, bundle, in_user_namespace=in_user_namespace)


def _namespaces(spec: Spec, *, alone: bool) -> tuple[int, str | None]:
    """Return the CLONE_NEW* flags for clone3, and the path of a pid namespace to join.

    `alone` says that it has to have a mount namespace of its own, as all of a keeper's have: only
    bundles of others may stay in the host's, or join one.

    Two are missing, which the process makes itself: the root of a cgroup namespace is the cgroup in
    which it is made, and a time namespace has no offsets any more once somebody was born in it.
    """
    flags, joined_pid = 0, None
    for entry in spec.get("linux", {}).get("namespaces", []):
        kind, path = entry["type"], entry.get("path")
        if kind not in ns.FLAGS:
            raise StartFailed(f"unknown namespace type {kind!r}", step="clone")
        if kind == "pid" and path:
            joined_pid = path
        elif kind not in ("cgroup", "time") and not path:
            flags |= ns.FLAGS[kind]
    if flags & ns.CLONE_NEWNS:
        return flags, joined_pid
    joined = _joined(spec, "mount")
    # Our mounts would be the host's own, which they never are: without a namespace none are made.
    if alone or (joined is not None and os.path.samefile(joined, "/proc/self/ns/mnt")):
        raise StartFailed("a container needs a mount namespace of its own", step="clone")
    return flags, joined_pid


def _joined(spec: Spec, kind: str) -> str | None:
    """Return the path of the namespace of this kind that is joined, None when none is."""
    for entry in spec.get("linux", {}).get("namespaces", []):
        if entry["type"] == kind and entry.get("path"):
            return entry["path"]
    return None


def _born_inside(hierarchies: Hierarchies) -> bool:
    """Tell whether the process has to start in a cgroup of version 2, which it cannot walk into."""
    freezer = hierarchies.home("freezer")
    return hierarchies.mode == "v2" or (freezer is not None and freezer.version == 2)


def _create(cgroup: Cgroup, resources: Resources) -> None:
    try:
        cgroup.create(resources)
    except (OSError, ValueError) as exc:
        number = exc.errno if isinstance(exc, OSError) else 0
        raise StartFailed(str(exc), step="cgroup", errno=number or 0) from exc


def _place(cgroup: Cgroup, pid: int) -> None:
    try:
        cgroup.add(pid)
    except OSError as exc:
        raise StartFailed(str(exc), step="cgroup", errno=exc.errno or 0) from exc


def _map_ids(pid: int, spec: Spec) -> None:
    linux = spec["linux"]
    if os.geteuid() != 0:
        from pier.runtime import userns  # noqa: PLC0415  # rare

        userns.write_maps(pid, linux.get("uidMappings", []), linux.get("gidMappings", []))
        return
    _write(f"/proc/{pid}/uid_map", _id_map(linux.get("uidMappings", [])))
    _write(f"/proc/{pid}/gid_map", _id_map(linux.get("gidMappings", [])))


def _id_map(mappings: list[IDMapping]) -> str:
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _close_all(stdio: tuple[int, ...] | None, *others: int | None) -> None:
    for fd in {*(stdio or ()), *others}:
        if fd is not None and fd >= 0:
            os.close(fd)
