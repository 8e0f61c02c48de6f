"""`create`, `start`, `run` and `delete`."""

import os

from pier.errors import InvalidParameter, NotFound, PierError, StartFailed, Unsupported
from pier.kernel import pty
from pier.kernel.lean import json
from pier.runtime import life, state
from pier.runtime.cli import flags
from pier.runtime.cli.errors import BareError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.runtime.cli.main import Context
    from pier.runtime.spec import Process, Spec

CREATE = {
    "bundle": "value",
    "console-socket": "value",
    "pid-file": "value",
    "no-pivot": "flag",
    "no-new-keyring": "flag",
    "preserve-fds": "number",
    "pidfd-socket": "value",
}
RUN = {**CREATE, "detach": "flag", "keep": "flag", "no-subreaper": "flag"}
SHORT = {"b": "bundle", "d": "detach"}
FIRST_FREE_FD = 3


def create(context: "Context", words: list[str]) -> int:
    """`create`: everything up to the program's execution; the process is left to a subreaper."""
    options, rest = flags.parse(words, CREATE, SHORT)
    container_id = flags.one(rest, "create")
    created = _create(context, "create", container_id, options, detach=True)
    _hand_over(created, options)
    return 0


def start(context: "Context", words: list[str]) -> int:
    """`start`."""
    _, rest = flags.parse(words, {})
    container = state.find(context.state_root(), flags.one(rest, "start"))
    spec = container.spec()
    try:
        life.start(container, spec)
    except StartFailed as exc:
        raise PierError(f"unable to start container process: {exc}") from exc
    return 0


def run(context: "Context", words: list[str]) -> int:
    """`run`: the exit code is the program's, or with --detach 0."""
    options, rest = flags.parse(words, RUN, SHORT)
    container_id = flags.one(rest, "run")
    created = _create(context, "run", container_id, options, detach=options["detach"])
    if options["detach"]:
        _hand_over(created, options)
        _start_or_destroy(created)
        return 0
    from pier.runtime.cli import foreground

    blocked = foreground.hold_signals()
    try:
        _hand_over(created, options)
        _start_or_destroy(created)
        master_fd = created.launch.stdio.master
        return foreground.attend(created.launch.pid, created.launch.pidfd, master_fd, blocked)
    finally:
        if not options["keep"] and os.path.exists(created.container.directory):
            life.destroy(created.container)


def delete(context: "Context", words: list[str]) -> int:
    """`delete`."""
    options, rest = flags.parse(words, {"force": "flag"}, {"f": "force"})
    container_id = flags.one(rest, "delete")
    root, force = context.state_root(), options["force"]
    try:
        container = state.find(root, container_id)
    except NotFound:
        left = state.remains(root, container_id)
        if left is not None:
            import shutil

            shutil.rmtree(left)
        if left is not None or force:
            return 0
        raise
    status = container.status()
    if status not in ("stopped", "created") and not force:
        raise PierError(f"cannot delete container {container_id} that is not stopped: {status}")
    life.destroy(container)
    return 0


def load_spec(bundle: str) -> "Spec":
    """Return the bundle's config.json. Raises InvalidParameter."""
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            spec: Any = json.loads(file.read())
    except FileNotFoundError:
        raise InvalidParameter(
            f"JSON specification file config.json not found in {bundle}"
        ) from None
    except ValueError as exc:
        raise InvalidParameter(f"config.json is not JSON: {exc}") from None
    if not isinstance(spec, dict):
        raise InvalidParameter("config.json is not a JSON object")
    version = spec.get("ociVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise InvalidParameter(f"ociVersion {version!r} is not one of the 1.x that are supported")
    if not isinstance(spec.get("process"), dict):
        raise InvalidParameter("process property must not be empty")
    if not isinstance(spec.get("root"), dict) or not spec["root"].get("path"):
        raise InvalidParameter("root property must not be empty")
    result: Spec = without_nulls(spec)
    return result


def without_nulls(value: "Any") -> "Any":
    """Return a JSON document without members that are null, which say as much as absent ones."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def preserved(options: "dict[str, Any]", env: list[str]) -> int:
    """How many descriptors from 3 on are passed on: --preserve-fds, and those of sd_listen_fds(3).

    For the latter the program's environment, `env`, says so. Raises InvalidParameter for one that
    is not open.
    """
    count = options["preserve-fds"] or 0
    listened = os.environ.get("LISTEN_FDS", "")
    if listened.isdigit() and int(listened):
        env += [f"LISTEN_FDS={listened}", "LISTEN_PID=1"]
        names = os.environ.get("LISTEN_FDNAMES")
        if names is not None:
            env.append(f"LISTEN_FDNAMES={names}")
        count = max(count, int(listened))
    if count < 0:
        raise InvalidParameter("preserve-fds must not be negative")
    for index in range(count):
        try:
            os.set_inheritable(FIRST_FREE_FD + index, True)
        except OSError:
            text = f"unable to stat preserved-fd {index} (of {count}): no such file or directory"
            raise InvalidParameter(text) from None
    return count


def _create(
    context: "Context", verb: str, container_id: str, options: "dict[str, Any]", *, detach: bool
) -> life.Created:
    if context.systemd_cgroup:
        raise Unsupported(
            "--systemd-cgroup is not supported: cgroups are made without systemd"
            " (podman: --cgroup-manager=cgroupfs, containerd: SystemdCgroup = false)"
        )
    bundle = os.path.abspath(options["bundle"] or ".")
    spec = load_spec(bundle)
    terminal = bool(spec["process"].get("terminal"))
    if terminal and detach and not options["console-socket"]:
        text = "cannot allocate tty if the runtime will detach without setting console socket"
        raise InvalidParameter(text)
    if options["console-socket"] and not terminal:
        raise InvalidParameter("cannot use console socket if no terminal is asked for")
    _strip_root(spec, os.path.join(bundle, spec["root"]["path"]))
    env = spec["process"].setdefault("env", [])
    warn_of_ambient(context, spec["process"])
    try:
        return life.create(
            context.state_root(),
            container_id,
            bundle,
            spec,
            preserve_fds=preserved(options, env),
            keyring=not options["no-new-keyring"],
            pivot=not options["no-pivot"],
            rootless=context.rootless,
        )
    except StartFailed as exc:
        step = "container init" if exc.step not in ("clone", "cgroup") else exc.step
        text = f"pier-runtime {verb} failed: unable to start container process: error during {step}: {exc}"
        raise PierError(text) from exc


def _strip_root(spec: "Spec", rootfs: str) -> None:
    """Take destinations that are written with the root's own path as what they mean, as runc."""
    prefix = os.path.normpath(rootfs).rstrip("/") + "/"
    for entry in spec.get("mounts", []):
        destination = entry.get("destination", "")
        if destination.startswith(prefix):
            entry["destination"] = destination[len(prefix) - 1 :]


def warn_of_ambient(context: "Context", process: "Process") -> None:
    """Tell which ambient capabilities the kernel is not going to raise, capabilities(7)."""
    caps = process.get("capabilities") or {}
    if not caps.get("ambient"):
        return
    from pier.runtime.cli.errors import warn

    held = set(caps.get("permitted") or ()) & set(caps.get("inheritable") or ())
    for name in caps["ambient"]:
        if name not in held:
            warn(context, f"can't raise ambient capability {name}: operation not permitted")


def _hand_over(created: life.Created, options: "dict[str, Any]") -> None:
    """Give the terminal to the caller's socket, and write the pid file; undo all if that fails."""
    try:
        if options["console-socket"]:
            from pier.runtime.cli.console import send_master

            send_master(options["console-socket"], created.launch.stdio.master)
            os.close(created.launch.stdio.master)
            created.launch.stdio.master = -1
        elif created.launch.stdio.master >= 0:
            from pier.runtime.cli.foreground import take_size

            pty.keep_newlines(created.launch.stdio.master)
            take_size(created.launch.stdio.master)
        if options["pidfd-socket"]:
            from pier.runtime.cli.console import send_pidfd

            send_pidfd(options["pidfd-socket"], created.launch.pidfd)
        _write_pid(options["pid-file"], created.launch.pid)
    except OSError:
        life.destroy(created.container)
        raise


def _start_or_destroy(created: life.Created) -> None:
    try:
        life.start(created.container)
    except StartFailed as exc:
        life.destroy(created.container)
        if exc.step == "exec" and str(exc).startswith("exec /"):
            # The kernel's word, of a program that was found: the line that runc's init prints.
            raise BareError(str(exc)) from exc
        raise PierError(
            f"pier-runtime run failed: unable to start container process: {exc}"
        ) from exc


def _write_pid(path: str | None, pid: int) -> None:
    if path:
        directory, name = os.path.split(os.path.abspath(path))
        state.write_file(directory, name, str(pid).encode())
