"""`--init`: the container's pid 1 when its program should not have to be one.

It passes signals on to the program, reaps what is orphaned, and exits as the program did: what tini
does for Docker. It is a fork of the keeper that never executes anything, so no binary has to be
brought into the container; it holds nothing open and is not dumpable.
"""

from __future__ import annotations

import os

from pier.kernel.lean import signal, socket
from pier.kernel.process import close_range, set_name, set_title, status_code

# Signals about the receiver itself: faults, stops of the terminal, and the child's own end.
KEPT = frozenset(
    (
        signal.SIGCHLD,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGTSTP,
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGSYS,
    )
)


def fork_program(sync: socket.socket) -> None:
    """Fork: return in the child, which goes on to execute the program; stay as pid 1 otherwise.

    Called when all rights are dropped already, so that pid 1 has none that the program has not.
    The child leads its own process group in the foreground of the terminal, if there is one.
    """
    # Before the fork, so that no process ever sees another name.
    set_name("docker-init")
    set_title("/sbin/docker-init --")
    waited = [number for number in signal.valid_signals() if number not in KEPT]
    signal.pthread_sigmask(signal.SIG_BLOCK, [*waited, signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if os.isatty(0):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        return
    sync.close()
    close_range(0)
    while True:
        number = signal.sigwait([*waited, signal.SIGCHLD])
        if number == signal.SIGCHLD:
            code = _reap(child)
            if code is not None:
                os._exit(code)
        else:
            _pass_on(child, number)


def _reap(child: int) -> int | None:
    """Reap everything that ended; return the program's exit code if it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = status_code(status)


def _pass_on(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return
