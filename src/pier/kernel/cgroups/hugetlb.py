"""The hugetlb controller: huge pages. admin-guide/cgroup-v1/hugetlb.rst and cgroup-v2.rst."""

import os

from pier.kernel.cgroups.files import OPTIONAL, Setting, read_int, read_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pier.kernel.cgroups.stats import HugetlbStats


def settings_v1(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    return _settings(resources, "limit_in_bytes")


def settings_v2(resources: "Mapping[str, Any]", directory: str) -> list[Setting]:
    return _settings(resources, "max")


def _settings(resources: "Mapping[str, Any]", suffix: str) -> list[Setting]:
    """Limit reservations as well as faults: a reservation past the fault limit ends in SIGBUS."""
    settings: list[Setting] = []
    for entry in resources.get("hugepageLimits") or ():
        size, limit = _page_size(entry["pageSize"]), str(entry["limit"])
        settings.append(((f"hugetlb.{size}.{suffix}", limit),))
        settings.append(((f"hugetlb.{size}.rsvd.{suffix}", limit), OPTIONAL))  # Linux 5.7
    return settings


def _page_size(text: str) -> str:
    """OCI writes sizes as the kernel names its files: "64KB", "2MB", "1GB"."""
    if text[-2:] not in {"KB", "MB", "GB"} or not text[:-2].isdigit():
        raise ValueError(f"invalid huge page size {text!r}")
    return text


def stats_v1(directory: str) -> "dict[str, HugetlbStats]":
    return {
        size: {
            "usage": read_int(f"{directory}/hugetlb.{size}.usage_in_bytes"),
            "max_usage": read_int(f"{directory}/hugetlb.{size}.max_usage_in_bytes"),
            "failcnt": read_int(f"{directory}/hugetlb.{size}.failcnt"),
        }
        for size in _sizes(directory, ".usage_in_bytes")
    }


def stats_v2(directory: str) -> "dict[str, HugetlbStats]":
    return {
        size: {
            "usage": read_int(f"{directory}/hugetlb.{size}.current"),
            "max_usage": 0,
            "failcnt": read_pairs(f"{directory}/hugetlb.{size}.events").get("max", 0),
        }
        for size in _sizes(directory, ".current")
    }


def _sizes(directory: str, suffix: str) -> list[str]:
    names = [n for n in os.listdir(directory) if n.startswith("hugetlb.") and n.endswith(suffix)]
    sizes = [n[len("hugetlb.") : -len(suffix)] for n in names]
    return [s for s in sizes if "." not in s]  # not the .rsvd ones
