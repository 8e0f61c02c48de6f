"""What BuildKit's API needs of the engine: `buildkit.workshop.Workshop`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pier.build.export.exporter import Exporter
from pier.build.keeping import Kept, Rule
from pier.build.stage import Shop
from pier.buildkit.workshop import CredentialsFor
from pier.engine.networks import Networks
from pier.storage.root import DataRoot

if TYPE_CHECKING:
    from pier.engine.builds import Builds


class EngineWorkshop:
    def __init__(self, builds: "Builds", networks: Networks, root: DataRoot) -> None:
        self._builds = builds
        self._networks = networks
        self.root = root
        self.caches = builds.caches

    def shop(self, credentials: CredentialsFor) -> Shop:
        return self._builds.shop(credentials)

    def exporter(self, name: str) -> Exporter:
        return self._builds.exporters.get(name)

    def host_gateway(self) -> str:
        return next(iter(self._networks.host_gateways()), "")

    def rules(self) -> Sequence[Rule]:
        return self._builds.keeping.rules

    async def usage(self) -> list[Kept]:
        return await self._builds.keeping.usage()

    async def prune(self, rule: Rule) -> list[Kept]:
        gone, _ = await self._builds.keeping.prune(rule)
        return gone

    def tidy(self) -> None:
        self._builds.tidy()
