"""A small recording HTTP server on a unix socket: what a client sent, and canned answers.

It is no engine. It lets a test point two clients (docker's and Pier's) at the same answers and
compare their requests and their output.
"""

import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

VERSION = "1.50"


@dataclass
class Request:
    method: str
    path: str  # without the version prefix
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body) if self.body else None


@dataclass
class Answer:
    """`hijack` bytes are sent raw after a 101 and the connection is closed."""

    status: int = 200
    body: object = None
    hijack: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


Route = Answer | Callable[[Request], Answer]


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


class FakeEngine:
    """Answers `routes["METHOD /path"]`; every request is in `requests`, in order of arrival."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.routes: dict[str, Route] = {}
        self.requests: list[Request] = []
        self.stdin = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return "unix://" + self.path

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        os.unlink(self.path)

    def sent(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection,), daemon=True).start()

    def _connection(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while (request := _read(reader)) is not None:
                    self.requests.append(request)
                    if not self._respond(request, connection, reader):
                        return
            except OSError:
                return

    def _respond(self, request, connection, reader) -> bool:
        """Answer; False when the connection is done for."""
        answer = self._answer(request)
        connection.sendall(_encode(request, answer))
        if answer.hijack is not None:
            self._hijacked(connection, reader)
        return answer.hijack is None

    def _hijacked(self, connection, reader) -> None:
        # Clients end their side: at EOF of stdin, or at once without one.
        self.stdin += reader.read()

    def _answer(self, request: Request) -> Answer:
        if request.path == "/_ping":
            return Answer(body=b"OK")
        route = self.routes.get(f"{request.method} {request.path}")
        if route is None:
            return Answer(404, {"message": f"no route {request.method} {request.path}"})
        return route(request) if callable(route) else route


def _read(reader) -> Request | None:
    line = reader.readline().decode()
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers = {}
    while (line := reader.readline().decode().rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
    elif "content-length" in headers:
        body = reader.read(int(headers["content-length"]))
    url = urlsplit(target)
    path = url.path
    if path.startswith("/v1."):
        path = path[path.index("/", 1) :]
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(method, path, query, headers, body)


def _encode(request: Request, answer: Answer) -> bytes:
    lines = []
    if answer.hijack is not None:
        lines = ["HTTP/1.1 101 UPGRADED", "Connection: Upgrade", "Upgrade: tcp"]
        payload = answer.hijack
    else:
        lines = [f"HTTP/1.1 {answer.status} X"]
        payload = b""
        if isinstance(answer.body, bytes):
            payload = answer.body
        elif answer.body is not None:
            payload = json.dumps(answer.body).encode()
            lines.append("Content-Type: application/json")
        if answer.status not in (204, 304):
            lines.append(f"Content-Length: {len(payload)}")
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines += [f"Api-Version: {VERSION}", "Ostype: linux", "Docker-Experimental: false"]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if request.method == "HEAD" else head + payload
