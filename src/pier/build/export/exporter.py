"""What an exporter is, and what it needs of others.

`Exporters.get(type)` (`exporters.py`) finds one by the name that BuildKit's clients use: `moby` and
`image` (into the store, and pushed), `docker` and `oci` (archives), `local` and `tar` (the files).
The answer's keys are those of BuildKit's exporterResponse: `containerimage.digest`,
`containerimage.config.digest`, `containerimage.descriptor` (base64 of JSON), `image.name`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from pier.build.result import BuildResult
from pier.registry.credentials import ANONYMOUS, Credentials


class Order(Struct, frozen=True):
    """One output that was asked for: `id` is the exporter's in the client's session, often ""."""

    type: str
    attributes: Mapping[str, str] = {}
    id: str = ""


class Writer(Protocol):
    """A file on the client's side."""

    async def write(self, data: bytes) -> None:
        """Wait until the client can take it. Raises PierError, ConnectionError."""
        ...

    async def close(self) -> None:
        """Say that it was all of it, and wait until the client has it."""
        ...


class Receiver(Protocol):
    """The client, as far as exports go: what `ClientSession` has of it."""

    async def send_tree(self, id: str, directory: str) -> None:  # noqa: A002 - as sessions call it
        """Send all that is in a directory, which stays as it is."""
        ...

    async def send_file(self, id: str, attributes: Mapping[str, str]) -> Writer:  # noqa: A002
        """Begin a file; `attributes` are the exporter's answer so far."""
        ...

    async def credentials(self, host: str) -> tuple[str, str]:
        """Return user and secret for a registry, "" both for none."""
        ...


class Announcer(Protocol):
    """Hears of the parts of an export: `exporting layers`, `naming to …`, `pushing layers`."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Tell of a part that begins; leaving the block is its end, or its failure."""
        ...


class Exporter(Protocol):
    async def export(
        self,
        result: BuildResult,
        order: Order,
        receiver: Receiver | None,
        announcer: Announcer,
    ) -> dict[str, str]:
        """Make the output; return the answer's keys. Raises PierError, InvalidParameter for
        attributes that it does not know.
        """
        ...


async def credentials_of(receiver: Receiver | None, domain: str) -> Credentials:
    """Return what the client has for a registry. A secret without a user is a refresh token."""
    if receiver is None:
        return ANONYMOUS
    user, secret = await receiver.credentials(domain)
    if not user:
        return Credentials(identitytoken=secret)
    return Credentials(username=user, password=secret)
