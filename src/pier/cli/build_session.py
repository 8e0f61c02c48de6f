"""What a build asks of its client while it runs: secrets, agents, directories.

The other side of `build/channels.py`, where the protocol is drawn. A thread reads the connection;
each question is answered in a thread of its own.
"""

import os
import threading

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import queue
    from typing import Any

    from pier.cli.http import Client, Connection

_HEAD = 9
_OCI_LAYOUT = "oci-layout://"
_PIECE = 256 << 10
_WAITING = 32


class Sources:
    """`secrets` are functions that read one, `agents` paths of sockets, `directories` and
    `files` paths.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, tuple[str, str]] = {}
        self.agents: dict[str, str] = {}
        self.directories: dict[str, str] = {}
        self.files: dict[str, str] = {}

    def add_file(self, name: str, path: str) -> None:
        if not os.path.isfile(path):
            raise Failure(f"open {path}: no such file or directory")
        self.files[name] = path

    def add_secret(self, text: str) -> None:
        """Take `id=NAME[,src=PATH][,env=VARIABLE][,type=file|env]`. Raises Failure."""
        fields = _fields(text, ("id", "source", "src", "env", "type"))
        name, kind = fields.get("id", ""), fields.get("type", "")
        path, variable = fields.get("src", fields.get("source", "")), fields.get("env", "")
        if not name:
            raise Failure(f"failed to parse secret spec {text}: secret missing ID")
        if kind not in ("", "file", "env"):
            raise Failure(f'unsupported secret type "{kind}"')
        if kind == "env" and not variable:
            variable, path = path or name, ""
        if not path and not variable:
            if name in os.environ and kind != "file":
                variable = name
            else:
                path = name
        if path:
            if not os.path.isfile(path):
                raise Failure(f"failed to stat {path}: no such file or directory")
            self.secrets[name] = ("file", path)
        else:
            self.secrets[name] = ("env", variable)

    def add_agent(self, text: str) -> None:
        """Take `default` or `NAME[=SOCKET]`. Raises Failure."""
        name, _, path = text.partition("=")
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise Failure("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
        import stat

        try:
            found = os.stat(path)
        except OSError as error:
            raise Failure(f"failed to stat {path}: {(error.strerror or '').lower()}") from None
        if not stat.S_ISSOCK(found.st_mode):
            raise Failure(
                f"{path} is no socket of an ssh agent: add the key to an agent with ssh-add"
            )
        self.agents[name] = path

    def add_context(self, text: str) -> tuple[str, str]:
        """Take `NAME=VALUE` of --build-context; return the name and what the engine is told."""
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise Failure(f"invalid context value: {text}, expected key=value")
        if value.startswith(_OCI_LAYOUT):
            return name, self._layout(name, value)
        if "://" in value or value.startswith(("git@", "target:", "github.com/")):
            return name, value
        if not os.path.isdir(value):
            raise Failure(f"failed to get build context path {{{value} <nil>}}: not a directory")
        self.directories[name] = value
        return name, f"local:{name}"

    def _layout(self, name: str, value: str) -> str:
        """Take `oci-layout://DIR[:TAG][@DIGEST]`; the engine is told another name for DIR."""
        place, at, digest = value.removeprefix(_OCI_LAYOUT).partition("@")
        path, colon, tag = place.partition(":")
        if not os.path.isfile(os.path.join(path, "index.json")):
            raise Failure(f"oci-layout reference {value!r} could not be resolved: no index.json")
        key = f"layout-{len(self.directories)}"
        self.directories[key] = path
        return f"{_OCI_LAYOUT}{key}{colon}{tag}{at}{digest}"


class BuildSession:
    """Open from `start` until `close`."""

    def __init__(self, client: "Client", sources: Sources) -> None:
        import secrets

        self.id = secrets.token_hex(16)
        self._client = client
        self._sources = sources
        self._connection: Connection | None = None
        self._sending = threading.Lock()
        self._incoming: dict[int, queue.Queue[bytes]] = {}

    def start(self) -> None:
        self._connection = self._client.hijack("/pier/build/session", {"id": self.id})
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        import contextlib
        import socket

        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    def _take(self, count: int) -> bytes:
        assert self._connection is not None
        while len(self._connection.buffer) < count:
            if not self._connection.fill():
                raise ConnectionError
        data = self._connection.buffer[:count]
        self._connection.buffer = self._connection.buffer[count:]
        return data

    def _read(self) -> None:
        import json
        import queue

        try:
            while True:
                head = self._take(_HEAD)
                number = int.from_bytes(head[1:5], "big")
                data = self._take(int.from_bytes(head[5:9], "big"))
                if head[:1] == b"O":
                    self._incoming[number] = queue.Queue(_WAITING)
                    work = (number, json.loads(data))
                    threading.Thread(target=self._answer, args=work, daemon=True).start()
                elif number in self._incoming:
                    self._incoming[number].put(data if head[:1] == b"D" else b"")
        except (OSError, ValueError):
            for channel in list(self._incoming.values()):
                channel.put(b"")

    def send(self, kind: bytes, number: int, data: bytes = b"") -> None:
        assert self._connection is not None
        frame = kind + number.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data
        with self._sending:
            self._connection.socket.sendall(frame)

    def _answer(self, number: int, question: "dict[str, Any]") -> None:
        name = str(question.get("id", ""))
        try:
            match question["kind"]:
                case "secret":
                    self._secret(number, name)
                case "agent":
                    self._agent(number, name, probe=bool(question.get("probe")))
                case "directory":
                    self._directory(number, name, question)
                case "file":
                    self._file(number, name)
                case other:
                    self.send(b"X", number, f"unknown question {other}".encode())
        except Failure as error:
            self.send(b"X", number, str(error).encode())
        except OSError as error:
            try:
                self.send(b"X", number, (error.strerror or str(error)).encode())
            except OSError:
                return  # the engine has gone, which the build itself tells
        finally:
            self._incoming.pop(number, None)

    def _secret(self, number: int, name: str) -> None:
        kind, where = self._sources.secrets.get(name, ("", ""))
        if kind == "env" and where in os.environ:
            data = os.environb[os.fsencode(where)]
        elif kind == "file":
            with open(where, "rb") as file:
                data = file.read()
        else:
            raise Failure("not found")
        for start in range(0, len(data), _PIECE):
            self.send(b"D", number, data[start : start + _PIECE])
        self.send(b"E", number)

    def _file(self, number: int, name: str) -> None:
        path = self._sources.files.get(name)
        if path is None:
            raise Failure("not found")
        with open(path, "rb") as file:
            while data := file.read(_PIECE):
                self.send(b"D", number, data)
        self.send(b"E", number)

    def _agent(self, number: int, name: str, *, probe: bool) -> None:
        import socket

        path = self._sources.agents.get(name)
        if path is None:
            raise Failure(f"no ssh key {name!r} forwarded from the client")
        if probe:
            self.send(b"E", number)
            return
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(path)
            threading.Thread(target=self._to_agent, args=(number, agent), daemon=True).start()
            while data := agent.recv(_PIECE):
                self.send(b"D", number, data)
            self.send(b"E", number)

    def _to_agent(self, number: int, agent: "Any") -> None:
        import socket

        incoming = self._incoming[number]
        try:
            while data := incoming.get():
                agent.sendall(data)
            agent.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the agent has gone, which the other direction sees as well

    def _directory(self, number: int, name: str, question: "dict[str, Any]") -> None:
        import tarfile

        from pier.cli.build_context import paths
        from pier.cli.ignore import Ignore

        top = self._sources.directories.get(name)
        if top is None:
            raise Failure("not found")
        only = set(question.get("include") or ())
        ignore = Ignore("\n".join(question.get("exclude") or ()))
        out: Any = _Sent(self, number)  # written to, and nothing else
        chosen = [path for path in sorted(only) if os.path.lexists(os.path.join(top, path))]
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path in chosen if only else paths(top, ignore, set()):
                tar.add(os.path.join(top, path), path, recursive=False)
        self.send(b"E", number)


class _Sent:
    """A file to write to, whose content goes into a channel."""

    def __init__(self, session: BuildSession, number: int) -> None:
        self._session = session
        self._number = number

    def write(self, data: bytes) -> int:
        for start in range(0, len(data), _PIECE):
            self._session.send(b"D", self._number, bytes(data[start : start + _PIECE]))
        return len(data)


def _fields(text: str, known: "tuple[str, ...]") -> "dict[str, str]":
    import csv

    found = {}
    for word in next(csv.reader([text]), []):
        key, equals, value = word.partition("=")
        key = key.lower()
        if not equals:
            raise Failure(f"invalid field '{word}' must be a key=value pair")
        if key not in known:
            raise Failure(f"unexpected key '{key}' in '{word}'")
        found[key] = value
    return found
