"""What a keeper uses of `signal`, `socket`, `json`, `contextlib`, `collections` and `heapq`, without them.

Their C parts are all that is used; what Python wraps around them (enumerations, regular expressions,
selectors) is 1.3 MB that every keeper shares, and pages that each dirties of its own: a function
call writes reference counts. So the modules that a zygote loads take these names from here. The C
parts have no promise of a stable interface: what is not as expected is taken from the real module.
"""

from __future__ import annotations

from pier.plain_json import dumps, encode_basestring, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections import deque
    from contextlib import suppress
    from heapq import heappop, heappush
else:
    import _signal as signal
    import _socket as socket
    from _collections import deque
    from _heapq import heappop, heappush

    class suppress:  # noqa: N801  # contextlib's
        """contextlib.suppress."""

        def __init__(self, *kinds: type) -> None:
            self._kinds = kinds

        def __enter__(self) -> None: ...

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
            return kind is not None and issubclass(kind, self._kinds)


class json:  # noqa: N801  # in the module's place
    """json's two functions."""

    loads = staticmethod(loads)
    dumps = staticmethod(dumps)


def accept(listener: socket.socket) -> socket.socket:
    """Accept a connection, close-on-exec. Raises OSError."""
    number, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return socket.socket(fileno=number)


__all__ = [
    "accept",
    "deque",
    "encode_basestring",
    "heappop",
    "heappush",
    "json",
    "signal",
    "socket",
    "suppress",
]
