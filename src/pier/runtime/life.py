"""The life of a container without a keeper, one step a command: create, start, delete.

    create     state.json, cgroup, init up to its gate, pid file   (gate.py draws the rest)
    start      init goes through the gate and executes; poststart hooks
    delete     whatever is left is killed, the cgroup goes, then the state; poststop hooks

A create that fails undoes what it did; one that is killed leaves a state that `delete` takes.
"""

import binascii
import errno
import os
import time

from pier.errors import Conflict, StartFailed, Unsupported
from pier.kernel.cgroups import Cgroup, detect
from pier.kernel.lean import json, signal, socket, suppress
from pier.runtime import gate, protocol, state
from pier.runtime.devices import with_defaults
from pier.runtime.launch import Launch, launch_init
from pier.runtime.state import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.runtime.spec import KeeperConfig, Spec

PARENT = "/pier-runtime"
KILL_TIMEOUT_S = 10.0


def create(
    root: str,
    container_id: str,
    bundle: str,
    spec: "Spec",
    *,
    preserve_fds: int = 0,
    keyring: bool = True,
    pivot: bool = True,
    rootless: bool | None = None,
) -> "Created":
    """Create the container and return it with its first process waiting at the gate.

    The other parameters are those of `Gate`; `rootless` says whether it may go without a cgroup that
    we are not allowed to make, None that this depends on who we are. A terminal's master is in the `Launch`.

    Raises Conflict, StartFailed, OSError, with nothing left behind.
    """
    from pier.runtime import validate  # noqa: PLC0415  # create's alone

    path = cgroup_path(spec, root, container_id)
    validate.check(spec)
    me = os.getpid()
    container = state.reserve(
        root,
        {
            "version": state.VERSION,
            "id": container_id,
            "ociVersion": spec.get("ociVersion", ""),
            "bundle": bundle,
            "rootfs": os.path.normpath(os.path.join(bundle, spec["root"]["path"])),
            "created": _now(),
            "owner": os.geteuid(),
            "annotations": spec.get("annotations") or {},
            "cgroup": "",
            "covers": _covers(spec, bundle),
            "creator": [me, state.start_time(me)],
            "process": [],
        },
    )
    resources = spec.get("linux", {}).get("resources")
    if resources and resources.get("devices"):
        resources["devices"] = with_defaults(resources["devices"])
    launch: list[Launch] = []
    try:
        door = _prepare(container, path, spec, rootless=rootless)
        door.preserve_fds, door.keyring, door.pivot = preserve_fds, keyring, pivot
        _launch(container, spec, door, launch)
    except BaseException as exc:
        if launch:
            launch[0].abandon()
        destroy(container, spec)
        if isinstance(exc, BrokenPipeError):
            raise StartFailed("the process was killed while it was set up", step="start") from exc
        raise
    launch[0].sync.close()
    return Created(container, launch[0])


def _prepare(container: Container, path: str, spec: "Spec", *, rootless: bool | None) -> gate.Gate:
    """Everything that comes before the process."""
    cgroup = Cgroup(detect(), path)
    if cgroup.pids():
        raise Conflict(f"container's cgroup is not empty: {path}")
    # A process that enters it would stop there, and nobody could kill it on v1.
    with suppress(OSError):
        if cgroup.frozen():
            raise Conflict(f"container's cgroup unexpectedly frozen: {path}")
    # Recorded only now that everything in it is going to be ours, to be killed at the end.
    container.take_cgroup(path if _may_use(cgroup, spec, rootless=rootless) else "")
    state.write_file(container.directory, "config.json", json.dumps(spec).encode())
    return gate.Gate(container.directory)


def _launch(container: Container, spec: "Spec", door: gate.Gate, launched: "list[Launch]") -> None:
    """Start the process and record it; as soon as there is one it stands in `launched`."""
    launch = launch_init(
        spec,
        _config(container, spec),
        container.record["bundle"],
        container.cgroup,
        container.hierarchies,
        stdio=None if spec["process"].get("terminal") else (0, 1, 2),
        gate=door,
    )
    launched.append(launch)
    launch.sync.setblocking(True)
    launch.listen()
    if not launch.waiting:
        raise StartFailed("the process was killed while it was set up", step="start")
    container.record["process"] = [launch.pid, state.start_time(launch.pid)]
    container.save()
    protocol.send(launch.sync, {"recorded": True})


class Created:
    """A container that this very command created: its process is our child."""

    def __init__(self, container: Container, launch: Launch) -> None:
        self.container = container
        self.launch = launch


def start(container: Container, spec: "Spec | None" = None) -> None:
    """Let the container's first process execute its program. Raises Conflict, StartFailed."""
    status = container.status()
    if status != "created":
        if status in ("running", "paused"):
            raise Conflict("cannot start an already running container")
        if status == "stopped":
            raise Conflict("cannot start a container that has stopped")
        raise Conflict(f"cannot start a container in the {status} state")
    try:
        connection = gate.connect(container.directory)
    except ConnectionRefusedError:
        raise Conflict("cannot start a container that has stopped") from None
    try:
        # As soon as it was let go it counts as started.
        os.unlink(os.path.join(container.directory, gate.NAME))
        try:
            _hear(connection, container, spec)
        except StartFailed:
            # It may be waiting for an answer that nobody has.
            kill_everything(container)
            raise
    finally:
        connection.close()
    try:
        run_hooks(container, spec or container.spec(), "poststart")
    except StartFailed:
        kill_everything(container)
        raise


def _hear(connection: socket.socket, container: Container, spec: "Spec | None") -> None:
    try:
        received = protocol.receive(connection)
        if received is not None and "seccomp" in received[0]:
            _hand_over(container, spec or container.spec(), received[0]["seccomp"])
            protocol.send(connection, {"passed": True})
            received = protocol.receive(connection)
    except (ConnectionResetError, BrokenPipeError):
        raise StartFailed("the process was killed before it started", step="start") from None
    if received is not None and "error" in received[0]:
        error = received[0]["error"]
        raise StartFailed(error["message"], step=error["step"], errno=error["errno"])


def _hand_over(container: Container, spec: "Spec", number: int) -> None:
    """Give the listener of the filter, descriptor `number` of the first process, to its agent."""
    from pier.runtime import hooks, listener  # noqa: PLC0415  # rare

    told = hooks.state(
        spec, container.id, container.record["bundle"], pid=container.pid, status="creating"
    )
    pidfd = os.pidfd_open(container.pid)
    try:
        profile = spec.get("linux", {}).get("seccomp", {})
        listener.hand_over(profile, pidfd, container.pid, number, told)
    finally:
        os.close(pidfd)


def run_hooks(container: Container, spec: "Spec", kind: str) -> None:
    """Run poststart or poststop hooks. Raises StartFailed for the former; the latter only complain."""
    listed = spec.get("hooks")
    if not listed:
        return
    from pier.runtime import hooks  # noqa: PLC0415  # rare

    stopped = kind == "poststop"
    bundle = container.record["bundle"]
    told = hooks.state(
        spec,
        container.id,
        bundle,
        pid=0 if stopped else container.pid,
        status="stopped" if stopped else "running",
    )
    cwd = bundle if os.path.isdir(bundle) else "/"
    if not stopped:
        hooks.run(listed, kind, told, cwd=cwd)
        return
    for failure in hooks.run_all(listed, kind, told, cwd=cwd):
        os.write(2, f"pier-runtime: {failure}\n".encode())


def destroy(container: Container, spec: "Spec | None" = None) -> None:
    """Kill what is left, remove cgroup and state, and run poststop hooks. Idempotent."""
    kill_everything(container)
    _uncover(container)
    container.cgroup.remove()
    if spec is None:
        try:
            spec = container.spec()
        except FileNotFoundError:
            spec = {}
    container.forget()
    if not spec.get("linux", {}).get("cgroupsPath"):
        # Ours; whoever makes a container at this moment makes them again.
        container.cgroup.remove_empty_parents(2)
    run_hooks(container, spec, "poststop")


def _covers(spec: "Spec", bundle: str) -> int:
    """How many mounts are at the root by now; -1 where none of ours come, in the host's namespace."""
    namespaces = spec.get("linux", {}).get("namespaces") or ()
    if any(entry.get("type") == "mount" for entry in namespaces):
        return -1
    return _mounts_at(os.path.join(bundle, spec["root"]["path"]))


def _uncover(container: Container) -> None:
    """Take away what a container without a mount namespace has mounted over its root."""
    before = container.record.get("covers", -1)
    rootfs = container.record["rootfs"]
    while 0 <= before < _mounts_at(rootfs):
        from pier.kernel import mount  # noqa: PLC0415  # rare

        mount.umount2(rootfs, mount.MNT_DETACH)


def _mounts_at(path: str) -> int:
    where = os.path.realpath(path).replace(" ", "\\040")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return sum(line.split()[4] == where for line in file)


def kill_everything(container: Container) -> None:
    """Kill every process of the container's and wait for their end. Raises OSError ETIMEDOUT."""
    process = container.record["process"]
    if process and state.start_time(process[0]) == process[1]:
        _kill(process)
    container.cgroup.kill()
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while process and state.start_time(process[0]) == process[1]:
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"process {process[0]} does not end")
        time.sleep(0.001)


def _kill(process: list[int]) -> None:
    try:
        pidfd = os.pidfd_open(process[0])
    except ProcessLookupError:
        return
    try:
        # Not before it is sure that the number is still this process's.
        if state.start_time(process[0]) == process[1]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def cgroup_path(spec: "Spec", root: str, container_id: str) -> str:
    """Where the container's cgroup is, below each hierarchy's root; relative ones start there too.

    Where config.json does not say it depends on --root too: ids are unique in one of them only.
    """
    path = spec.get("linux", {}).get("cgroupsPath")
    if not path:
        return f"{PARENT}/{binascii.crc32(os.fsencode(root)):08x}/{container_id}"
    if path.count(":") == 2:
        raise Unsupported(
            f"cgroupsPath {path!r} is one of systemd's: the systemd cgroup driver is not offered,"
            " use the cgroupfs driver"
        )
    return os.path.normpath("/" + path.lstrip("/"))


def _may_use(cgroup: Cgroup, spec: "Spec", *, rootless: bool | None) -> bool:
    """Tell whether the container gets a cgroup: not for a user who may not make one, nor needs it."""
    if not (os.geteuid() != 0 if rootless is None else rootless):
        return True
    linux = spec.get("linux", {})
    try:
        cgroup.create({})
    except PermissionError:
        if linux.get("cgroupsPath") or linux.get("resources"):
            raise
        return False
    return True


def _config(container: Container, spec: "Spec") -> "KeeperConfig":
    profile = spec.get("linux", {}).get("seccomp")
    filter_path = None
    if profile:
        from pier.kernel import seccomp  # noqa: PLC0415  # opens libseccomp
        from pier.runtime.listener import notifies  # noqa: PLC0415  # rare

        state.write_file(
            container.directory, "seccomp.bpf", seccomp.compile(profile, listener=notifies(profile))
        )
        filter_path = os.path.join(container.directory, "seccomp.bpf")
    return {
        "id": container.id,
        "overlay": None,
        "cgroup": container.record["cgroup"],
        "user": "",
        "groups": [],
        "stdin_open": True,
        "stdin_once": False,
        "log": {
            "path": "",
            "max_size": 0,
            "max_file": 1,
            "compress": False,
            "attributes": {},
            "remote": None,
        },
        "seccomp_bpf": filter_path,
        "init": False,
    }


def _now() -> str:
    """The moment as RFC 3339, with nanoseconds as Go prints it."""
    seconds, fraction = divmod(time.time_ns(), 10**9)
    day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{day}.{fraction:09}Z"
