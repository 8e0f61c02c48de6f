"""`ssh://[user@]host[:port][/socket]`: the engine of another machine, through ssh(1).

Each connection is an ssh of its own that runs `pier system dial-stdio` over there, or docker's where
there is no pier; its stdin and stdout are the connection. What ssh has to say goes to our stderr.
"""

import _socket
import os

from pier.cli.errors import Failure, NoEngine
from pier.cli.http import Client, Connection

_CONNECT_TIMEOUT_S = 30


class Target:
    """Where an ssh:// address leads. Raises Failure, in Docker's words, for one that is no good."""

    def __init__(self, url: str) -> None:
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Failure(f"invalid SSH URL {url!r}: {error}") from None
        if not parts.hostname:
            raise Failure(f"invalid SSH URL {url!r}: no host specified")
        if parts.password is not None:
            raise Failure("invalid SSH URL: plain-text password is not supported")
        if parts.query:
            raise Failure(f"invalid SSH URL: query parameters are not allowed: {parts.query!r}")
        if parts.fragment:
            raise Failure(f"invalid SSH URL: fragments are not allowed: {parts.fragment!r}")
        self.url = url
        self._user = parts.username or ""
        self._port = port
        self._host = parts.hostname
        self._path = "" if parts.path == "/" else parts.path

    def command(self) -> "list[str]":
        """The ssh that joins its stdin and stdout to the engine."""
        command = ["ssh", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}", "-T"]
        if self._user:
            command += ["-l", self._user]
        if self._port:
            command += ["-p", str(self._port)]
        # "--" so that no host can be taken for an option: CVE-2019-13139's kind.
        return [*command, "--", self._host, f"sh -c {_quoted(self._remote())}"]

    def _remote(self) -> str:
        host = f" --host {_quoted('unix://' + self._path)}" if self._path else ""
        return (
            f"if command -v pier >/dev/null 2>&1; then exec pier{host} system dial-stdio; "
            f"else exec docker{host} system dial-stdio; fi"
        )


class SshClient(Client):
    """A client of the engine at the other end of ssh."""

    def __init__(self, target: Target, api_version: str) -> None:
        super().__init__("", target.url, api_version)
        self._target = target

    def _another(self) -> "SshClient":
        return SshClient(self._target, self.api_version)

    def dial(self) -> Connection:
        """Start an ssh. Raises NoEngine when there is none; that it fails is seen when reading."""
        ours, theirs = _socket.socketpair()
        try:
            command = self._target.command()
            actions = [
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1),
            ]
            # In a session of its own, so that Ctrl-C is ours to handle.
            os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)
        except OSError as error:
            ours.close()
            raise NoEngine(f"cannot run ssh: {error.strerror}") from None
        finally:
            theirs.close()
        return Connection(ours)


def _quoted(text: str) -> str:
    """The text as one word of a POSIX shell."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
