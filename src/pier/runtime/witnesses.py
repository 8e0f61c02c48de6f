"""Those who only want to know when a container is over: each has one end of a pipe, we the other.

Ours closes when everybody knows of the end and the log is whole, or when the keeper is killed. A
witness that went away is noticed by that, and costs nothing more.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.runtime.loop import Loop


class Witnesses:
    """Owns the descriptors that it is given."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fds: list[int] = []

    def add(self, fd: int) -> None:
        """Keep the writing end of a pipe until the container is over or its reader is gone."""
        self._fds.append(fd)
        self._loop.watch(fd, 0, lambda _events: self._let_go(fd))

    def close(self) -> None:
        """The container is over."""
        for fd in list(self._fds):
            self._let_go(fd)

    def _let_go(self, fd: int) -> None:
        self._fds.remove(fd)
        self._loop.forget(fd)
        os.close(fd)
