"""The pipes or the terminal between a keeper and a process of its container."""

from __future__ import annotations

import fcntl
import os

from pier.errors import StartFailed
from pier.kernel import pty
from pier.kernel.lean import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.runtime.spec import Process

PIPE_SIZE = 1 << 18
F_SETPIPE_SZ = 1031


class Stdio:
    """The keeper's ends of a process's stdio. -1 is absent; with a terminal `master` is both."""

    def __init__(self) -> None:
        self.stdin = self.stdout = self.stderr = self.master = -1

    def close(self) -> None:
        """Close what is there."""
        for fd in (self.stdin, self.stdout, self.stderr, self.master):
            if fd >= 0:
                os.close(fd)
        self.stdin = self.stdout = self.stderr = self.master = -1


def make_stdio(
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
            ours.close()
            raise StartFailed(str(exc), step="console", errno=exc.errno or 0) from exc
        return (slave, slave, slave), ours
    theirs: list[int] = []
    try:
        if stdin_open:
            stdin, ours.stdin = os.pipe()
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        theirs.append(stdin)
        ours.stdout, stdout = _wide_pipe()
        theirs.append(stdout)
        ours.stderr, stderr = _wide_pipe()
    except OSError:
        ours.close()
        for fd in theirs:
            os.close(fd)
        raise
    return (stdin, stdout, stderr), ours


def _wide_pipe() -> tuple[int, int]:
    """A pipe that takes more than the usual 64 KiB, if the user's allowance has room for it."""
    read_end, write_end = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(write_end, F_SETPIPE_SZ, PIPE_SIZE)
    return read_end, write_end
