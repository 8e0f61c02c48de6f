"""The process that followers of logs live in, a thread each: it outlives pierd, and they with it.

    pierd ──{"path", "query", "until_s"} + [client, witness, files…]──▶ this process ──chunks──▶ client

The client is the socket of a request whose head was answered by pierd; the witness is a pipe whose
other end is the keeper's and closes when the container is over (`runtime.witnesses`). Everything
else a follower needs are the log's files: those that are there come open, oldest first, for the
container and its log may be removed before their turn comes. Without pierd the process stays as long as anybody
follows. Threads may block here, on a slow client for one, which nobody else has to wait for.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

from pier.engine.log_files import LogFile, LogReader
from pier.engine.logs import LogQuery
from pier.kernel.inotify import InotifyMask, inotify_add_watch, inotify_init1, read_events
from pier.kernel.process import set_name, set_title
from pier.runtime import protocol

CHANNEL_FD = 0
LAST_CHUNK = b"0\r\n\r\n"

_WATCHED = InotifyMask.IN_MODIFY | InotifyMask.IN_CREATE | InotifyMask.IN_MOVED_TO


def main() -> None:
    """Take orders until pierd has gone; the interpreter then waits for the threads."""
    set_name("pier-followers")
    set_title("pier log followers")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=CHANNEL_FD)
    while (received := protocol.receive(channel)) is not None:
        order, fds = received
        try:
            client_fd, witness_fd, *file_fds = fds
            Thread(target=_serve, args=(client_fd, witness_fd, file_fds, order)).start()
        except (ValueError, RuntimeError) as exc:
            # Their clients see the connection end, in the middle of the answer.
            _complain(exc)
            for fd in fds:
                os.close(fd)


def _serve(client_fd: int, witness_fd: int, file_fds: list[int], order: dict[str, Any]) -> None:
    """Follow for one client, and close all descriptors."""
    try:
        with socket.socket(fileno=client_fd) as client:
            client.setblocking(True)
            files = [LogFile(fd) for fd in file_fds]
            follower = Follower(client, witness_fd, order["until_s"])
            follower.follow(order["path"], LogQuery(**order["query"]), files)
    except ConnectionError:
        return
    except Exception as exc:  # noqa: BLE001 - an end without the last chunk is all that can be told
        _complain(exc)
    finally:
        os.close(witness_fd)


class Follower:
    """One client; `until_s` is for how many seconds from now it follows, None without an end."""

    def __init__(self, client: socket.socket, witness_fd: int, until_s: float | None) -> None:
        self._client = client
        self._until_s = None if until_s is None else time.monotonic() + until_s
        self._witness_fd = witness_fd

    def follow(self, path: str, query: LogQuery, files: list[LogFile]) -> None:
        """Send the log to the container's end. Raises ConnectionError when the client is gone."""
        with LogReader(path, query, files) as reader, _watch(os.path.dirname(path)) as inotify_fd:
            while True:
                # Whether this is the last round is decided before reading: then nothing is missed.
                is_last = self._is_over()
                read_events(inotify_fd)
                while piece := reader.read():
                    self._client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                if is_last or reader.finished:
                    self._client.sendall(LAST_CHUNK)
                    return
                self._wait(inotify_fd)

    def _is_over(self) -> bool:
        poll = select.poll()
        poll.register(self._witness_fd, select.POLLIN)
        return bool(poll.poll(0)) or self._left_ms() == 0

    def _wait(self, inotify_fd: int) -> None:
        """Until something was written, or nothing more can come, or the client hangs up."""
        poll = select.poll()
        poll.register(inotify_fd, select.POLLIN)
        poll.register(self._witness_fd, select.POLLIN)
        poll.register(self._client, select.POLLRDHUP)
        ready = poll.poll(self._left_ms())
        if any(fd == self._client.fileno() for fd, _ in ready):
            raise ConnectionResetError("the client is gone")

    def _left_ms(self) -> float | None:
        return None if self._until_s is None else max(0, self._until_s - time.monotonic()) * 1000


@contextlib.contextmanager
def _watch(directory: str) -> Iterator[int]:
    """A descriptor that is readable once a file in the directory was written or renamed.

    In a directory that was removed, with the container, nothing will.
    """
    inotify_fd = inotify_init1()
    try:
        with contextlib.suppress(FileNotFoundError):
            inotify_add_watch(inotify_fd, directory, _WATCHED)
        yield inotify_fd
    finally:
        os.close(inotify_fd)


def _complain(exc: Exception) -> None:
    """Into pierd's log, which is our stderr."""
    sys.stderr.write(f"pier log followers {os.getpid()}: {type(exc).__name__}: {exc}\n")
    sys.stderr.flush()
