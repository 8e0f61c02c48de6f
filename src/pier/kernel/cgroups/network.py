"""net_cls and net_prio: what packets of a cgroup are marked with. admin-guide/cgroup-v1/net_cls.rst
and net_prio.rst. There is no such controller on cgroup v2, where rules match the cgroup itself.
"""

from pier.kernel.cgroups.files import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class NetCls:
    """linux.resources.network.classID, 0xAAAABBBB for tc(8)'s AAAA:BBBB."""

    @staticmethod
    def settings_v1(resources: "Mapping[str, Any]", _directory: str) -> list[Setting]:
        number = (resources.get("network") or {}).get("classID")
        return [(("net_cls.classid", str(number)),)] if number else []

    settings_v2 = settings_v1


class NetPrio:
    """linux.resources.network.priorities: an interface and its priority each."""

    @staticmethod
    def settings_v1(resources: "Mapping[str, Any]", _directory: str) -> list[Setting]:
        listed = (resources.get("network") or {}).get("priorities") or ()
        return [(("net_prio.ifpriomap", f"{p['name']} {p['priority']}"),) for p in listed]

    settings_v2 = settings_v1
