"""`pier-runtime`: the runtime on the command line, for an OCI bundle without an engine.

This version offers `run` in the foreground, and `spec`; the rest of the life cycle that runc and
crun offer (create, start, state, kill, delete, exec, …) is refused by name, not ignored.
"""

import json
import os
import signal
import sys

from pier import __version__
from pier.errors import PierError, StartFailed, Unsupported
from pier.kernel import seccomp
from pier.kernel.cgroups import Cgroup, detect
from pier.kernel.process import status_code
from pier.runtime.init import FIRST_FREE_FD
from pier.runtime.launch import Launch, launch_init
from pier.runtime.spec import KeeperConfig, Spec

USAGE = """Usage:
  pier-runtime run [-b|--bundle DIR] ID    run the bundle's container in the foreground
  pier-runtime spec [-b|--bundle DIR]      write a config.json to begin with
  pier-runtime --version
"""
LATER = frozenset(
    ("create", "start", "state", "kill", "delete", "exec", "list", "ps", "pause", "resume",
     "update", "events", "stats", "features")
)  # fmt: skip
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
             signal.SIGUSR2)  # fmt: skip
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def main() -> None:
    """Entry point of `pier-runtime`: exits with the container's status, 1 when it cannot run."""
    # Standard descriptors that are closed would be given to sockets, and those to the container.
    while (fd := os.open("/dev/null", os.O_RDWR)) < FIRST_FREE_FD:
        os.set_inheritable(fd, True)
    os.close(fd)
    try:
        sys.exit(_dispatch(sys.argv[1:]))
    except (PierError, OSError, ValueError, KeyError) as exc:
        sys.stderr.write(f"pier-runtime: {exc}\n")
        sys.exit(1)


def _dispatch(args: list[str]) -> int:
    if args[:1] == ["--version"]:
        print(f"pier-runtime version {__version__}\nspec: 1.2.0")  # noqa: T201
        return 0
    if not args or args[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    command, rest = args[0], args[1:]
    if command in LATER:
        raise Unsupported(f"{command!r} is not offered by this version: run and spec are")
    bundle, positional = _bundle(rest)
    match command, positional:
        case "run", [container_id]:
            return _run(bundle, container_id)
        case "spec", []:
            return _write_spec(bundle)
        case _:
            sys.stderr.write(USAGE)
            return 1


def _bundle(args: list[str]) -> tuple[str, list[str]]:
    bundle, positional = ".", []
    words = iter(args)
    for word in words:
        if word in ("-b", "--bundle"):
            bundle = next(words, "")
        elif word.startswith("--bundle="):
            bundle = word.partition("=")[2]
        elif word.startswith("-"):
            raise Unsupported(f"unknown option {word!r}")
        else:
            positional.append(word)
    return os.path.abspath(bundle), positional


def _run(bundle: str, container_id: str) -> int:
    with open(os.path.join(bundle, "config.json"), "rb") as file:
        spec: Spec = json.load(file)
    if "hooks" in spec:
        raise Unsupported("hooks are not offered by this version")
    if spec["process"].get("terminal"):
        raise Unsupported(
            "a terminal is not offered by this version: set process.terminal to false"
        )
    hierarchies = detect()
    linux = spec.get("linux", {})
    cgroup = Cgroup(hierarchies, linux.get("cgroupsPath") or f"/pier-runtime/{container_id}")
    if cgroup.pids():
        raise ValueError(f"container {container_id!r} is running already")
    config = _config(container_id, cgroup.path, spec)
    # As a child of its own, so that the namespaces that the caller sees do not change.
    launch = None
    # They wait until there is a process to pass them on to, and until we can.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        launch = launch_init(spec, config, bundle, cgroup, hierarchies, stdio=(0, 1, 2))
        return _wait(launch)
    except StartFailed:
        if launch is not None:
            launch.abandon()
        raise
    finally:
        cgroup.kill()
        cgroup.remove()


def _wait(launch: Launch) -> int:
    launch.sync.setblocking(True)
    launch.listen()
    launch.sync.close()
    for number in FORWARDED:
        signal.signal(number, lambda n, _frame: signal.pidfd_send_signal(launch.pidfd, n))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    return status_code(os.waitpid(launch.pid, 0)[1])


def _config(container_id: str, cgroup: str, spec: Spec) -> KeeperConfig:
    profile = spec.get("linux", {}).get("seccomp")
    filter_path = None
    if profile:
        fd = os.memfd_create("seccomp")
        os.write(fd, seccomp.compile(profile))
        filter_path = f"/proc/self/fd/{fd}"
    return {
        "id": container_id,
        "overlay": None,
        "cgroup": cgroup,
        "user": "",
        "groups": [],
        "stdin_open": True,
        "stdin_once": False,
        "log": {"driver": "none", "path": "", "max_size": 0, "max_file": 1},
        "seccomp_bpf": filter_path,
        "init": False,
    }


def _write_spec(bundle: str) -> int:
    plain = ["nosuid", "noexec", "nodev"]
    spec: Spec = {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pier",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
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
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": [*plain, "mode=1777", "size=65536k"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }
    with open(os.path.join(bundle, "config.json"), "x", encoding="utf-8") as file:
        json.dump(spec, file, indent="\t")
        file.write("\n")
    return 0
