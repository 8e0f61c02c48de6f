"""A container's mounts as list and inspect show them."""

from collections.abc import Iterable

from pier.model.api_containers import MountPoint
from pier.model.mounts import DEFAULT_PROPAGATION, MountRecord


def mount_points(mounts: Iterable[MountRecord]) -> list[MountPoint]:
    """All but those of `--tmpfs`, by destination."""
    found = [_shown(mount) for mount in mounts if mount.is_shown]
    return sorted(found, key=lambda point: point.Destination)


def _shown(mount: MountRecord) -> MountPoint:
    point = MountPoint(
        Type=mount.Type,
        Source=mount.Source,
        Destination=mount.Destination,
        Mode=mount.Mode,
        RW=mount.RW,
        Propagation=mount.Propagation,
    )
    if mount.Type == "volume":
        point.Name, point.Driver = mount.Name, mount.Driver
    elif mount.Type == "image":
        point.Name, point.Propagation = mount.Source, DEFAULT_PROPAGATION
    return point
