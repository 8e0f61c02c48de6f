"""A client's socket, attached to a process's stdio: Docker's frames out, stdin in, detach keys.

The socket is the client's own, passed down from pierd: output goes from the container's pipe to the
client with one copy, whatever pierd does meanwhile. What does not fit the socket waits in a queue;
a long queue makes the owner stop reading the container's output (`Streams`), as a full
pipe would.
"""

from __future__ import annotations

import os
import time

from pier.kernel.lean import deque, socket, suppress
from pier.runtime.loop import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STDOUT = 1
STDERR = 2
QUEUE_LIMIT_BYTES = 1 << 20
FAREWELL_S = 3.0
READ_BYTES = 1 << 15
HEADERS = {STDOUT: b"\1\0\0\0", STDERR: b"\2\0\0\0"}


class Client:
    """One attached client. `frames` is off with a terminal, whose output is one raw stream.

    `on_input` gets what the client typed, b"" at its end, and answers whether it wants more now;
    `on_end` is called once, with True when the detach keys were typed.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        streams: frozenset[int],
        frames: bool,
        detach_keys: bytes,
        on_input: Callable[[bytes], bool] | None,
        on_drained: Callable[[], None],
        on_end: Callable[[Client, bool], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._streams = streams
        self._frames = frames
        self._keys = DetachKeys(detach_keys)
        self._on_input = on_input
        self._on_drained = on_drained
        self._on_end = on_end
        self._queue: deque[memoryview] = deque()
        self.queued_bytes = 0
        self.queue_limit_bytes: float = QUEUE_LIMIT_BYTES
        self._reading = on_input is not None
        self._closing = False
        self._closed = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), EPOLLIN if self._reading else 0, self._ready)

    def send(self, stream: int, data: bytes) -> None:
        """Send output of the stream, if this client wants it; never blocks."""
        if stream not in self._streams or self._closed:
            return
        parts = [HEADERS[stream] + len(data).to_bytes(4, "big"), data] if self._frames else [data]
        sent = 0
        if not self._queue:
            try:
                sent = self._sock.sendmsg(parts, (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            rest = memoryview(part)[sent:]
            sent = 0
            self._queue.append(rest)
            self.queued_bytes += len(rest)
        if self._queue:
            self._update()

    def finish(self) -> None:
        """Close as soon as everything queued was sent."""
        self._closing = True
        self._reading = False
        if self._queue:
            self._update()
        else:
            self.close()

    def resume_input(self) -> None:
        """Go on reading what the client types."""
        if self._on_input is not None and not self._closing and not self._closed:
            self._reading = True
            self._update()

    def close(self, *, detached: bool = False) -> None:
        """Let the client go at once."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        self.queued_bytes = 0
        if self._on_input is not None and not detached:
            # A client that is gone types no more, whether or not it took its leave.
            self._on_input(b"")
        self._loop.forget(self._sock.fileno())
        # Other copies of the descriptor may live in pierd for a moment: the end must show now.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._on_end(self, detached)

    def take_pending(self, data: bytes) -> None:
        """Take bytes that were read off this client's socket before it came here."""
        if data:
            self._typed(data)

    def _update(self) -> None:
        events = (EPOLLIN if self._reading else 0) | (EPOLLOUT if self._queue else 0)
        self._loop.change(self._sock.fileno(), events)

    def _ready(self, events: int) -> None:
        if events & EPOLLIN and self._reading:
            self._read()
        if self._closed:
            return
        if events & EPOLLOUT and self._queue:
            self._flush()
        elif events & (EPOLLHUP | EPOLLERR) and not events & EPOLLIN:
            self.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._typed(data)
        else:
            # The client closed its writing side: the end of stdin, while output goes on.
            self._reading = False
            self._update()
            assert self._on_input is not None
            self._on_input(b"")
            self._on_input = None

    def _typed(self, data: bytes) -> None:
        data, detached = self._keys.feed(data)
        if data and self._on_input is not None and not self._on_input(data):
            self._reading = False
            self._update()
        if detached:
            self.close(detached=True)

    def _flush(self) -> None:
        while self._queue:
            part = self._queue[0]
            try:
                sent = self._sock.send(part, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self.queued_bytes -= sent
            if sent < len(part):
                self._queue[0] = part[sent:]
            else:
                self._queue.popleft()
        if self._queue:
            return
        if self._closing:
            self.close()
        else:
            self._update()
            self._on_drained()


class LogSender(Client):
    """The process that sends the log elsewhere (`log_sender`), served like a client that only reads.

    With `drop_above_bytes` it never makes anybody wait: what would make its queue longer is dropped.
    """

    drop_above_bytes = 0

    def finish(self) -> None:
        """Close when everything was sent, or cannot be in a while: the container has ended."""
        self._loop.call_later(FAREWELL_S, self.close)
        super().finish()

    def send(self, stream: int, data: bytes) -> None:
        """Send what was read just now."""
        if self.drop_above_bytes and self.queued_bytes + len(data) > self.drop_above_bytes:
            return
        super().send(stream, time.time_ns().to_bytes(8, "big") + data)


class DetachKeys:
    """Finds the detach sequence in what is typed; holds back what may be its beginning."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to pass on, and whether the sequence is complete (the rest is dropped)."""
        keys = self._keys
        if not keys or (self._matched == 0 and keys[:1] not in data):
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    return bytes(passed), True
                continue
            passed += keys[: self._matched]
            self._matched = 0
            if byte == keys[0]:
                self._matched = 1
            else:
                passed.append(byte)
        return bytes(passed), False


class Input:
    """Writes what clients type into a pipe or terminal, in order and without blocking."""

    def __init__(self, loop: Loop, fd: int, *, terminal: bool) -> None:
        self._loop = loop
        # A terminal's master is watched for its output as well: this side has its own number.
        self._fd = os.dup(fd) if terminal else fd
        self._terminal = terminal
        self._queue = bytearray()
        self._watched = False
        self._ending = False
        self.waiting: list[Client] = []
        os.set_blocking(self._fd, False)

    def write(self, data: bytes) -> bool:
        """Pass `data` on; False when the reader is behind, until clients are resumed."""
        if self._fd < 0 or self._ending:
            return True
        self._queue += data
        self._flush()
        return not self._queue

    def end(self) -> None:
        """Close stdin when everything was written. A terminal stays open: its end is typed."""
        if self._terminal:
            return
        self._ending = True
        self._flush()

    def close(self) -> None:
        """Close at once."""
        if self._fd >= 0:
            if self._watched:
                self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _flush(self, _events: int = 0) -> None:
        while self._queue and self._fd >= 0:
            try:
                written = os.write(self._fd, self._queue)
            except BlockingIOError:
                break
            except OSError:
                # Nobody reads any more: drop it, as the shell's pipe would.
                self._queue.clear()
                self.close()
                break
            del self._queue[:written]
        if self._fd >= 0 and bool(self._queue) != self._watched:
            self._watched = bool(self._queue)
            if self._watched:
                self._loop.watch(self._fd, EPOLLOUT, self._flush)
            else:
                self._loop.forget(self._fd)
        if not self._queue:
            if self._ending:
                self.close()
            waiting, self.waiting = self.waiting, []
            for client in waiting:
                client.resume_input()
