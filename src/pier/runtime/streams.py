"""A process's output and input, joined to its log and to the clients that are attached to it."""

from __future__ import annotations

import errno
import os

from pier.kernel.lean import socket
from pier.runtime.attach import STDERR, STDOUT, Client, Input, LogSender
from pier.runtime.jsonlog import JsonLog
from pier.runtime.loop import EPOLLIN, Loop
from pier.runtime.stdio import PIPE_SIZE, Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 1 << 16
NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Streams:
    """The stdio of one process. Clients may be attached before there is a process.

    `close_stdin` says whether the end of a client's input is the end of stdin ("StdinOnce"; always
    for an exec). `on_detach` is called when a client typed its detach keys.
    """

    def __init__(
        self,
        loop: Loop,
        log: JsonLog | None,
        *,
        terminal: bool,
        close_stdin: bool,
        on_detach: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._terminal = terminal
        self._close_stdin = close_stdin
        self._on_detach = on_detach
        self._clients: list[Client] = []
        self._sources: dict[int, int] = {}
        self._input: Input | None = None
        self._early = b""
        self._early_end = False
        self._opened = False
        self._throttled = False
        self._on_idle: Callable[[], None] | None = None
        self.master_fd = -1

    def open(self, stdio: Stdio) -> None:
        """Begin with the keeper's ends of the process's stdio, which are closed from here."""
        if stdio.master >= 0:
            self.master_fd = stdio.master
            self._add_source(stdio.master, STDOUT)
            self._input = Input(self._loop, stdio.master, terminal=True)
        else:
            self._add_source(stdio.stdout, STDOUT)
            self._add_source(stdio.stderr, STDERR)
            if stdio.stdin >= 0:
                self._input = Input(self._loop, stdio.stdin, terminal=False)
        self._opened = True
        early, self._early = self._early, b""
        if not early or self._typed(early):
            for client in list(self._clients):
                client.resume_input()
        if self._early_end:
            self._typed(b"")

    def attach(
        self, sock: socket.socket, *, stdin: bool, stdout: bool, stderr: bool,
        detach_keys: bytes, pending: bytes, frames: bool | None = None,
    ) -> None:  # fmt: skip
        """Attach a client; `pending` is input that was read off its socket already.

        Without `frames`, output has them unless there is a terminal, where all of it is standard output.
        """
        streams = frozenset(n for n, on in ((STDOUT, stdout), (STDERR, stderr)) if on)
        client = Client(
            self._loop,
            sock,
            streams=streams,
            frames=not self._terminal if frames is None else frames,
            detach_keys=detach_keys if self._terminal else b"",
            on_input=self._typed if stdin else None,
            on_drained=self._drained,
            on_end=self._client_ended,
        )
        self._clients.append(client)
        if stdin:
            client.take_pending(pending)

    def attach_sender(self, sock: socket.socket, *, max_buffer: int, blocking: bool) -> None:
        """Attach the log's sender, which is behind when `max_buffer` bytes wait for it: then the
        process waits too, or what it writes is dropped.
        """
        sender = LogSender(
            self._loop,
            sock,
            streams=frozenset((STDOUT, STDERR)),
            frames=True,
            detach_keys=b"",
            on_input=None,
            on_drained=self._drained,
            on_end=self._client_ended,
        )
        sender.queue_limit_bytes = max_buffer if blocking else float("inf")
        sender.drop_above_bytes = 0 if blocking else max_buffer
        self._clients.append(sender)

    def say(self, stream: int, text: bytes) -> None:
        """Send the clients a text that the process did not write."""
        for client in list(self._clients):
            if not isinstance(client, LogSender):
                client.send(stream, text)

    def end(self, on_idle: Callable[[], None]) -> None:
        """The process is gone: read what it left, let clients drain, then call `on_idle`.

        What still holds the other end of a pipe, a daemon that an exec left behind, is not waited
        for; nor is it listened to for ever: more than a pipe holds was not there when we began.
        """
        for fd in list(self._sources):
            left = PIPE_SIZE
            while left > 0 and (count := self._read(fd)) > 0:
                left -= count
            self._drop_source(fd)
        if self._input is not None:
            self._input.close()
        if self._log is not None:
            self._log.finish()
            self._log = None
        self._on_idle = on_idle
        for client in list(self._clients):
            client.finish()
        self._check_idle()

    def _add_source(self, fd: int, stream: int) -> None:
        os.set_blocking(fd, False)
        self._sources[fd] = stream
        self._loop.watch(fd, EPOLLIN, lambda _events: self._readable(fd))

    def _drop_source(self, fd: int) -> None:
        del self._sources[fd]
        self._loop.forget(fd)
        if fd == self.master_fd:
            self.master_fd = -1
        os.close(fd)

    def _readable(self, fd: int) -> None:
        if self._read(fd) == 0:
            self._drop_source(fd)

    def _read(self, fd: int) -> int:
        """Read once and pass it on: the number of bytes, 0 at the end, -1 when there is none now."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return -1
        except OSError as exc:
            # A terminal without a process on it answers EIO instead of the end of file.
            if exc.errno != errno.EIO:
                raise
            return 0
        if not data:
            return 0
        stream = self._sources[fd]
        if self._log is not None:
            self._log.write(NAMES[stream], data)
        behind = False
        for client in list(self._clients):
            client.send(stream, data)
            behind = behind or client.queued_bytes > client.queue_limit_bytes
        if behind and self._on_idle is None:
            self._throttle()
        return len(data)

    def _throttle(self) -> None:
        """Stop reading until the slowest client has caught up: backpressure, as a pipe gives."""
        if not self._throttled:
            self._throttled = True
            for fd in self._sources:
                self._loop.forget(fd)

    def _drained(self) -> None:
        if self._throttled and all(c.queued_bytes <= c.queue_limit_bytes for c in self._clients):
            self._throttled = False
            for fd, stream in list(self._sources.items()):
                self._add_source(fd, stream)

    def _typed(self, data: bytes) -> bool:
        if not self._opened:
            self._early += data
            self._early_end = self._early_end or (not data and self._close_stdin)
            return len(self._early) < READ_BYTES
        if self._input is None:
            return True
        if not data:
            if self._close_stdin:
                self._input.end()
            return True
        if self._input.write(data):
            return True
        self._input.waiting = list(self._clients)
        return False

    def _client_ended(self, client: Client, detached: bool) -> None:
        self._clients.remove(client)
        if detached:
            self._on_detach()
        self._drained()
        self._check_idle()

    def _check_idle(self) -> None:
        if self._on_idle is not None and not self._clients:
            on_idle, self._on_idle = self._on_idle, None
            on_idle()
