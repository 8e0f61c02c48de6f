"""The rdma controller: handles and objects of an RDMA device. cgroup-v1/rdma.rst and cgroup-v2.rst."""

from pier.kernel.cgroups.files import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LIMITS = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))


def settings_v1(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """What is not limited stays as it is; one write a device."""
    settings: list[Setting] = []
    for device, limits in (resources.get("rdma") or {}).items():
        words = [f"{name}={limits[key]}" for key, name in _LIMITS if limits.get(key) is not None]
        if words:
            settings.append((("rdma.max", " ".join((device, *words))),))
    return settings


settings_v2 = settings_v1
