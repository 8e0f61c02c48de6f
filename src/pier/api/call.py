"""One call of the API as its handler sees it: the path's name, the query, the body, the engine."""

import time
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import parse_qs

from aiohttp import web

from pier.api.connection import Connection
from pier.engine.body_reader import BodyReader
from pier.errors import InvalidParameter
from pier.model.gotime import now_ns, parse_timestamp

if TYPE_CHECKING:
    from pier.engine.engine import Engine

# httputils.BoolValue: everything else is true, so that `?force` alone is not, and `?force=x` is.
_FALSE = ("", "0", "no", "false", "none")

# strconv.ParseBool.
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}

Version = tuple[int, int]


class Call:
    """`name` is the path's variable, decoded, "" without one; `version` is the API's, (1, 51)."""

    def __init__(
        self, engine: "Engine", request: web.BaseRequest, version: Version, name: str
    ) -> None:
        self.engine = engine
        self.request = request
        self.version = version
        self.name = name
        self.arrived_ns = time.monotonic_ns()
        self._body: BodyReader | None = None

    @property
    def connection(self) -> Connection:
        protocol = self.request.protocol
        assert isinstance(protocol, Connection)
        return protocol

    def archive(self) -> BinaryIO:
        """Return the body for a thread, which can be read and nothing else; `close` ends that."""
        self._body = BodyReader(self.request.content)
        return cast("BinaryIO", self._body)

    def close(self) -> None:
        """The call is answered."""
        if self._body is not None:
            self._body.close()

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query's values by key, in order."""
        _, has_query, text = self.request.path_qs.partition("?")
        return parse_qs(text, keep_blank_values=True) if has_query else {}

    def text(self, key: str, default: str = "") -> str:
        """Return the first value of `key`."""
        values = self.query.get(key)
        return values[0] if values else default

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean as Docker reads one; it never fails."""
        values = self.query.get(key)
        return values[0].strip().lower() not in _FALSE if values else default

    def integer(self, key: str) -> int | None:
        """Return a decimal integer, None when it is absent or empty. Raises InvalidParameter."""
        text = self.text(key)
        if not text:
            return None
        digits = text[1:] if text[0] in "+-" else text
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
        return int(text)

    def size(self, key: str, what: str) -> int:
        """Return one side of a terminal, 0 to 65535. Raises InvalidParameter naming `what`.

        dockerd takes 32 bits, of which the kernel's structure has room for 16.
        """
        text = self.text(key)
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidParameter(f'invalid resize {what} "{text}": invalid syntax')
        value = int(text)
        if not 0 <= value < 1 << 32:
            raise InvalidParameter(f'invalid resize {what} "{text}": value out of range')
        return min(value, 0xFFFF)

    def timestamp(self, key: str) -> int | None:
        """Return a time in nanoseconds since the epoch, None for absent, "" and "0"."""
        text = self.text(key)
        if text in ("", "0"):
            return None
        try:
            return parse_timestamp(text, now_ns=now_ns())
        except InvalidParameter:
            raise InvalidParameter(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
