"""What BuildKit's API needs of the engine, which implements it (`engine/build_workshop.py`)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pier.build.caches.remote import RemoteCaches
from pier.build.export.exporter import Exporter
from pier.build.keeping import Kept, Rule
from pier.build.stage import Shop
from pier.registry.credentials import Credentials
from pier.storage.root import DataRoot

CredentialsFor = Callable[[str], Awaitable[Credentials]]


class Workshop(Protocol):
    @property
    def root(self) -> DataRoot: ...

    @property
    def caches(self) -> RemoteCaches: ...

    def shop(self, credentials: CredentialsFor) -> Shop:
        """Return what a build works with, whose pulls ask for passwords so."""
        ...

    def exporter(self, name: str) -> Exporter:
        """Raises InvalidParameter for a name that is none's."""
        ...

    def host_gateway(self) -> str:
        """Return the address that clients put in the place of `host-gateway`, "" for none."""
        ...

    def rules(self) -> Sequence[Rule]:
        """Return what the garbage collection goes by, one rule after another."""
        ...

    async def usage(self) -> list[Kept]: ...

    async def prune(self, rule: Rule) -> list[Kept]:
        """Throw away what a rule names; return it."""
        ...

    def tidy(self) -> None:
        """Collect garbage beside whatever else is under way, as far as the rules ask for it."""
        ...
