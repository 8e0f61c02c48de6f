"""pierd's side of the process that log followers live in: their sockets go there, and stay there.

It is started with the first follower. A pierd that was started later has another one; that of the
last pierd ends with its last follower.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import msgspec

from pier.engine.log_files import LogFile
from pier.engine.logs import LogQuery
from pier.runtime import protocol

# Room in argv for the title that the process gives itself.
_TITLE_ROOM = " " * 64


class LogFollowers:
    """Starts the process when it is needed, and again when it was killed."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def hand_over(self, fds: tuple[int, ...], order: dict[str, Any]) -> None:
        """Have a client served: its descriptor, the witness, the files; all stay the caller's.

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._send, fds, order)

    def close(self) -> None:
        """Let the process end with its last follower."""
        with self._lock:
            self._forget()

    def _send(self, fds: tuple[int, ...], order: dict[str, Any]) -> None:
        with self._lock:
            if self._channel is not None:
                try:
                    protocol.send(self._channel, order, fds)
                except OSError:
                    # It was killed: its followers' clients know, and ask for another.
                    self._forget()
                else:
                    return
            self._channel = self._start()
            protocol.send(self._channel, order, fds)

    def _forget(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            # Reaped by the next Popen when it has not ended yet.
            self._process.poll()
            self._process = None

    def _start(self) -> socket.socket:
        """Start the process; return the channel to it, which queues what it is sent meanwhile."""
        package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        libraries = os.path.dirname(os.path.dirname(os.path.abspath(msgspec.__file__)))
        code = (
            # msgspec does without it, and it is a third of what the first follower waits for.
            "import sys; sys.modules['typing_extensions'] = None\n"
            f"sys.path += {[package_root, libraries]!r}\n"
            "from pier.engine.log_follower import main\nmain()"
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-IS", "-c", code, _TITLE_ROOM],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return ours


@dataclass(frozen=True, slots=True)
class Following:
    """A follower that can be handed over. `close` it in any case: it owns descriptors."""

    followers: LogFollowers
    witness_fd: int
    path: str
    files: list[LogFile]
    query: LogQuery
    until_s: float | None

    async def hand_over(self, fd: int, _pending: bytes) -> None:
        """Give the client's socket away, behind the head of its answer. Raises OSError."""
        order = {
            "path": self.path,
            "query": msgspec.structs.asdict(self.query),
            "until_s": self.until_s,
        }
        file_fds = [file.raw_fd for file in self.files]
        # Of more than fit the follower opens all by itself.
        held = file_fds if len(file_fds) <= protocol.MAX_FDS - 2 else []
        await self.followers.hand_over((fd, self.witness_fd, *held), order)

    def close(self) -> None:
        os.close(self.witness_fd)
        for file in self.files:
            file.close()
