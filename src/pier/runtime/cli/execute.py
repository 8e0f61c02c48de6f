"""`exec`: a further process in a running container."""

import os

from pier.errors import InvalidParameter, PierError, StartFailed, Unsupported
from pier.kernel import pty
from pier.kernel.cgroups import Cgroup
from pier.kernel.lean import json
from pier.kernel.openat2 import openat2
from pier.kernel.process import join_session_keyring
from pier.runtime import state
from pier.runtime.cli import flags
from pier.runtime.cli.errors import CommandFailed
from pier.runtime.cli.lifecycle import preserved, without_nulls
from pier.runtime.launch import Launch, launch_exec
from pier.runtime.rootfs import RESOLVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.runtime.cli.main import Context
    from pier.runtime.spec import ExecConfig, Process, Spec
    from pier.runtime.state import Container

OPTIONS = {
    "console-socket": "value",
    "pidfd-socket": "value",
    "cwd": "value",
    "env": "list",
    "tty": "flag",
    "user": "value",
    "additional-gids": "list",
    "process": "value",
    "detach": "flag",
    "pid-file": "value",
    "process-label": "value",
    "apparmor": "value",
    "no-new-privs": "flag",
    "cap": "list",
    "preserve-fds": "number",
    "cgroup": "list",
    "ignore-paused": "flag",
}
SHORT = {"e": "env", "t": "tty", "u": "user", "g": "additional-gids", "p": "process",
         "d": "detach", "c": "cap"}  # fmt: skip
# What runc exits with when the process could not be started.
NOT_STARTED = 255


def execute(context: "Context", words: list[str]) -> int:
    """`exec`: the exit code is the process's, or with --detach 0; 255 when it did not start."""
    options, rest = flags.parse(words, OPTIONS, SHORT, interspersed=False)
    if not rest:
        raise InvalidParameter('"exec" requires a minimum of 1 argument')
    try:
        return _execute(context, options, rest[0], rest[1:])
    except (PierError, OSError, ValueError) as exc:
        raise CommandFailed(f"exec failed: {exc}", NOT_STARTED) from exc


def _execute(
    context: "Context", options: "dict[str, Any]", container_id: str, args: list[str]
) -> int:
    container = state.find(context.state_root(), container_id)
    status = container.status()
    if status in ("stopped", "creating"):
        raise PierError("cannot exec in a stopped container")
    if status == "paused" and not options["ignore-paused"]:
        raise PierError("cannot exec in a paused container (use --ignore-paused to override)")
    spec = container.spec()
    if not any(n["type"] == "mount" for n in spec.get("linux", {}).get("namespaces", [])):
        # To join the host's would lead to the host's root.
        raise Unsupported("exec needs a container with a mount namespace")
    process = _process(spec, options, args)
    terminal = bool(process.get("terminal"))
    if terminal and options["detach"] and not options["console-socket"]:
        text = "cannot allocate tty if the runtime will detach without setting console socket"
        raise InvalidParameter(text)
    count = preserved(options, process.setdefault("env", []))
    launch = _launch(container, spec, process, options, count)
    from pier.runtime.cli import foreground

    blocked = foreground.hold_signals()
    try:
        master_fd = _hand_over(launch, options)
        launch.sync.setblocking(True)
        launch.listen()
    except BaseException:
        launch.abandon()
        raise
    if options["detach"]:
        return 0
    return foreground.attend(launch.pid, launch.pidfd, master_fd, blocked)


def _hand_over(launch: Launch, options: "dict[str, Any]") -> int:
    """Write the pid file and give the terminal to the caller's socket; its master if it stays ours."""
    _write_pid(options["pid-file"], launch.pid)
    if options["pidfd-socket"]:
        from pier.runtime.cli.console import send_pidfd

        send_pidfd(options["pidfd-socket"], launch.pidfd)
    master_fd = launch.stdio.master
    if master_fd >= 0 and options["console-socket"]:
        from pier.runtime.cli.console import send_master

        send_master(options["console-socket"], master_fd)
        # A master that nobody else holds is what the process has to see hang up.
        os.close(master_fd)
        launch.stdio.master = -1
    elif master_fd >= 0:
        from pier.runtime.cli.foreground import take_size

        take_size(master_fd)
    return launch.stdio.master


def _launch(
    container: "Container",
    spec: "Spec",
    process: "Process",
    options: "dict[str, Any]",
    preserve_fds: int,
) -> Launch:
    bpf = os.path.join(container.directory, "seccomp.bpf")
    config: ExecConfig = {
        "process": process,
        "user": "",
        "groups": [],
        "stdin_open": True,
        "seccomp_bpf": bpf if os.path.exists(bpf) else None,
    }
    pidfd = os.pidfd_open(container.pid)
    if state.start_time(container.pid) != container.record["process"][1]:
        raise PierError("cannot exec in a stopped container")
    join_session_keyring(f"_ses.{container.id}")
    linux = spec.get("linux", {})
    listed = linux.get("namespaces", [])
    launch = launch_exec(
        config,
        pidfd,
        _cgroup(container, options["cgroup"]),
        container.hierarchies,
        _open_devpts(container.pid) if process.get("terminal") else -1,
        own_user_namespace=any(entry["type"] == "user" for entry in listed),
        linux=linux,
        inherited=preserve_fds,
        keeps_newlines=not options["console-socket"],
    )
    profile = linux.get("seccomp")
    if profile and profile.get("listenerPath"):
        from pier.runtime import hooks, listener

        told = hooks.state(
            spec, container.id, container.record["bundle"], pid=container.pid, status="running"
        )
        launch.agent = listener.agent(profile, told)
    return launch


def _cgroup(container: "Container", given: list[str]) -> Cgroup:
    """The container's cgroup, or what --cgroup names below it: a path, or one for each controller.

    Raises InvalidParameter, in runc's words.
    """
    cgroup = Cgroup(container.hierarchies, container.cgroup.path)
    v1 = container.hierarchies.mode != "v2"
    for word in given:
        controllers, colon, below = word.rpartition(":")
        path = os.path.normpath(f"{cgroup.path}/{below}")
        if path != cgroup.path and not path.startswith(cgroup.path + "/"):
            raise InvalidParameter(f"bad sub cgroup path: {below} is not a sub cgroup path")
        if not colon:
            mounts = [h.mount for h in container.hierarchies.all if h.version == 1 or not v1]
        elif v1:
            mounts = [_home(container, name) for name in controllers.split(",")]
        else:
            raise InvalidParameter(f"cgroup v2 has one path for all controllers: {word}")
        for mount in mounts:
            if not os.path.exists(f"{mount}{path}/cgroup.procs"):
                where = f"{mount}{path}/cgroup.procs"
                raise InvalidParameter(f"error adding pid to {where}: no such file or directory")
            cgroup.below[mount] = path[len(cgroup.path) :]
    return cgroup


def _home(container: "Container", controller: str) -> str:
    home = container.hierarchies.home(controller)
    if home is None or home.version != 1:
        raise InvalidParameter(f"unknown controller {controller} in --cgroup")
    return home.mount


def _open_devpts(pid: int) -> int:
    """Open the container's /dev/pts, or fail: what stands there may be anything by now."""
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        devpts_fd = openat2(root_fd, b"dev/pts", os.O_PATH | os.O_DIRECTORY, 0, RESOLVE)
    finally:
        os.close(root_fd)
    # Opening a device of the container's choice could have effects.
    if not pty.is_devpts(devpts_fd):
        raise StartFailed("a terminal needs devpts mounted in the container", step="console")
    return devpts_fd


def _process(spec: "Spec", options: "dict[str, Any]", args: list[str]) -> "Process":
    """What to run: the document given, or the container's own process with other arguments."""
    process: Process
    if options["process"]:
        with open(options["process"], "rb") as file:
            process = without_nulls(json.loads(file.read()))
    else:
        if not args:
            raise InvalidParameter("process args cannot be empty")
        process = {**spec["process"], "args": args, "terminal": False}
        process.pop("consoleSize", None)
        process["env"] = list(process.get("env", []))
    if options["tty"]:
        process["terminal"] = True
    _override(process, options)
    if options["process"]:
        from pier.runtime import validate

        validate.check_process(process, spec.get("linux", {}))
    return process


def _override(process: "Process", options: "dict[str, Any]") -> None:
    if options["process-label"]:
        process["selinuxLabel"] = options["process-label"]
    if options["apparmor"]:
        process["apparmorProfile"] = options["apparmor"]
    if options["cwd"]:
        process["cwd"] = options["cwd"]
    if options["no-new-privs"]:
        process["noNewPrivileges"] = True
    process["env"] = [*process.get("env", []), *options["env"]]
    if options["user"]:
        uid, _, gid = options["user"].partition(":")
        user = {**process.get("user", {}), "uid": _id(uid), "gid": _id(gid) if gid else 0}
        process["user"] = user  # type: ignore[typeddict-item]
    if options["additional-gids"]:
        gids = [_id(gid) for word in options["additional-gids"] for gid in word.split(",")]
        process["user"] = {**process.get("user", {}), "additionalGids": gids}
    if options["cap"]:
        caps: dict[str, list[str]] = {k: list(v) for k, v in process.get("capabilities", {}).items()}  # type: ignore[call-overload]  # fmt: skip
        for name in ("bounding", "effective", "permitted"):
            caps[name] = [*caps.get(name, []), *options["cap"]]
        if caps.get("inheritable"):
            caps["ambient"] = [*caps.get("ambient", []), *options["cap"]]
        process["capabilities"] = caps  # type: ignore[typeddict-item]


def _id(text: str) -> int:
    if not text.isdigit():
        raise InvalidParameter(f"parsing {text!r} as a user or group ID failed: a number is needed")
    return int(text)


def _write_pid(path: str | None, pid: int) -> None:
    if path:
        directory, name = os.path.split(os.path.abspath(path))
        state.write_file(directory, name, str(pid).encode())
