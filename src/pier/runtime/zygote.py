"""The zygote: a small warm Python that forks keepers. Started by pierd as

    python -IS -c "…" with a read-only copy of the interpreter, see `spawn`

It has loaded what a keeper needs and nothing else, so that a fork is all that a container costs;
`gc.freeze` keeps the collector from writing into pages that the keepers share.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys

from pier.kernel import mount as mnt
from pier.kernel.cgroups import Hierarchies, detect
from pier.kernel.lean import json, signal, socket, suppress
from pier.kernel.process import PR_SET_DUMPABLE, close_range, prctl, set_name, set_title
from pier.runtime import protocol, sharing
from pier.runtime.keeper import make_keeper
from pier.runtime.ready import Ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

TITLE_ROOM = 160
SOCKET_FD = 3
# What asks for a fork says nothing but that.
PACKET_BYTES = 64
DEFAULT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def spawn(sock: socket.socket, log_fd: int) -> int:
    """Start a zygote that serves the other end of `sock`; return its pid, the caller's child.

    The interpreter is executed from a read-only bind mount that exists nowhere in the file system:
    what runs in a container as /proc/self/exe, or is seen there by a hostile process, cannot be
    opened for writing (CVE-2019-5736). stderr goes to `log_fd`.
    """
    python = os.path.realpath(sys.executable)
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.append({package_root!r})\nfrom pier.runtime.zygote import main\nmain()"
    # Room in argv for the titles that keepers give themselves.
    # Without the columns of tracebacks, a fifth of all code's size.
    args = [python, "-IS", "-X", "no_debug_ranges", "-c", code, " " * TITLE_ROOM]
    exe_fd = _readonly_copy(python)
    try:
        pid = os.fork()
        if pid == 0:
            _exec_zygote(exe_fd, args, sock.fileno(), log_fd)
        return pid
    finally:
        if exe_fd >= 0:
            os.close(exe_fd)


def _readonly_copy(path: str) -> int:
    """Open a file through a read-only detached mount of it."""
    fd = mnt.open_tree(mnt.AT_FDCWD, path, mnt.OPEN_TREE_CLONE)
    try:
        mnt.mount_setattr(fd, mnt.MOUNT_ATTR_RDONLY)
        # Out of the way of the numbers that the fork moves its descriptors to.
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SOCKET_FD + 1)
    finally:
        os.close(fd)


def _exec_zygote(exe_fd: int, args: list[str], sock_fd: int, log_fd: int) -> None:
    """In the fork: nothing but system calls, since other threads of pierd held locks."""
    try:
        null_fd = os.open("/dev/null", os.O_RDWR)
        os.dup2(sock_fd, SOCKET_FD)
        os.dup2(null_fd, 0)
        os.dup2(null_fd, 1)
        os.dup2(log_fd, 2)
        os.set_inheritable(SOCKET_FD, True)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Functions of shared libraries are looked up now, and not by each keeper (ld.so(8)).
        environment = {"LD_BIND_NOW": "1", "PATH": os.environ.get("PATH", DEFAULT_PATH)}
        os.execve(exe_fd, args, environment)  # noqa: S606
    finally:
        os._exit(127)


def main() -> None:
    """Fork a keeper for each request, until pierd closes the socket."""
    sock = socket.socket(fileno=SOCKET_FD)
    close_range(SOCKET_FD + 1)
    prctl(PR_SET_DUMPABLE, 0)
    set_name("pier-zygote")
    set_title("pier zygote")
    # Keepers are not waited for: pierd knows of their end by their sockets.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    hierarchies = detect()
    json.loads(json.dumps({"warm": [1, 2.5, None, "é"]}))
    if sharing.is_known():
        sharing.keep_code_still()
        sharing.look_up_names()
    gc.collect()
    gc.disable()
    filler = sharing.fill_holes() if sharing.is_known() else []
    gc.freeze()
    _serve(sock, hierarchies)
    del filler


def _serve(sock: socket.socket, hierarchies: Hierarchies) -> None:
    """Fork a keeper for each packet, whose channel is the descriptor that comes with it.

    What is touched here after a fork is copied for it, so this says no more than it has to: a
    channel that closes is all that pierd hears when there is no memory or process number left.
    """
    room = socket.CMSG_LEN(protocol.FD_BYTES)
    while True:
        try:
            data, ancillary, flags, _ = sock.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            # A pierd that was killed: its end is a reset then.
            return
        if not data:
            return
        for _, _, payload in ancillary:
            channel_fd = int.from_bytes(payload, sys.byteorder)
            with suppress(OSError):
                if not flags & socket.MSG_CTRUNC and os.fork() == 0:
                    _wait_for_container(channel_fd, hierarchies)
            os.close(channel_fd)


def _wait_for_container(channel_fd: int, hierarchies: Hierarchies) -> NoReturn:
    """In the fork: be a keeper, and end."""
    code = 1
    try:
        # The zygote's own end of this and of other keepers' channels must not keep them open.
        os.dup2(channel_fd, SOCKET_FD, inheritable=False)
        channel = socket.socket(fileno=SOCKET_FD)
        close_range(SOCKET_FD + 1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        set_name("pier-keeper")
        set_title("pier keeper (spare)")
        ready = Ready()
        ready.prepare(hierarchies)
        received = protocol.receive(channel)
        if received is not None:
            bundle = received[0]["bundle"]
            set_title(f"pier keeper {os.path.basename(bundle)}")
            keeper = make_keeper(bundle, hierarchies, ready)
            keeper.run(channel)
        code = 0
    except BaseException:  # noqa: BLE001  # the fork must not become a second zygote
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
