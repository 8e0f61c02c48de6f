"""The exporters there are, by the names that clients know."""

from collections.abc import Callable
from concurrent.futures import Executor

from pier.build.attest.predicates import Attester
from pier.build.export.archives import ArchiveExporter
from pier.build.export.compose import Composer
from pier.build.export.exporter import Exporter
from pier.build.export.files import FilesExporter
from pier.build.export.image import ImageExporter
from pier.build.export.layers import LayerExports
from pier.errors import InvalidParameter
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.reference import Reference
from pier.registry.push_contents import ContentPusher


class Exporters:
    """`named` hears of each name that an image got."""

    def __init__(
        self,
        store: ImageStore,
        layers: LayerExports,
        pusher: ContentPusher,
        executor: Executor,
        named: Callable[[Image, Reference], None],
    ) -> None:
        attester = Attester(store, executor)
        composer = Composer(store, layers, executor)
        image = ImageExporter(store, composer, attester, pusher, executor, named)
        self._known: dict[str, Exporter] = {
            "image": image,
            "moby": image,
            "oci": ArchiveExporter(store, composer, attester, executor, docker=False),
            "docker": ArchiveExporter(store, composer, attester, executor, docker=True),
            "local": FilesExporter(store, attester, executor, tar=False),
            "tar": FilesExporter(store, attester, executor, tar=True),
        }

    def get(self, name: str) -> Exporter:
        """Raises InvalidParameter."""
        found = self._known.get(name)
        if found is None:
            raise InvalidParameter(f'exporter "{name}" could not be found')
        return found
