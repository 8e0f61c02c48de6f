"""What a build may ask of the client that wants it, while it runs: files, secrets, agents, passwords.

A session is a connection that the client keeps open for as long as its build
(buildkit `docs/dev/request-lifecycle.md`); `buildkit/session.py` speaks it. The classic API has
none: where a build needs one, `need` says so in BuildKit's words.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from pier.build.failures import BuildFailed


class FileWriter(Protocol):
    """A file that the client writes as it comes. Use it in an `async with`: an exception there
    breaks the transfer off, and leaving it waits until the client has it all.
    """

    async def write(self, data: bytes) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...


class ClientSession(Protocol):
    """Everything raises Unavailable when the client has gone, PierError for what it refuses."""

    @property
    def id(self) -> str:
        """Its identity, as the client chose it."""
        ...

    async def secret(self, name: str) -> bytes | None:
        """Return a secret of --secret id=name, None when the client has none of that name."""
        ...

    async def check_ssh(self, name: str) -> None:
        """Raise PierError when there is no agent of that ID ("default" for none said)."""
        ...

    async def ssh(self, name: str) -> socket.socket:
        """Return one more connection to an agent, a socket that does not block; the caller closes it."""
        ...

    async def credentials(self, host: str) -> tuple[str, str]:
        """Return a registry's user and password or token, ("", "") for none.

        `host` is as the client's configuration names it: "https://index.docker.io/v1/" for the Hub.
        """
        ...

    async def local(
        self,
        name: str,
        into: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
    ) -> int:
        """Bring a directory of the client's ("context", "dockerfile", …) into the directory `into`.

        What is in `into` from an earlier call is brought up to date: only what differs travels,
        and what the client does not have any more goes. `include` and `exclude` are patterns as in
        .dockerignore, `follow` names files, whose links are followed; none of it means everything.
        Returns the bytes of files that travelled. Raises PierError, OSError.
        """
        ...

    async def send_tree(self, exporter: str, directory: str) -> None:
        """Copy what is in `directory` to where the client wants the exporter of that ID's result."""
        ...

    async def send_file(self, exporter: str, attributes: Mapping[str, str]) -> FileWriter:
        """Begin a file (an archive) that is the result of the exporter of that ID."""
        ...


def need(session: ClientSession | None, what: str) -> ClientSession:
    """Return the session; raise BuildFailed where there is none for `what` ("secret foo")."""
    if session is None:
        raise BuildFailed(f"{what}: no active sessions")
    return session
