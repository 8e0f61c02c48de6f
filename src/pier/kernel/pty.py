"""pts(4): pseudo-terminals out of a devpts instance that is not the host's."""

import ctypes
import fcntl
import os
import struct
import termios

from pier.kernel.openat2 import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from pier.kernel.syscalls import call, function

TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
TIOCGPTPEER = 0x5441

# Where termios.tcgetattr has the output flags.
OFLAG = 1
DEVPTS_SUPER_MAGIC = 0x1CD1
STATFS_BYTES = 256

_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def open_master(ptmx: str, *, dir_fd: int | None = None) -> tuple[int, int]:
    """Open a new pty of the devpts whose multiplexer is `ptmx`; return (master fd, its number).

    The pair is unlocked; the master is close-on-exec and the caller's to close. With `dir_fd` it is
    that directory's own: a container that may mount could put any device over it, which would be
    opened out here, where no rule of its cgroup holds (EXDEV then).
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW
    if dir_fd is None:
        master_fd = os.open(ptmx, flags | os.O_CLOEXEC)
    else:
        resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
        master_fd = openat2(dir_fd, os.fsencode(ptmx), flags, resolve=resolve)
    try:
        fcntl.ioctl(master_fd, TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(master_fd, TIOCGPTN, struct.pack("I", 0)))[0]
    except OSError:
        os.close(master_fd)
        raise
    return master_fd, number


def open_peer(master_fd: int) -> int:
    """Open the slave of `master_fd` without a path that could lie: TIOCGPTPEER, Linux 4.13."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    return fcntl.ioctl(master_fd, TIOCGPTPEER, flags)


def is_devpts(fd: int) -> bool:
    """Tell whether `fd` is of a devpts, fstatfs(2): what a path leads to may be anything."""
    buffer = ctypes.create_string_buffer(STATFS_BYTES)
    call(_fstatfs, fd, buffer)
    kind: int = ctypes.c_long.from_buffer(buffer).value
    return kind == DEVPTS_SUPER_MAGIC


def set_window_size(fd: int, height: int, width: int) -> None:
    """Set rows and columns; the foreground process group gets SIGWINCH (tty_ioctl(4))."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def keep_newlines(fd: int) -> None:
    """Have the terminal leave the ends of lines as the program writes them: no ONLCR, termios(3)."""
    attributes = termios.tcgetattr(fd)
    attributes[OFLAG] &= ~termios.ONLCR
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def make_controlling(fd: int) -> None:
    """Make `fd` the controlling terminal of this session leader."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
