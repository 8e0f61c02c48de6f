"""Hooks: programs of the host's, or of the container's, at six points of a container's life.

config.md, POSIX-platform Hooks, and runtime.md, Lifecycle:

    prestart, createRuntime    in the runtime's namespaces, when the container's are there,
                               the root is mounted and not yet pivoted to
    createContainer            in the container's namespaces, before the pivot
    startContainer             in the container, as its user, right before the program
    poststart                  in the runtime's namespaces, when the program runs
    poststop                   in the runtime's namespaces, when the container is gone

Each gets the container's state as JSON on stdin. The first that fails ends the others and the
container, except after the stop, where all are run. Loaded only where config.json has hooks; what
runs inside a container must have loaded it before the pivot.
"""

from __future__ import annotations

import errno
import os
import select

from pier.errors import StartFailed
from pier.kernel.lean import json, signal
from pier.runtime.spec import Hook, Hooks, Spec, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# After the stop there is nothing left to prevent.
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# What is told of a failed hook's output: its end.
MAX_OUTPUT_BYTES = 1 << 14


def state(spec: Spec, container_id: str, bundle: str, *, pid: int, status: str) -> State:
    """Return the state that hooks are given; `status` is "creating", "created", "running", ….

    `pid` is that of the container's process as the hook's pid namespace sees it, 0 for none.
    """
    result: State = {
        "ociVersion": spec.get("ociVersion", ""),
        "id": container_id,
        "status": status,
        "bundle": bundle,
    }
    if pid:
        result["pid"] = pid
    if spec.get("annotations"):
        result["annotations"] = spec["annotations"]
    return result


def run(
    hooks: Hooks,
    kind: str,
    container: State,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run the hooks of one kind in order, in `cwd` if given; stop at the first that fails.

    Those that say nothing of an environment get `env`, or an empty one.
    Raises StartFailed with step "hook", in runc's words.
    """
    for index, hook in enumerate(_listed(hooks, kind)):
        failure = _failure(hook, container, cwd, env)
        if failure:
            raise StartFailed(f"error running {kind} hook #{index}: {failure}", step="hook")


def run_all(hooks: Hooks, kind: str, container: State, *, cwd: str | None = None) -> list[str]:
    """Run the hooks of one kind in order, whether they fail or not; return what went wrong."""
    failures = []
    for index, hook in enumerate(_listed(hooks, kind)):
        failure = _failure(hook, container, cwd)
        if failure:
            failures.append(f"error running {kind} hook #{index}: {failure}")
    return failures


def _listed(hooks: Hooks, kind: str) -> list[Hook]:
    # The keys of a TypedDict are literals, and this is one of KINDS.
    listed: list[Hook] | None = hooks.get(kind)  # type: ignore[assignment]
    return listed or []


def _failure(
    hook: Hook, container: State, cwd: str | None, env: Mapping[str, str] | None = None
) -> str:
    """Run one hook; return what went wrong, "" when nothing did.

    The state, and the output, stand in memory files: nobody has to write while the other reads,
    and a daemon that the hook leaves behind holds nobody up.
    """
    input_fd = os.memfd_create("state", os.MFD_CLOEXEC)
    output_fd = os.memfd_create("stdout", os.MFD_CLOEXEC)
    error_fd = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        data = memoryview(json.dumps(container).encode())
        while data:
            data = data[os.write(input_fd, data) :]
        os.lseek(input_fd, 0, os.SEEK_SET)
        try:
            pid = _spawn(hook, (input_fd, output_fd, error_fd), cwd, env)
        except OSError as exc:
            return f"fork/exec {hook['path']}: {_text(exc)}"
        ended = _wait(pid, hook.get("timeout"))
        if ended is None:
            return f"hook ran past specified timeout of {float(hook['timeout']):.1f}s"
        if ended:
            return f"{ended}, stdout: {_read(output_fd)}, stderr: {_read(error_fd)}"
        return ""
    finally:
        for fd in (input_fd, output_fd, error_fd):
            os.close(fd)


def _spawn(
    hook: Hook, stdio: tuple[int, int, int], cwd: str | None, env: Mapping[str, str] | None
) -> int:
    """Start the hook's program; its pid, our child. Where it has an environment it has no other."""
    here_fd = os.open(".", os.O_PATH | os.O_CLOEXEC) if cwd is not None else -1
    try:
        if cwd is not None:
            os.chdir(cwd)
        return os.posix_spawn(
            hook["path"],
            hook.get("args") or [hook["path"]],
            _environment(hook["env"]) if hook.get("env") else env or {},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)],
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD),
        )
    finally:
        if here_fd >= 0:
            os.fchdir(here_fd)
            os.close(here_fd)


def _environment(items: list[str]) -> Mapping[str, str]:
    return {key: value for key, equals, value in (item.partition("=") for item in items) if equals}


def _wait(pid: int, timeout_s: int | None) -> str | None:
    """Wait for the hook's end; "" when it went well, None when it had to be killed for its time."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        in_time = bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
        if not in_time:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    if not in_time:
        return None
    if os.WIFSIGNALED(status):
        return f"signal: {signal.strsignal(os.WTERMSIG(status)) or ''}".lower()
    code = os.WEXITSTATUS(status)
    return f"exit status {code}" if code else ""


def _read(fd: int) -> str:
    size = os.fstat(fd).st_size
    start = max(0, size - MAX_OUTPUT_BYTES)
    return os.pread(fd, size - start, start).decode(errors="replace")


def _text(exc: OSError) -> str:
    text = os.strerror(exc.errno or errno.EIO)
    return text[:1].lower() + text[1:]
