"""The keeper's event loop: epoll(7) and timers, single-threaded, nothing else.

asyncio would do, and add 5.2 MB to the 6.5 MB that a zygote holds.
"""

from __future__ import annotations

import select
import time

from pier.kernel.lean import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[int], None]

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT
EPOLLHUP = select.EPOLLHUP
EPOLLERR = select.EPOLLERR


class Loop:
    """Calls a callback with the epoll events of its descriptor; level-triggered."""

    def __init__(self) -> None:
        self._epoll = select.epoll(sizehint=8)
        self._callbacks: dict[int, Callback] = {}
        # Closed in this round: their numbers may be others' by now, their events are not.
        self._forgotten: set[int] = set()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self.running = True

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Watch a descriptor that is not watched yet; with events 0 only its hang-up is told."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Watch the same descriptor for other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; call it before closing. Not watching it is fine."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._forgotten.add(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, in `delay_s` seconds."""
        self._timer_count += 1
        heappush(self._timers, (time.monotonic() + delay_s, self._timer_count, callback))

    def run(self) -> None:
        """Run until `running` is False."""
        while self.running:
            ready = self._epoll.poll(self._timeout())
            self._forgotten.clear()
            for fd, events in ready:
                callback = self._callbacks.get(fd)
                if callback is not None and fd not in self._forgotten:
                    callback(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heappop(self._timers)[2]()

    def _timeout(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
