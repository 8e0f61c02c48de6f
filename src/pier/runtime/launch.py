"""The keeper's side of a start: stdio, namespaces, cgroup, and word from the new process.

`launch_init` and `launch_exec` return at once with a `Launch`; the keeper's loop goes on and calls
`Launch.listen` when its socket is readable. The dialogue is drawn in `init`.
"""

import fcntl
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from pier.errors import StartFailed
from pier.kernel import namespaces as ns
from pier.kernel import overlay, pty
from pier.kernel.cgroups import Cgroup, Hierarchies
from pier.kernel.process import clone3
from pier.runtime import protocol
from pier.runtime.exec import Exec
from pier.runtime.init import Init
from pier.runtime.spec import ExecConfig, IDMapping, KeeperConfig, Process, Resources, Spec

PIPE_SIZE = 1 << 18
F_SETPIPE_SZ = 1031


class Stdio:
    """The keeper's ends of a process's stdio. -1 is absent; with a terminal `master` is both."""

    def __init__(self) -> None:
        self.stdin = self.stdout = self.stderr = self.master = -1


class Launch:
    """A process that was cloned and has not yet said that it runs."""

    def __init__(self, pid: int, pidfd: int, sync: socket.socket, stdio: Stdio) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.sync = sync
        self.stdio = stdio
        self.devpts_fd = -1

    def listen(self) -> bool:
        """Take what the process says; True when it has executed its program, and `sync` is done.

        Raises StartFailed when it could not; it is dead then or about to be, but not reaped.
        """
        while True:
            try:
                received = protocol.receive(self.sync)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                received = None
            if received is None:
                return True
            packet, fds = received
            if "error" in packet:
                error = packet["error"]
                raise StartFailed(error["message"], step=error["step"], errno=error["errno"])
            if "devpts" in packet:
                self.devpts_fd = fds[0]
                if len(fds) > 1:
                    self.stdio.master = fds[1]

    def abandon(self) -> None:
        """Kill and reap the process and close what was opened for it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.sync.close()
        stdio = self.stdio
        for fd in (
            self.pidfd,
            self.devpts_fd,
            stdio.stdin,
            stdio.stdout,
            stdio.stderr,
            stdio.master,
        ):
            if fd >= 0:
                os.close(fd)


def launch_init(
    spec: Spec, config: KeeperConfig, bundle: str, cgroup: Cgroup, hierarchies: Hierarchies
) -> Launch:
    """Start setting up the container's first process.

    Raises StartFailed with nothing left behind but perhaps the cgroup.
    """
    namespaces = spec.get("linux", {}).get("namespaces", [])
    flags = 0
    joined_pid = None
    for entry in namespaces:
        kind = entry["type"]
        if kind == "time":
            raise StartFailed("time namespaces are not supported", step="clone")
        if kind == "pid" and entry.get("path"):
            joined_pid = entry["path"]
        elif kind != "cgroup" and not entry.get("path"):
            flags |= ns.FLAGS[kind]
    resources = spec.get("linux", {}).get("resources", {})
    bpf = _read(config["seccomp_bpf"])
    stdio, ours = _make_stdio(spec["process"], stdin_open=config["stdin_open"], devpts_fd=None)
    sync, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    overlay_fd = -1
    own_user_namespace = bool(flags & ns.CLONE_NEWUSER)
    if own_user_namespace:
        overlay_fd = _mount_for_user_namespace(config)
    born_inside = _born_inside(hierarchies)
    cgroup_fd = None
    if born_inside:
        _create(cgroup, resources)
        cgroup_fd = cgroup.open_fd()

    def child() -> NoReturn:
        Init(
            spec,
            config,
            bundle=bundle,
            sync=theirs,
            stdio=stdio,
            seccomp_bpf=bpf,
            hierarchies=hierarchies,
            joins=None if own_user_namespace or hierarchies.mode == "v2" else cgroup,
            overlay_fd=overlay_fd,
        ).run()

    pid, pidfd = _clone(flags, cgroup_fd, joined_pid, child)
    theirs.close()
    sync.setblocking(False)
    _close_all(stdio)
    for fd in (overlay_fd, -1 if cgroup_fd is None else cgroup_fd):
        if fd >= 0:
            os.close(fd)
    launch = Launch(pid, pidfd, sync, ours)
    try:
        if own_user_namespace:
            _map_ids(pid, spec)
            protocol.send(sync, {"mapped": True})
        if not born_inside:
            # Meanwhile the process makes its mounts on another core.
            _create(cgroup, resources)
        if own_user_namespace and hierarchies.mode != "v2":
            # Nobody in there may write to the host's cgroup files.
            _place(cgroup, pid)
        _adjust_oom_score(pid, spec["process"])
        protocol.send(sync, {"go": True})
    except (StartFailed, OSError) as exc:
        launch.abandon()
        if isinstance(exc, StartFailed):
            raise
        raise StartFailed(str(exc), step="clone", errno=exc.errno or 0) from exc
    return launch


def launch_exec(
    config: ExecConfig, target_pidfd: int, cgroup: Cgroup, hierarchies: Hierarchies, devpts_fd: int,
    *, own_user_namespace: bool,
) -> Launch:  # fmt: skip
    """Start a further process in the container whose first process is `target_pidfd`.

    `devpts_fd` is the container's devpts, where its terminal is opened. Raises StartFailed.
    """
    process = config["process"]
    bpf = _read(config["seccomp_bpf"])
    stdio, ours = _make_stdio(process, stdin_open=config["stdin_open"], devpts_fd=devpts_fd)
    sync, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    cgroup_fd = cgroup.open_fd() if _born_inside(hierarchies) else None

    def child() -> NoReturn:
        assert stdio is not None
        Exec(
            config,
            sync=theirs,
            stdio=stdio,
            seccomp_bpf=bpf,
            target_pidfd=target_pidfd,
            own_user_namespace=own_user_namespace,
            joins=None if hierarchies.mode == "v2" else cgroup,
        ).run()

    pid, pidfd = _clone(0, cgroup_fd, target_pidfd, child)
    theirs.close()
    sync.setblocking(False)
    _close_all(stdio)
    if cgroup_fd is not None:
        os.close(cgroup_fd)
    launch = Launch(pid, pidfd, sync, ours)
    try:
        _adjust_oom_score(pid, process)
    except OSError as exc:
        launch.abandon()
        raise StartFailed(str(exc), step="oom_score_adj", errno=exc.errno or 0) from exc
    return launch


def _clone(
    flags: int,
    cgroup_fd: int | None,
    pid_namespace: str | int | None,
    child: Callable[[], NoReturn],
) -> tuple[int, int]:
    """clone3 with the child born in another pid namespace: a path, or the pidfd of one inside."""
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


def _make_stdio(
    process: Process, *, stdin_open: bool, devpts_fd: int | None
) -> tuple[tuple[int, int, int] | None, Stdio]:
    """Make pipes or a terminal; return the process's ends and ours.

    The container's own terminal is made inside, where its devpts is: then the first is None.
    """
    ours = Stdio()
    if process.get("terminal"):
        if devpts_fd is None:
            return None, ours
        if devpts_fd < 0:
            raise StartFailed("a terminal needs devpts mounted in the container", step="console")
        try:
            ours.master, _ = pty.open_master("ptmx", dir_fd=devpts_fd)
            size = process.get("consoleSize")
            if size and size["height"]:
                pty.set_window_size(ours.master, size["height"], size["width"])
            slave = pty.open_peer(ours.master)
        except OSError as exc:
            raise StartFailed(str(exc), step="console", errno=exc.errno or 0) from exc
        return (slave, slave, slave), ours
    if stdin_open:
        stdin, ours.stdin = os.pipe()
    else:
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    ours.stdout, stdout = _wide_pipe()
    ours.stderr, stderr = _wide_pipe()
    return (stdin, stdout, stderr), ours


def _wide_pipe() -> tuple[int, int]:
    """A pipe that takes more than the usual 64 KiB, if the user's allowance has room for it."""
    read_end, write_end = os.pipe()
    try:
        fcntl.fcntl(write_end, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass
    return read_end, write_end


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
    _write(f"/proc/{pid}/uid_map", _id_map(linux.get("uidMappings", [])))
    _write(f"/proc/{pid}/gid_map", _id_map(linux.get("gidMappings", [])))


def _id_map(mappings: list[IDMapping]) -> str:
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def _adjust_oom_score(pid: int, process: Process) -> None:
    score = process.get("oomScoreAdj", 0)
    if not score:
        return
    path = f"/proc/{pid}/oom_score_adj"
    try:
        _write(path, str(score))
    except PermissionError:
        # Without CAP_SYS_RESOURCE it can only go up: stay at the lowest that is allowed.
        return


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise StartFailed(str(exc), step="seccomp", errno=exc.errno or 0) from exc


def _close_all(fds: tuple[int, ...] | None) -> None:
    for fd in set(fds or ()):
        os.close(fd)
