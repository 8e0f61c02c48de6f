"""What a keeper uses of `signal`, `socket`, `json`, `contextlib`, `collections` and `heapq`, without them.

Their C parts are all that is used; what Python wraps around them (enumerations, regular expressions,
selectors) is 1.3 MB that every keeper shares, and pages that each dirties of its own: a function
call writes reference counts. So the modules that a zygote loads take these names from here. The C
parts have no promise of a stable interface: what is not as expected is taken from the real module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections import deque
    from contextlib import suppress
    from heapq import heappop, heappush
    from json import dumps, loads
    from json.encoder import encode_basestring
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

    def _json() -> tuple:
        import _json  # noqa: PLC0415

        class Context:
            strict = True
            object_hook = object_pairs_hook = None
            parse_float, parse_int = float, int
            parse_constant = {
                "NaN": float("nan"),
                "Infinity": float("inf"),
                "-Infinity": -float("inf"),
            }.get
            memo: dict[str, str] = {}  # noqa: RUF012

        scan = _json.make_scanner(Context)
        blank = " \t\n\r"

        def default(value: object) -> object:
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

        escape = _json.encode_basestring_ascii
        loose = _json.make_encoder(None, default, escape, None, ": ", ", ", False, False, True)
        tight = _json.make_encoder(None, default, escape, None, ":", ",", False, False, True)

        def loads(data: bytes | str) -> object:
            """json.loads: UTF-8 in bytes. Raises ValueError."""
            text = data if isinstance(data, str) else str(data, "utf-8")
            begin = len(text) - len(text.lstrip(blank))
            try:
                value, end = scan(text, begin)
            except StopIteration:
                raise ValueError("not JSON") from None
            if text[end:].strip(blank):
                raise ValueError("not JSON: extra data")
            return value

        def dumps(value: object, separators: tuple[str, str] = (", ", ": ")) -> str:
            """json.dumps, with its separators or the shortest ones."""
            return "".join((loose if separators[1] == ": " else tight)(value, 0))

        sample = {"a": [1, -2.5, None, True, "é\n"], "b": {}}
        if loads(dumps(sample, separators=(",", ":")).encode()) != sample or loads(b" 1 ") != 1:
            raise ImportError("_json is not what it was")
        return loads, dumps, _json.encode_basestring

    try:
        loads, dumps, encode_basestring = _json()
    except (ImportError, AttributeError, TypeError):
        from json import dumps, loads
        from json.encoder import encode_basestring


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
