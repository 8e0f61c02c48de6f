"""User namespaces where root's plain way does not do: for users, and for those made by others.

    write_maps      a user may map itself alone; the ranges of subuid(5) through newuidmap(1)
    clone_through   a namespace that exists is entered before the others are made, so that it owns
                    them, and a keeper that entered it could never come back: a helper does it
    inside          what the host owns is joined before, by the keeper, for its child to be born in

Loaded only where it is needed.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator

from pier.errors import StartFailed
from pier.kernel import namespaces as ns
from pier.kernel.process import CLONE_PARENT, PR_SET_DUMPABLE, clone3, prctl
from pier.runtime.process import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pier.runtime.spec import IDMapping, Spec

# What is joined before the user namespace is there → its name in /proc/self/ns.
ENTERED = {"network": "net", "ipc": "ipc", "uts": "uts"}


def write_maps(pid: int, uids: "list[IDMapping]", gids: "list[IDMapping]") -> None:
    """Write uid_map and gid_map of `pid` as a user who is not root. Raises StartFailed."""
    if _is_self(uids, os.geteuid()) and _is_self(gids, os.getegid()):
        # What everybody may: itself, when it gives up setgroups(2), user_namespaces(7).
        _write(pid, "setgroups", "deny")
        _write(pid, "gid_map", _lines(gids))
        _write(pid, "uid_map", _lines(uids))
        return
    _run("newuidmap", pid, uids)
    _run("newgidmap", pid, gids)


def _is_self(mappings: "list[IDMapping]", own: int) -> bool:
    return len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own


def _lines(mappings: "list[IDMapping]") -> str:
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def _write(pid: int, name: str, text: str) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as exc:
        text = f"write {name}: {os.strerror(exc.errno or 0)}"
        raise StartFailed(text, step="user namespace", errno=exc.errno or 0) from exc
    finally:
        os.close(fd)


def _run(program: str, pid: int, mappings: "list[IDMapping]") -> None:
    import shutil  # noqa: PLC0415  # slow to load

    path = shutil.which(program)
    if path is None:
        text = f"{program} is not installed: a user who is not root can map nobody but itself"
        raise StartFailed(text, step="user namespace", errno=errno.EPERM)
    args = [program, str(pid)]
    for mapping in mappings:
        args += [str(mapping["containerID"]), str(mapping["hostID"]), str(mapping["size"])]
    said_fd = os.memfd_create(program, os.MFD_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, said_fd, target) for target in (1, 2)]
        child = os.posix_spawn(path, args, {"PATH": os.defpath}, file_actions=actions)
        if os.waitpid(child, 0)[1]:
            said = os.pread(said_fd, 4096, 0).decode(errors="replace").strip()
            raise StartFailed(said or f"{program} failed", step="user namespace", errno=errno.EPERM)
    finally:
        os.close(said_fd)


def become_root() -> None:
    """Be the user namespace's root; where it has none the first that it has, with the same rights.

    Needs a /proc that shows us; what belongs to nobody in there could not even make a directory.
    """
    for change, maps in ((os.setresgid, "gid_map"), (os.setresuid, "uid_map")):
        try:
            change(0, 0, 0)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            with open(f"/proc/self/{maps}", "rb") as file:
                first = int(file.read().split()[0])
            change(first, first, first)


@contextlib.contextmanager
def around(directory: str, spec: "Spec", entered: set[str]) -> Iterator[None]:
    """Be for a while where a process with a user namespace is cloned; `entered` as for `inside`.

    That is in `directory`, in which a child born meanwhile works too, whatever it may reach.
    """
    here_fd = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        with inside(spec, entered):
            yield
    except FileNotFoundError as exc:
        raise StartFailed(str(exc), step="rootfs", errno=errno.ENOENT) from exc
    finally:
        os.fchdir(here_fd)
        os.close(here_fd)


@contextlib.contextmanager
def inside(spec: "Spec", entered: set[str]) -> Iterator[None]:
    """Be for a while in the namespaces that a container with a user namespace joins by path.

    A child born meanwhile is in them: in its user namespace it would have no right to join what the
    host owns. `entered` gets their kinds; what is not ours to join is left to the child.
    Raises StartFailed.
    """
    back: list[tuple[int, int]] = []
    try:
        for entry in spec.get("linux", {}).get("namespaces", []):
            kind, path = entry["type"], entry.get("path")
            if not path or kind not in ENTERED:
                continue
            own_fd = os.open(f"/proc/self/ns/{ENTERED[kind]}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    ns.setns(fd, ns.FLAGS[kind])
                finally:
                    os.close(fd)
            except PermissionError:
                os.close(own_fd)
                continue
            except OSError as exc:
                os.close(own_fd)
                raise StartFailed(str(exc), step="namespace", errno=exc.errno or 0) from exc
            back.append((own_fd, ns.FLAGS[kind]))
            entered.add(kind)
        yield
    finally:
        for own_fd, flag in back:
            ns.setns(own_fd, flag)
            os.close(own_fd)


def clone_through(
    user: str | int,
    flags: int,
    cgroup_fd: int | None,
    pid_namespace: str | int | None,
    child: "Callable[[], NoReturn]",
    *,
    before: "Callable[[], None] | None" = None,
) -> tuple[int, int]:
    """clone3 out of a helper that is in the user namespace `user`, and in the pid namespace given.

    Both are paths, or the pidfd of a process inside. The child is ours all the same (CLONE_PARENT)
    and is root in there. It is not dumpable: whoever is root in that namespace could trace it else,
    with the host's files still in its hands. That takes its own /proc away from a user, so what it
    is to inherit by way of that is set by `before`, in the helper.
    Returns (pid, pidfd). Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = os.fork()
    if helper == 0:
        try:
            ours.close()
            if before is not None:
                before()
            _clone_inside(theirs, user, flags, cgroup_fd, pid_namespace, child)
        except (OSError, StepError) as exc:
            theirs.send(f"-{exc.errno or errno.EIO} {exc}".encode())
        finally:
            os._exit(0)
    theirs.close()
    with contextlib.closing(ours):
        word, _, text = ours.recv(4096).decode(errors="replace").partition(" ")
    os.waitpid(helper, 0)
    number = int(word or f"-{errno.ESRCH}")
    if number < 0:
        raise OSError(-number, text)
    return number, os.pidfd_open(number)


def _clone_inside(
    theirs: socket.socket,
    user: str | int,
    flags: int,
    cgroup_fd: int | None,
    pid_namespace: str | int | None,
    child: "Callable[[], NoReturn]",
) -> None:
    # Opened before the first is entered: past that the paths may not be ours to read.
    pid_fd = -1 if pid_namespace is None else _open(pid_namespace)
    prctl(PR_SET_DUMPABLE, 0)
    ns.setns(_open(user), ns.CLONE_NEWUSER)
    become_root()
    if pid_fd >= 0:
        ns.setns(pid_fd, ns.CLONE_NEWPID)
    pid, pidfd = clone3(flags | CLONE_PARENT, cgroup_fd)
    if pid == 0:
        theirs.close()
        try:
            child()
        finally:
            os._exit(1)
    os.close(pidfd)
    theirs.send(str(pid).encode())


def _open(namespace: str | int) -> int:
    if isinstance(namespace, int):
        return namespace
    return os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
