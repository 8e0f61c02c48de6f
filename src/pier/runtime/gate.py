"""Where a container that was created waits for its start, when no keeper stays beside it.

    create                          init                            start
      │◀──────── "created" ───────────│  all is set up, the program was found
      │  its pid is recorded          │
      │───────── "recorded" ─────────▶│  (without it init ends: nobody would know of it)
      ∎                               │  accept
                                      │◀─────────── connect ───────────────│
                                      │  startContainer hooks, rights      │
                                      │──── "error", or execve's EOF ─────▶│
                                                                           ∎

The gate is a listening socket in the container's state directory. Init holds the only descriptor
of it when it waits, so a connection that is refused says that there is nobody to start any more.
"""

from __future__ import annotations

import os

from pier.kernel.lean import accept, socket
from pier.runtime import protocol

NAME = "start.sock"


class Gate:
    """The listening end, inherited by init; and how a container without a keeper is made.

    `preserve_fds` descriptors from 3 on are passed on to the program. Without `keyring` it keeps
    the session keyring of whoever creates it; without `pivot` its root is moved over the old one.
    """

    def __init__(
        self, directory: str, *, preserve_fds: int = 0, keyring: bool = True, pivot: bool = True
    ) -> None:
        self.preserve_fds = preserve_fds
        self.keyring = keyring
        self.pivot = pivot
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory_fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        try:
            # A socket's path may have 107 bytes only.
            self.listener.bind(f"/proc/self/fd/{directory_fd}/{NAME}")
            self.listener.listen(1)
        except OSError:
            self.listener.close()
            raise
        finally:
            os.close(directory_fd)

    def wait(self, sync: socket.socket) -> socket.socket:
        """In init: say that all is set up, wait to be started; return the connection of `start`.

        Ends the process when whoever created it has gone before it recorded us.
        """
        sync.setblocking(True)
        protocol.send(sync, {"created": True})
        if protocol.receive(sync) is None:
            os._exit(1)
        sync.close()
        connection = accept(self.listener)
        self.listener.close()
        return connection


def connect(directory: str) -> socket.socket:
    """Open the gate of the container whose state is in `directory`: it starts, and says how.

    Raises FileNotFoundError when it was started before, ConnectionRefusedError when it is dead.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory_fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory_fd}/{NAME}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory_fd)
    return connection
