"""The pids controller: how many processes and threads. admin-guide/cgroup-v1/pids.rst."""

from pier.kernel.cgroups.files import Setting, read_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pier.kernel.cgroups.stats import PidsStats


def settings_v1(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    """A negative limit is unlimited; 0 is not asked for, as with runc."""
    limit = (resources.get("pids") or {}).get("limit")
    return [(("pids.max", str(limit) if limit > 0 else "max"),)] if limit else []


settings_v2 = settings_v1


def stats_v1(directory: str) -> "PidsStats":
    return {
        "current": read_int(f"{directory}/pids.current"),
        "limit": read_int(f"{directory}/pids.max"),
    }


stats_v2 = stats_v1
