"""A container's mounts as list and inspect show them."""

from pier.model.api_containers import MountPoint
from pier.model.container import HostConfig

_PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})


def mount_points(host: HostConfig) -> list[MountPoint]:
    """Binds and Mounts, by destination. `--tmpfs` is not among them, as with dockerd."""
    found = [_from_bind(text) for text in host.Binds or []]
    for mount in host.Mounts:
        propagation = mount.BindOptions.Propagation if mount.BindOptions else ""
        is_bind = mount.Type == "bind"
        found.append(
            MountPoint(
                Type=mount.Type,
                Source=mount.Source if is_bind else "",
                Destination=mount.Target,
                Mode="",
                RW=not mount.ReadOnly,
                Propagation=(propagation or "rprivate") if is_bind else "",
            )
        )
    return sorted(found, key=lambda point: point.Destination)


def _from_bind(text: str) -> MountPoint:
    source, _, rest = text.partition(":")
    destination, _, mode = rest.partition(":")
    options = mode.split(",")
    propagation = next((option for option in options if option in _PROPAGATIONS), "rprivate")
    return MountPoint(
        Type="bind",
        Source=source,
        Destination=destination,
        Mode=mode,
        RW="ro" not in options,
        Propagation=propagation,
    )
