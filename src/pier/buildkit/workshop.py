"""What BuildKit's API needs of the engine, which implements it (`engine/build_workshop.py`)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from pier.build.export.exporter import Exporter
from pier.build.stage import Shop
from pier.registry.credentials import Credentials
from pier.storage.root import DataRoot

CredentialsFor = Callable[[str], Awaitable[Credentials]]


class CacheUse(Struct, frozen=True):
    """One record of what builds keep, as `buildx du` lists it. Times are ns since the epoch.

    `kind` is BuildKit's: "regular", "source.local", "exec.cachemount".
    """

    id: str
    description: str
    kind: str
    size: int
    created_at: int
    used_at: int
    uses: int
    in_use: bool = False
    shared: bool = False
    parents: Sequence[str] = ()


class Workshop(Protocol):
    @property
    def root(self) -> DataRoot: ...

    def shop(self, credentials: CredentialsFor) -> Shop:
        """Return what a build works with, whose pulls ask for passwords so."""
        ...

    def exporter(self, name: str) -> Exporter:
        """Raises InvalidParameter for a name that is none's."""
        ...

    async def usage(self) -> list[CacheUse]: ...

    async def prune(self, *, everything: bool, until: int | None) -> list[CacheUse]:
        """Forget what nobody uses, with `until` what was not used since (ns since the epoch)."""
        ...
