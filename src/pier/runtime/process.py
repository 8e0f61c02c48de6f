"""The last steps of a process before it becomes the container's program: init and exec alike.

The order is the point (credentials(7), capabilities(7), seccomp(2)):

    limits, bounding set        while every capability is still there
    groups, gid, uid            keeping the permitted set over the change of uid
    working directory           as the user, with capabilities still: it may be root's alone, as in runc
    no_new_privs, seccomp       as late as can be: everything after it must pass the filter
    capabilities                the final sets, then the ambient ones
    execve                      found on the container's PATH, as the user
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import sys

from pier.kernel import capabilities, seccomp
from pier.kernel.lean import signal, socket
from pier.kernel.process import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, prctl
from pier.runtime import users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pier.runtime.spec import Linux, Process

# What Python and the zygote ignore, and whoever was started by nohup(1): a program expects the
# defaults (signal(7), execve(2)).
IGNORED_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGINT,
    signal.SIGCHLD,
    signal.SIGHUP,
)
RARE_OF_PROCESS = frozenset(("scheduler", "ioPriority"))
RARE_OF_LINUX = frozenset(("memoryPolicy", "personality"))
# As many as any kernel is built for.
MAX_CPUS = 8192
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unmarked(_phase: str) -> None:
    """In the place of `marks.Marks` where no trace was asked for."""


class StepError(Exception):
    """A step of the set-up failed: `step` names it, the cause is an OSError or a message."""

    def __init__(self, step: str, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = number


def rare_steps(process: Process, linux: Linux) -> list[Callable[[], None]]:
    """Return what sets the scheduling, memory policy and personality that few processes ask for.

    To be called while the host's files are still there, since it loads code; `become` carries the
    steps out. Raises PierError for what is wrong with them.
    """
    if not (RARE_OF_PROCESS & process.keys() or RARE_OF_LINUX & linux.keys()):
        return []
    from pier.runtime import scheduling  # noqa: PLC0415  # rare, and the zygote's memory is every keeper's

    return scheduling.steps(process, linux)


def end_imports() -> None:
    """Let no module be loaded any more: inside a container its file would be the image's.

    The interpreter's own directories exist in many an image, and what stands there would run with
    rights that the container has not. What is forgotten fails, and says so.
    """
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def reset_affinity() -> None:
    """Run on every processor that the cgroup allows, whichever ones our own caller was bound to."""
    try:
        os.sched_setaffinity(0, range(MAX_CPUS))
    except OSError as exc:
        # All of them are out of bounds: then the kernel's own choice stays.
        if exc.errno not in (errno.EINVAL, errno.EPERM):
            raise


def filter_loader(linux: Linux, sync: Callable[[], socket.socket]) -> Callable[[bytes], object]:
    """Return what loads the filter, which few profiles want with flags or a listener.

    To be called, like `rare_steps`, while the host's files are still there. `sync` gives the socket
    to the keeper, as it is when the filter is loaded.
    """
    profile = linux.get("seccomp")
    if not profile or not (profile.get("flags") or profile.get("listenerPath")):
        return seccomp.load
    from pier.runtime import listener  # noqa: PLC0415  # rare

    # In here a user, who is not root outside, looks like root: the maps tell the two apart.
    return listener.loader(profile, sync, dumpable=_is_users())


def _is_users() -> bool:
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split()[:3] != [b"0", b"0", b"4294967295"]


def become(  # noqa: PLR0913  # all that a process is
    process: Process,
    user: str,
    groups: list[str],
    seccomp_bpf: bytes | None,
    *,
    steps: Iterable[Callable[[], None]] = (),
    wait: Callable[[], None] | None = None,
    dies_with_parent: bool = True,
    load: Callable[[bytes], object] = seccomp.load,
    mark: Callable[[str], None] = unmarked,
) -> tuple[str, list[str], dict[str, str]]:
    """Turn this process into the user, limits and rights that `process` describes.

    Must run inside the container's root and namespaces. `steps` are those of `rare_steps`. `wait`
    is called when the program was found and before the filter is loaded, which might forbid to
    wait; `load` loads it. `mark` is told the phases of a traced start. Returns what execve(2) takes. Raises StepError, StartFailed or OSError.
    """
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    env = _environment(process)
    mark("user")
    identity = _identity(process, user, groups)
    if not env.get("HOME"):
        env["HOME"] = identity.home
    mark("limits")
    _limit(process)
    for step in steps:
        step()
    os.umask(process.get("user", {}).get("umask", 0o022))
    # Without any word of capabilities there are none, as in runc: forgetting must not give rights.
    caps = process.get("capabilities", {})
    capabilities.drop_bounding(capabilities.mask(caps.get("bounding", ())))
    _own_stdio(identity.uid)
    capabilities.set_keepcaps(True)
    _set_groups(identity)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    capabilities.set_keepcaps(False)
    available = capabilities.permitted()
    if identity.uid != 0:
        # The change of uid emptied the effective set; loading a filter needs CAP_SYS_ADMIN in it.
        capabilities.capset(available, available, 0)
    mark("program")
    _enter_directory(process.get("cwd", "/"))
    path = find_program(process["args"][0], env.get("PATH", DEFAULT_PATH))
    if wait is not None:
        wait()
    if dies_with_parent:
        # Cleared by every change of credentials, so only now: the keeper's end is the container's.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    mark("seccomp")
    last = bool(process.get("noNewPrivileges"))
    if last:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    elif seccomp_bpf:
        # Without no_new_privs it needs CAP_SYS_ADMIN, which is about to go.
        load(seccomp_bpf)
    _restrict(process, available, ambient_only=bool(user) and identity.uid != 0)
    if last and seccomp_bpf:
        # So that it need not allow what came before.
        load(seccomp_bpf)
    mark("execve")
    return path, process["args"], env


def _restrict(process: Process, available: int, *, ambient_only: bool) -> None:
    """Set the final capabilities, of those that are `available`."""
    caps = process.get("capabilities", {})
    # What the host itself has not, as here and there CAP_SYS_RESOURCE, cannot be given.
    effective = capabilities.mask(caps.get("effective", ())) & available
    permitted = capabilities.mask(caps.get("permitted", ())) & available
    inheritable = capabilities.mask(caps.get("inheritable", ())) & available
    ambient = capabilities.mask(caps.get("ambient", ())) & available
    if ambient_only:
        # As Docker, which makes this of a user by name: not root, none but the ambient ones.
        effective &= ambient
        permitted &= ambient
    capabilities.capset(effective & permitted, permitted, inheritable)
    # What cannot be had is left out, as the specification wants it (config.md, Linux Process).
    capabilities.raise_ambient(ambient & permitted & inheritable)


def _set_groups(identity: users.Identity) -> None:
    try:
        os.setgroups(identity.additional_gids)
    except PermissionError as exc:
        # A user who mapped itself alone had to give it up, user_namespaces(7).
        if set(identity.additional_gids) - {identity.gid}:
            text = "cannot set any additional groups in a rootless container"
            raise StepError("user", text, errno.EPERM) from exc


def end_without_keeper(sync: socket.socket) -> None:
    """End here if the keeper is gone: its end came too early for PR_SET_PDEATHSIG to tell us."""
    sync.setblocking(False)
    try:
        gone = sync.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        gone = False
    except OSError:
        gone = True
    if gone:
        os._exit(1)


def set_oom_score(pid: int | str, process: Process) -> None:
    """Write oom_score_adj of `pid`, a number or "self", when `process` has one; also when it is 0.

    What is not set is inherited from the keeper, which the host may well protect. Needs the host's
    /proc. Raises OSError.
    """
    score = process.get("oomScoreAdj")
    if score is None:
        return
    try:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        # The container's first process is not dumpable: an exec of a user's has to go without.
        return
    try:
        os.write(fd, str(score).encode())
    except PermissionError:
        # Without CAP_SYS_RESOURCE it can only go up: stay at the lowest that is allowed.
        return
    finally:
        os.close(fd)


def set_before_birth(process: Process) -> None:
    """Set what a child inherits that may not write it itself: `userns.clone_through`."""
    set_oom_score("self", process)
    set_label(process)


def set_label(process: Process) -> None:
    """Ask for the AppArmor profile of the program to come, aa_change_onexec(2).

    Needs the host's /proc, where no container can have put another file. Raises StepError.
    """
    if process.get("selinuxLabel"):
        raise StepError("selinux", "SELinux labels are not supported")
    profile = process.get("apparmorProfile")
    if not profile:
        return
    own = "/proc/self/attr/apparmor/exec"
    path = own if os.path.exists(own) else "/proc/self/attr/exec"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"exec {profile}".encode())
        finally:
            os.close(fd)
    except OSError as exc:
        text = f"unable to apply apparmor profile {profile!r}: {_text(exc)}"
        raise StepError("apparmor", text, exc.errno or 0) from exc


def execute(path: str, args: list[str], env: dict[str, str]) -> None:
    """execve(2), with errors in the words of Go's os/exec, which clients match."""
    try:
        os.execve(path, args, env)  # noqa: S606  # this is what a container is for
    except OSError as exc:
        raise StepError("exec", f"exec {path}: {_text(exc)}", exc.errno or 0) from exc


def find_program(name: str, path: str) -> str:
    """Return the file to execute for `name`: itself if it has a slash, else looked up on `path`.

    Raises StepError("exec") with ENOENT, EACCES or EISDIR, worded as Go's exec.LookPath.
    """
    if not name:
        raise StepError("exec", 'exec: "": executable file not found in $PATH', errno.ENOENT)
    if "/" in name:
        problem = _unfit(name)
        if problem is None:
            return name
        text = _text(OSError(problem, os.strerror(problem)))
        if problem == errno.ENOENT:
            text = f"stat {name}: {text}"
        raise StepError("exec", f'exec: "{name}": {text}', problem)
    denied = False
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        problem = _unfit(candidate)
        if problem is None:
            return candidate
        denied = denied or problem == errno.EACCES
    if denied:
        raise StepError("exec", f'exec: "{name}": permission denied', errno.EACCES)
    raise StepError("exec", f'exec: "{name}": executable file not found in $PATH', errno.ENOENT)


def _unfit(path: str) -> int | None:
    """Return the errno for which `path` cannot be executed by this process, None if it can."""
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        return exc.errno
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    executable = os.access(path, os.X_OK, effective_ids=True)
    return None if executable and mode & 0o111 else errno.EACCES


def _text(exc: OSError) -> str:
    """Return errno's text as Go prints it: with a small first letter."""
    text = os.strerror(exc.errno or 0)
    return text[:1].lower() + text[1:]


def _environment(process: Process) -> dict[str, str]:
    env: dict[str, str] = {}
    for item in process.get("env", []):
        key, equals, value = item.partition("=")
        if equals:
            env[key] = value
    return env


def _identity(process: Process, user: str, groups: list[str]) -> users.Identity:
    """Look the user up in the container's own files, unless config.json gave numbers alone."""
    given = process.get("user", {})
    if user or groups or not given:
        try:
            return users.lookup(user, groups)
        except ValueError as exc:
            raise StepError("user", str(exc)) from exc
    uid = given.get("uid", 0)
    home = users.lookup(str(uid), []).home
    return users.Identity(uid, given.get("gid", 0), given.get("additionalGids", []), home, "")


def _limit(process: Process) -> None:
    for limit in process.get("rlimits", []):
        which = getattr(resource, limit["type"])
        soft, hard = _rlim(limit["soft"]), _rlim(limit["hard"])
        try:
            resource.setrlimit(which, (soft, hard))
        except (ValueError, PermissionError):
            # Without CAP_SYS_RESOURCE a hard limit cannot go up: come as near as is allowed.
            ceiling = resource.getrlimit(which)[1]
            if ceiling != resource.RLIM_INFINITY:
                hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
                soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
            resource.setrlimit(which, (soft, hard))


def _rlim(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value


def _own_stdio(uid: int) -> None:
    """Give stdio to the user, who may want to open /dev/stdout again; /dev/null stays root's."""
    if uid == 0:
        return
    for fd in (0, 1, 2):
        info = os.fstat(fd)
        null = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
        if not null and info.st_uid != uid:
            try:
                os.fchown(fd, uid, -1)
            except OSError as exc:
                # A read-only file system or an unmapped id: the program can still use what it has.
                if exc.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                    raise


def _enter_directory(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as exc:
        text = f'chdir to cwd ("{cwd}") set in config.json failed: {_text(exc)}'
        raise StepError("chdir", text, exc.errno or 0) from exc
    # CVE-2024-21626: a leaked descriptor as working directory would lie outside of the root, and
    # then getcwd(2) answers with a path that does not begin with "/".
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise StepError("chdir", f"working directory {cwd!r} is outside of the container's root")
