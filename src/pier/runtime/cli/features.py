"""`features`: what this runtime offers, the document of the runtime specification's features.md."""

import json
import sys

from pier.kernel import capabilities, seccomp
from pier.kernel.namespaces import FLAGS
from pier.runtime import mounts
from pier.runtime.cli import flags
from pier.runtime.cli.main import SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.runtime.cli.main import Context

ARCHITECTURES = (
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
)
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def features(context: "Context", words: list[str]) -> int:
    """`features`."""
    flags.parse(words, {})
    json.dump(document(), sys.stdout, indent=4)
    sys.stdout.write("\n")
    return 0


def document() -> "dict[str, Any]":
    """Return the document; the specification's key names."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": _mount_options(),
        "linux": {
            "namespaces": sorted(FLAGS),
            "capabilities": capabilities.names((1 << capabilities.last_cap() + 1) - 1),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": _libseccomp() is not None,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": "idmap" not in _unsupported()}},
            "netDevices": {"enabled": True},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
            **(
                {}
                if _libseccomp() is None
                else {"io.github.seccomp.libseccomp.version": _libseccomp()}
            ),
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _mount_options() -> list[str]:
    found = {"bind", "rbind"}
    for table in (
        mounts.ATTRIBUTES,
        mounts.RECURSIVE_ATTRIBUTES,
        mounts.PROPAGATIONS,
        mounts.RECURSIVE_PROPAGATIONS,
        mounts.SUPERBLOCK_FLAGS,
        mounts.NEGATED_SUPERBLOCK_FLAGS,
    ):
        found.update(table)
    for word in ("idmap", "ridmap", "tmpcopyup"):
        if word not in _unsupported():
            found.add(word)
    return sorted(found)


def _unsupported() -> "frozenset[str]":
    return getattr(mounts, "UNSUPPORTED", frozenset())


def _libseccomp() -> str | None:
    try:
        return ".".join(map(str, seccomp.Library().version()))
    except OSError:
        return None
