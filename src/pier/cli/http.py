"""A small HTTP/1.1 client for the engine's unix socket (RFC 9112), blocking, for one thread.

It knows what the Docker Engine API uses: JSON bodies, chunked and sized bodies both ways, answers
that stream for hours, and hijacked connections (`Upgrade: tcp`). It is not a general client: no
TLS, redirects, cookies or compression.

`_socket` is used in place of `socket`, and `plain_json` of `json`: together they are half of the start-up
time of a short command.
"""

import _socket
import time

from pier import __version__
from pier.cli.errors import ApiError, Failure, NoEngine
from pier.plain_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

API_VERSION = "1.51"

# An idle connection is used again only while the engine surely keeps it open.
_KEEP_IDLE_S = 5.0
_READ_BYTES = 64 * 1024


def quote(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters."""
    if text.isalnum() and text.isascii():
        return text
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in b"-._~" else f"%{byte:02X}"
        for byte in text.encode()
    )


def query_string(query: "dict[str, Any] | None") -> str:
    """`?a=1&b=2`; a list value repeats its key, True is 1, None and False are left out."""
    pairs = []
    for key, value in (query or {}).items():
        if value is None or value is False:
            continue
        items = value if isinstance(value, list) else [value]
        pairs += [f"{key}={quote('1' if item is True else str(item))}" for item in items]
    return "?" + "&".join(pairs) if pairs else ""


class Connection:
    """One socket to the engine and the bytes read from it but not yet used."""

    def __init__(self, sock: "_socket.socket") -> None:
        self.socket = sock
        self.buffer = b""
        self.idle_since = 0.0

    def close(self) -> None:
        self.socket.close()

    def send(self, head: bytes, body: "bytes | IO[bytes] | None") -> None:
        """Send a request. A file is sent in chunks as it is read."""
        if body is None or isinstance(body, bytes):
            self.socket.sendall(head + (body or b""))
            return
        self.socket.sendall(head)
        # read1 gives what a pipe has now, where read would wait for a full buffer.
        read = getattr(body, "read1", body.read)
        while data := read(1024 * 1024):
            self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))
        self.socket.sendall(b"0\r\n\r\n")

    def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        data = self.socket.recv(_READ_BYTES)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        """The next line without its end; Failure when the stream ends before it."""
        while (end := self.buffer.find(b"\r\n")) < 0:
            if not self.fill():
                raise Failure("error during connect: the engine closed the connection: EOF")
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        return line


class Response:
    """An answer whose body is still in the socket. Read it whole or close it."""

    def __init__(self, client: "Client", connection: Connection, method: str) -> None:
        self._client = client
        self.connection = connection
        status_line = connection.line()
        try:
            self.status = int(status_line.split(b" ", 2)[1])
        except (IndexError, ValueError):
            raise Failure(
                f"error during connect: malformed HTTP response {status_line!r}"
            ) from None
        self.headers: dict[str, str] = {}
        while line := connection.line().decode("latin-1"):
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self._empty = method == "HEAD" or self.status < 200 or self.status in (204, 304)

    def chunks(self) -> "Iterator[bytes]":
        """The body as it arrives; the connection is given back after the last piece."""
        connection = self.connection
        length = self.headers.get("content-length")
        keep = self.headers.get("connection", "").lower() != "close"
        try:
            if self._empty:
                pass
            elif self.headers.get("transfer-encoding", "").lower() == "chunked":
                yield from self._chunked()
            elif length is not None:
                yield from self._sized(int(length))
            else:
                keep = False
                while connection.buffer or connection.fill():
                    data, connection.buffer = connection.buffer, b""
                    yield data
        except Failure:
            connection.close()
            raise
        if keep:
            self._client.give_back(connection)
        else:
            connection.close()

    def _sized(self, left: int) -> "Iterator[bytes]":
        connection = self.connection
        while left:
            if not connection.buffer and not connection.fill():
                raise Failure("unexpected EOF")
            data = connection.buffer[:left]
            connection.buffer = connection.buffer[left:]
            left -= len(data)
            yield data

    def _chunked(self) -> "Iterator[bytes]":
        connection = self.connection
        while size := int(connection.line().partition(b";")[0], 16):
            yield from self._sized(size)
            connection.line()
        while connection.line():
            pass  # trailers

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> "Any":
        """The body as JSON; None when it is empty."""
        body = self.read()
        try:
            return loads(body) if body.strip() else None
        except ValueError as error:
            raise Failure(
                f"error during connect: the engine's answer is not JSON: {error}"
            ) from None

    def json_lines(self) -> "Iterator[Any]":
        """A stream of JSON documents, one a line."""
        rest = b""
        for data in self.chunks():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.strip():
                    yield loads(line)
        if rest.strip():
            yield loads(rest)


class Client:
    """The engine at the unix socket `path`. `host` is its address as the user writes it."""

    def __init__(self, path: str, host: str, api_version: str = API_VERSION) -> None:
        self.path = path
        self.host = host
        self.api_version = api_version
        self.headers: dict[str, str] = {}  # sent with every request
        self.debug = False  # tell every request and its answer's status on stderr
        self._idle: Connection | None = None

    def connect(self) -> Connection:
        """An idle connection, or a new one. Raises NoEngine."""
        connection, self._idle = self._idle, None
        if connection is not None:
            if time.monotonic() - connection.idle_since < _KEEP_IDLE_S:
                return connection
            connection.close()
        return self.dial()

    def fresh(self) -> "Client":
        """Another client of the same engine: signal handlers need connections of their own."""
        other = self._another()
        other.headers, other.debug = self.headers, self.debug
        return other

    def _another(self) -> "Client":
        return Client(self.path, self.host, self.api_version)

    def dial(self) -> Connection:
        """A new connection. Raises NoEngine."""
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.connect(self.path)
            return Connection(sock)
        except PermissionError:
            sock.close()
            raise NoEngine(
                "permission denied while trying to connect to the docker API at " + self.host
            ) from None
        except (OSError, ValueError):
            sock.close()
            raise NoEngine(
                f"Cannot connect to the Docker daemon at {self.host}. Is the docker daemon running?"
            ) from None

    def close(self) -> None:
        """Close the idle connection, if there is one. The client may be used again."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read whole for the next request."""
        self.close()
        connection.idle_since = time.monotonic()
        self._idle = connection

    def request(
        self,
        method: str,
        path: str,
        query: "dict[str, Any] | None" = None,
        *,
        body: "Any" = None,
        content_type: str = "application/json",
        headers: "dict[str, str] | None" = None,
    ) -> Response:
        """Send a request and read the head of its answer.

        `body` may be bytes, a binary file, or anything that becomes JSON. Raises ApiError for a
        status of 400 and more, NoEngine when nothing answers.
        """
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "read"):
            body = _json(body)
        connection = self.connect()
        head = self._head(method, path + query_string(query), body, content_type, headers)
        self._send(connection, head, body)
        try:
            response = Response(self, connection, method)
        except (Failure, ConnectionResetError) as error:
            connection.close()
            if isinstance(error, Failure):
                raise
            raise Failure("error during connect: the engine closed the connection: EOF") from None
        if self.debug:
            import sys

            sys.stderr.write(f"DEBUG {method} {path}{query_string(query)}: {response.status}\n")
        if response.status >= 400:
            raise ApiError(response.status, _message(response))
        return response

    def _send(self, connection: Connection, head: bytes, body: "bytes | IO[bytes] | None") -> None:
        try:
            connection.send(head, body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the engine may have answered, and refused, before it read all of the body

    def _head(
        self,
        method: str,
        target: str,
        body: object,
        content_type: str,
        headers: "dict[str, str] | None",
    ) -> bytes:
        lines = [
            f"{method} /v{self.api_version}{target} HTTP/1.1",
            "Host: api.moby.localhost",
            f"User-Agent: Pier-Client/{__version__} (linux)",
        ]
        if isinstance(body, bytes):
            lines += [f"Content-Length: {len(body)}", f"Content-Type: {content_type}"]
        elif body is not None:
            lines += ["Transfer-Encoding: chunked", f"Content-Type: {content_type}"]
        elif method == "POST":
            lines.append("Content-Length: 0")
        every = {**self.headers, **(headers or {})}
        lines += [f"{name}: {value}" for name, value in every.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def get(self, path: str, query: "dict[str, Any] | None" = None) -> Response:
        return self.request("GET", path, query)

    def post(
        self, path: str, query: "dict[str, Any] | None" = None, *, body: "Any" = None
    ) -> Response:
        return self.request("POST", path, query, body=body)

    def delete(self, path: str, query: "dict[str, Any] | None" = None) -> Response:
        return self.request("DELETE", path, query)

    def hijack(
        self, path: str, query: "dict[str, Any] | None" = None, *, body: "Any" = None
    ) -> Connection:
        """POST and take over the connection: raw from here on, owned and closed by the caller.

        `Connection.buffer` holds what came with the answer's head.
        """
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        response = self.request("POST", path, query, body=body, headers=upgrade)
        if response.status not in (101, 200):
            raise Failure(f"unable to upgrade to tcp, received {response.status}")
        return response.connection


def _json(body: "Any") -> bytes:
    text = dumps(body, separators=(",", ":"))
    if "\\ud" in text:
        # Half of a character, or what is no UTF-8: only the module tells which.
        import json

        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def _message(response: Response) -> str:
    body = response.read().decode("utf-8", "replace").strip()
    try:
        document = loads(body)
        message = document["message"]
    except (ValueError, KeyError, TypeError):
        message = body
    if message:
        return str(message)
    return f"request returned {response.status}; check if the server supports the requested API"
