"""GET /system/df: what takes room on the disk, by kind."""

from collections.abc import Collection

from pier.engine.builds import Builds
from pier.engine.containers import Containers
from pier.engine.images import Images
from pier.engine.services import Services
from pier.engine.volumes import Volumes
from pier.errors import InvalidParameter
from pier.model.api_system import DiskUsage, KindUsage, UsageByKind
from pier.model.filters import Filters

_ALIVE = ("running", "paused", "restarting")
KINDS = ("container", "image", "volume", "build-cache")


class DiskUsages:
    def __init__(
        self,
        services: Services,
        containers: Containers,
        images: Images,
        volumes: Volumes,
        builds: Builds,
    ) -> None:
        self._services = services
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._builds = builds

    async def measure(self, kinds: Collection[str]) -> DiskUsage:
        """Return what the objects of these kinds take, of all when there are none.

        Raises InvalidParameter for an unknown kind.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidParameter(f"unknown object type: {kind}")
        wanted = kinds or KINDS
        answer = DiskUsage()
        if "image" in wanted:
            answer.LayersSize = sum(layer.size for layer in self._services.images.layers.all())
            answer.Images = await self._images.list(all=False, shared_size=True, filters=Filters())
        if "container" in wanted:
            answer.Containers = await self._containers.list(
                all=True, limit=0, size=True, filters=Filters()
            )
        if "volume" in wanted:
            answer.Volumes = (await self._volumes.usage()).Volumes
        if "build-cache" in wanted:
            answer.BuildCache = await self._builds.keeping.records()
        return answer


def usages(measured: DiskUsage, *, verbose: bool) -> UsageByKind:
    """Sum up each kind that was measured; `verbose` keeps the objects themselves.

    What is reclaimable is what a prune of everything would free: for images as the docker command
    reckons it, all but the layers that images in use have for themselves.
    """
    answer = UsageByKind()
    if (images := measured.Images) is not None:
        active = [image for image in images if image.Containers > 0]
        kept = sum(image.Size - max(image.SharedSize, 0) for image in active)
        total = measured.LayersSize
        answer.ImageUsage = KindUsage(len(active), len(images), max(total - kept, 0), total)
    if (containers := measured.Containers) is not None:
        sizes = [(row.State in _ALIVE, row.SizeRw or 0) for row in containers]
        answer.ContainerUsage = _summed(sizes)
    if (volumes := measured.Volumes) is not None:
        used = [
            (v.UsageData.RefCount > 0, max(v.UsageData.Size, 0)) for v in volumes if v.UsageData
        ]
        answer.VolumeUsage = _summed(used)
        answer.VolumeUsage.TotalCount = len(volumes)
    if (cache := measured.BuildCache) is not None:
        answer.BuildCacheUsage = _summed(
            [(row.InUse, 0 if row.Shared else row.Size) for row in cache]
        )
    if verbose:
        for usage, items in (
            (answer.ImageUsage, measured.Images),
            (answer.ContainerUsage, measured.Containers),
            (answer.VolumeUsage, measured.Volumes),
            (answer.BuildCacheUsage, measured.BuildCache),
        ):
            if usage and items:
                usage.Items = items
    return answer


def _summed(sizes: list[tuple[bool, int]]) -> KindUsage:
    """Sum up objects, each whether it is in use and its size."""
    return KindUsage(
        ActiveCount=sum(1 for is_active, _ in sizes if is_active),
        TotalCount=len(sizes),
        Reclaimable=sum(size for is_active, size in sizes if not is_active),
        TotalSize=sum(size for _, size in sizes),
    )
