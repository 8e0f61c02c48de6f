"""What BuildKit's API needs of the engine: `buildkit.workshop.Workshop`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pier.build.export.exporter import Exporter, Receiver
from pier.build.export.image import CONFIG_DIGEST
from pier.build.keeping import Kept, Rule
from pier.build.progress import Work
from pier.build.result import BuildResult, Order
from pier.build.stage import Shop
from pier.buildkit.workshop import CredentialsFor
from pier.engine.networks import Networks
from pier.images.store import ImageStore

if TYPE_CHECKING:
    from pier.engine.builds import Builds


class _Telling:
    """An exporter of images that tells of what it has kept."""

    def __init__(self, exporter: Exporter, builds: "Builds", store: ImageStore) -> None:
        self._exporter = exporter
        self._builds = builds
        self._store = store

    async def export(
        self, result: BuildResult, order: Order, receiver: Receiver | None, work: Work
    ) -> dict[str, str]:
        answer = await self._exporter.export(result, order, receiver, work)
        identifier = answer.get(CONFIG_DIGEST, "")
        if identifier in self._store:  # it may have gone to a registry alone
            self._builds.created(self._store.get(identifier))
        return answer


class EngineWorkshop:
    def __init__(self, builds: "Builds", networks: Networks, store: ImageStore) -> None:
        self._builds = builds
        self._store = store
        self._networks = networks
        self.root = store.root
        self.caches = builds.caches

    def shop(self, credentials: CredentialsFor) -> Shop:
        return self._builds.shop(credentials)

    def exporter(self, name: str) -> Exporter:
        exporter = self._builds.exporters.get(name)
        if name in ("image", "moby"):
            return _Telling(exporter, self._builds, self._store)
        return exporter

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
