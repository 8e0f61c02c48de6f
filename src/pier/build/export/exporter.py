"""What an exporter is, and what it needs of others.

`Exporters.get(type)` (`exporters.py`) finds one by the name that BuildKit's clients use: `moby` and
`image` (into the store, and pushed), `docker` and `oci` (archives), `local` and `tar` (the files).
The answer's keys are those of BuildKit's exporterResponse: `containerimage.digest`,
`containerimage.config.digest`, `containerimage.descriptor` (base64 of JSON), `image.name`.
"""

from collections.abc import Mapping
from typing import Protocol

from pier.build.progress import Work
from pier.build.result import BuildResult, Order
from pier.build.session import FileWriter
from pier.registry.credentials import ANONYMOUS, Credentials

HUB_KEY = "https://index.docker.io/v1/"


class Receiver(Protocol):
    """The client, as far as exports go: what `ClientSession` has of it."""

    async def send_tree(self, exporter: str, directory: str) -> None: ...
    async def send_file(self, exporter: str, attributes: Mapping[str, str]) -> FileWriter: ...
    async def credentials(self, host: str) -> tuple[str, str]: ...


class Exporter(Protocol):
    async def export(
        self, result: BuildResult, order: Order, receiver: Receiver | None, work: Work
    ) -> dict[str, str]:
        """Make the output, telling `work` of its parts; return the answer's keys.

        Raises PierError, InvalidParameter for attributes that it does not know.
        """
        ...


async def credentials_of(receiver: Receiver | None, domain: str) -> Credentials:
    """Return what the client has for a registry. A secret without a user is a refresh token."""
    if receiver is None:
        return ANONYMOUS
    user, secret = await receiver.credentials(HUB_KEY if domain == "docker.io" else domain)
    if not user:
        return Credentials(identitytoken=secret)
    return Credentials(username=user, password=secret)
