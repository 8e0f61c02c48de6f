"""A process in the foreground: signals are passed on to it, its terminal is joined to ours."""

import errno
import fcntl
import os
import select
import struct
import termios

from pier.kernel import pty
from pier.kernel.lean import signal
from pier.kernel.process import status_code

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
             signal.SIGUSR2, signal.SIGCONT, signal.SIGALRM)  # fmt: skip
READ_BYTES = 1 << 16


def hold_signals() -> "set[int]":
    """Block the signals that are going to be passed on; return the mask to go back to."""
    return {int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)}


def attend(pid: int, pidfd: int, master_fd: int, mask: "set[int]") -> int:
    """Wait for our child `pid`, passing signals on; return its exit code, 128+n for a signal.

    With `master_fd` >= 0 our stdio is joined to that terminal until the child has ended.
    """
    for number in FORWARDED:
        signal.signal(number, lambda n, _frame: _pass_on(pidfd, n))
    if master_fd < 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return status_code(os.waitpid(pid, 0)[1])
    with _Raw():
        take_size(master_fd)
        signal.signal(signal.SIGWINCH, lambda _n, _frame: take_size(master_fd))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _join(master_fd, pidfd)
    return status_code(os.waitpid(pid, 0)[1])


class _Raw:
    """Our own terminal, if we have one, without echo and line editing.

    It still makes a carriage return of a line's end, which the container's terminal does not, as
    runc has it: a file or a pipe gets the lines as the program wrote them.
    """

    def __enter__(self) -> None:
        self._before = None
        if os.isatty(0):
            import tty

            self._before = termios.tcgetattr(0)
            tty.setraw(0)
            raw = termios.tcgetattr(0)
            raw[pty.OFLAG] |= termios.OPOST
            termios.tcsetattr(0, termios.TCSANOW, raw)

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)


def _pass_on(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def take_size(master_fd: int) -> None:
    """Give a terminal the size of ours, if we have one. Before the start, and when ours changes."""
    try:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return
    if any(struct.unpack("HHHH", size)[:2]):
        fcntl.ioctl(master_fd, termios.TIOCSWINSZ, size)


def _join(master_fd: int, pidfd: int) -> None:
    poll = select.poll()
    for fd in (0, master_fd, pidfd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if 0 in ready:
            data = os.read(0, READ_BYTES)
            if data:
                _write_all(master_fd, data)
            else:
                poll.unregister(0)
        if master_fd in ready and not _copy_output(master_fd):
            poll.unregister(master_fd)
            master_fd = -1
        if pidfd in ready:
            # What it wrote before its end is there already.
            while master_fd >= 0 and _readable(master_fd) and _copy_output(master_fd):
                pass
            return


def _copy_output(master_fd: int) -> bool:
    """Copy what there is; False at the end, which a terminal shows as an error."""
    try:
        data = os.read(master_fd, READ_BYTES)
    except OSError as exc:
        if exc.errno == errno.EIO:
            return False
        raise
    _write_all(1, data)
    return bool(data)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
