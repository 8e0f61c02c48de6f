"""A directory that one program at a time keeps its things in, in a form that has a version.

version     a number and a newline
lock        flock'ed for as long as the program runs
"""

import fcntl
import os

from pier.errors import Internal, Unavailable


def take_lock(path: str, taken: str) -> int:
    """Lock a directory and return the descriptor that holds the lock.

    Raises Unavailable, with the words `taken`, when another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    fd = os.open(os.path.join(path, "lock"), flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise Unavailable(taken) from exc
    return fd


def check_version(path: str, known: str, *, what: str, program: str) -> None:
    """Write the version into a new directory. Raises Internal for one that has another."""
    name = os.path.join(path, "version")
    try:
        with open(name, encoding="ascii") as file:
            found = file.read().strip()
    except FileNotFoundError:
        with open(name + ".new", "w", encoding="ascii") as file:
            file.write(known + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(name + ".new", name)
        return
    if found != known:
        raise Internal(f"{what} {path} has version {found}, this {program} knows {known}")
