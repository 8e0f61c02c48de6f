"""What BuildKit's API needs of the engine: `buildkit.workshop.Workshop`."""

from typing import TYPE_CHECKING

from pier.build.export.exporter import Exporter
from pier.build.stage import Shop
from pier.buildkit.trees import Trees
from pier.buildkit.workshop import CacheUse, CredentialsFor
from pier.storage.root import DataRoot

if TYPE_CHECKING:
    from pier.engine.builds import Builds


class EngineWorkshop:
    def __init__(self, builds: "Builds", root: DataRoot, trees: Trees) -> None:
        self._builds = builds
        self._trees = trees
        self.root = root

    def shop(self, credentials: CredentialsFor) -> Shop:
        return self._builds.shop(credentials)

    def exporter(self, name: str) -> Exporter:
        return self._builds.exporters.get(name)

    async def usage(self) -> list[CacheUse]:
        return []

    async def prune(self, *, everything: bool, until: int | None) -> list[CacheUse]:
        return []
