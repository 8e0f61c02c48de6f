"""An attached connection and the client's stdin, stdout and stderr, joined until one side ends.

With a terminal both ways are raw. Without, output comes in frames of the Engine API: one byte for
the stream (1 stdout, 2 stderr, 3 an error of the engine), three of zero, four of length, big endian.

One thread and one poll: what cannot be sent at once waits in a buffer and stdin is not read
meanwhile, so that a container that writes before it reads does not stop both.
"""

import _socket
import os
import select

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.http import Connection
    from pier.cli.terminal import DetachKeys

_READ_BYTES = 256 * 1024
_STDIN_BYTES = 64 * 1024
_HEADER_BYTES = 8


class Detached(Exception):
    """The user typed the detach keys."""


def write_all(fd: int, data: memoryview) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


class Frames:
    """Takes frames apart, wherever reads cut them, and writes them to their descriptors."""

    def __init__(self, *, stdout: bool = True, stderr: bool = True) -> None:
        self._fds = {0: 1 if stdout else -1, 1: 1 if stdout else -1, 2: 2 if stderr else -1, 3: -3}
        self._header = b""
        self._left = 0
        self._fd = -1
        self._error = b""

    def feed(self, data: memoryview) -> None:
        """Raises Failure for an error that the engine put in the stream."""
        while data:
            if self._left:
                part = data[: self._left]
                data = data[len(part) :]
                self._left -= len(part)
                self._take(part)
            else:
                need = _HEADER_BYTES - len(self._header)
                self._header += bytes(data[:need])
                data = data[need:]
                if len(self._header) == _HEADER_BYTES:
                    self._fd = self._fds.get(self._header[0], -4)
                    self._left = int.from_bytes(self._header[4:], "big")
                    if self._fd == -4:
                        raise Failure(f"unrecognized stream: {self._header[0]}")
                    self._header = b""

    def _take(self, part: memoryview) -> None:
        if self._fd > 0:
            write_all(self._fd, part)
        elif self._fd == -3:
            self._error += bytes(part)
            if not self._left:
                raise Failure(
                    "error from daemon in stream: " + self._error.decode(errors="replace")
                )


class RawOutput:
    """A terminal's output: all of it to stdout."""

    def feed(self, data: memoryview) -> None:
        write_all(1, data)


class Pump:
    """Moves bytes between a hijacked connection and the client's descriptors.

    `stdin` says whether the client's stdin is sent; its end closes the connection's writing side,
    which is the container's EOF. `keys` detaches. The connection is the caller's to close.
    """

    def __init__(
        self,
        connection: "Connection",
        output: "Frames | RawOutput",
        *,
        stdin: bool,
        keys: "DetachKeys | None" = None,
    ) -> None:
        self._connection = connection
        self._output = output
        self._keys = keys
        self._unsent = b""
        self._stdin_open = stdin
        self._sending = True
        self._buffer = memoryview(bytearray(_READ_BYTES))
        if not stdin:
            self._half_close()

    def run(self) -> None:
        """Until the engine ends the output. Raises Detached, Failure."""
        if self._connection.buffer:
            data, self._connection.buffer = self._connection.buffer, b""
            self._output.feed(memoryview(data))
        socket_fd = self._connection.socket.fileno()
        while True:
            poll = select.poll()
            poll.register(socket_fd, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if self._stdin_open and not self._unsent:
                poll.register(0, select.POLLIN)
            for fd, event in poll.poll():
                if fd == 0:
                    self._read_stdin()
                    continue
                if event & select.POLLOUT:
                    self._send()
                if event & (select.POLLIN | select.POLLHUP | select.POLLERR) and self._ended():
                    return

    def _ended(self) -> bool:
        """Read output once; True at its end."""
        try:
            count = self._connection.socket.recv_into(self._buffer)
        except ConnectionResetError:
            return True
        self._output.feed(self._buffer[:count])
        return count == 0

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, _STDIN_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal that hung up, or no stdin at all
        if not data:
            self._stdin_open = False
            self._half_close()
            return
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        self._unsent = data
        self._send()
        if detached:
            raise Detached

    def _send(self) -> None:
        if not self._sending:
            self._unsent = b""
            return
        try:
            sent = self._connection.socket.send(self._unsent, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            # The container reads no more; its output is still wanted.
            self._sending = self._stdin_open = False
            self._unsent = b""
            return
        self._unsent = self._unsent[sent:]

    def _half_close(self) -> None:
        if self._sending:
            self._sending = False
            try:
                self._connection.socket.shutdown(_socket.SHUT_WR)
            except OSError:
                return  # the engine closed first
