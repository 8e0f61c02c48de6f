"""config.json, held against the OCI runtime specification before anything is done for it.

What the specification calls invalid, and what this runtime or kernel does not support, is an error
(config.md, Valid values); what it does not know is ignored (Extensibility). Texts are runc's where
it has them. For bundles of others, `pier-runtime`'s: the engine makes its own of what it checked.
Raises InvalidParameter, or Unsupported for what is right and not to be had.
"""

import os

from pier.errors import InvalidParameter, Unsupported
from pier.kernel.namespaces import FLAGS
from pier.runtime import hooks, scheduling, sysctls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.runtime.spec import Linux, Process, Spec

PROPAGATIONS = {
    f"{r}{kind}" for r in ("", "r") for kind in ("private", "shared", "slave", "unbindable")
}
DEVICE_TYPES = frozenset("cbup")
RLIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE",
                 "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK")
)  # fmt: skip
SELINUX = "/sys/fs/selinux"
RESCTRL = "/sys/fs/resctrl"


def check(spec: "Spec") -> None:
    """Raise for the first thing in config.json that is wrong."""
    version = spec.get("ociVersion", "")
    if not _is_version_1(version):
        raise InvalidParameter(f"unsupported spec version {version!r}: this is a runtime of 1.x")
    if not spec.get("root", {}).get("path"):
        raise InvalidParameter("root.path is required")
    if "process" not in spec:
        raise InvalidParameter("process property must not be empty")
    linux = spec.get("linux", {})
    kinds = _check_namespaces(linux)
    for field in ("hostname", "domainname"):
        if spec.get(field) and "uts" not in kinds:
            raise InvalidParameter(f"unable to set {field} without a private UTS namespace")
    _check_linux(linux, kinds)
    _check_mounts(spec)
    _check_hooks(spec)
    check_process(spec["process"], linux)


def check_process(process: "Process", linux: "Linux") -> None:
    """Raise for what is wrong with a process: the container's first, or an exec's."""
    if process.get("commandLine"):
        raise Unsupported("process.commandLine is for Windows: use process.args")
    if not process.get("args"):
        raise InvalidParameter("args must not be empty")
    cwd = process.get("cwd", "")
    if not os.path.isabs(cwd):
        raise InvalidParameter("Cwd must be an absolute path")
    seen = set()
    for limit in process.get("rlimits") or ():
        kind = limit["type"]
        if kind not in RLIMITS:
            raise InvalidParameter(f"wrong rlimit value: {kind}")
        if kind in seen:
            raise InvalidParameter(f"rlimit {kind} is given twice")
        if limit["soft"] > limit["hard"]:
            raise InvalidParameter(f"rlimit {kind}: the soft limit is above the hard one")
        seen.add(kind)
    score = process.get("oomScoreAdj") or 0
    if not -1000 <= score <= 1000:
        raise InvalidParameter(f"oomScoreAdj {score} is not between -1000 and 1000")
    _check_label(process.get("selinuxLabel"))
    scheduling.steps(process, linux)
    scheduling.parse_affinity(process)


def _is_version_1(version: str) -> bool:
    """Tell whether it is 1.x.y, perhaps with "-" or "+" and more: semver without `re`, slow to load."""
    major, _, rest = version.partition(".")
    minor, _, patch = rest.partition(".")
    patch = patch.partition("-")[0].partition("+")[0]
    return major == "1" and minor.isdecimal() and patch.isdecimal()


def _check_namespaces(linux: "Linux") -> set[str]:
    kinds: set[str] = set()
    for entry in linux.get("namespaces") or ():
        kind = entry.get("type", "")
        if kind not in FLAGS:
            raise InvalidParameter(f'namespace "{kind}" does not exist')
        if kind in kinds:
            raise InvalidParameter(f'malformed spec file: duplicated ns "{kind}"')
        if entry.get("path") and not os.path.isabs(entry["path"]):
            raise InvalidParameter(f"namespace path {entry['path']!r} is not absolute")
        kinds.add(kind)
    if "user" not in kinds and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise InvalidParameter(
            "user namespace mappings specified, but user namespace isn't enabled in the config"
        )
    if "time" not in kinds and linux.get("timeOffsets"):
        raise InvalidParameter(
            "time namespace offsets specified, but time namespace isn't enabled in the config"
        )
    if "time" in kinds and not os.path.exists("/proc/self/timens_offsets"):
        raise Unsupported("time namespaces aren't enabled in the kernel")
    if unknown := set(linux.get("timeOffsets") or ()) - {"monotonic", "boottime"}:
        raise InvalidParameter(f"unknown clock {min(unknown)!r} in timeOffsets")
    return kinds


def _check_linux(linux: "Linux", kinds: set[str]) -> None:
    if (linux.get("maskedPaths") or linux.get("readonlyPaths")) and "mount" not in kinds:
        raise InvalidParameter("unable to restrict sys entries without a private MNT namespace")
    for path in (*(linux.get("maskedPaths") or ()), *(linux.get("readonlyPaths") or ())):
        if not os.path.isabs(path):
            raise InvalidParameter(f"masked or read-only path {path!r} is not absolute")
    propagation = linux.get("rootfsPropagation", "")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidParameter(f"rootfsPropagation={propagation} is not supported")
    if linux.get("intelRdt") and not os.path.isdir(f"{RESCTRL}/info"):
        raise Unsupported(
            "intelRdt is specified in config, but Intel RDT is not supported or enabled"
        )
    if linux.get("intelRdt"):
        raise Unsupported("intelRdt is not supported")
    if linux.get("netDevices"):
        from pier.runtime import netdevices  # noqa: PLC0415  # rare

        if "network" not in kinds:
            raise InvalidParameter("unable to move network devices without a NET namespace")
        netdevices.check(linux["netDevices"])
    _check_label(linux.get("mountLabel"))
    sysctls.check(linux)
    _check_devices(linux)
    _check_resources(linux)


def _check_devices(linux: "Linux") -> None:
    for device in linux.get("devices") or ():
        if device.get("type") not in DEVICE_TYPES:
            raise InvalidParameter(
                f'invalid type "{device.get("type")}" of device {device.get("path")}'
            )
        if not os.path.isabs(device.get("path", "")):
            raise InvalidParameter(f"device path {device.get('path')!r} is not absolute")


def _check_resources(linux: "Linux") -> None:
    # `Resources` lists what the runtime sets: what else config.json may have there is not kept back.
    resources: dict[str, Any] = dict(linux.get("resources") or {})
    from pier.kernel.cgroups import detect  # noqa: PLC0415  # only where there are resources

    hierarchies = detect()
    network = resources.get("network") or {}
    for controller, wanted in (
        ("net_cls", network.get("classID")),
        ("net_prio", network.get("priorities")),
        ("rdma", resources.get("rdma")),
    ):
        if wanted and hierarchies.home(controller) is None:
            raise Unsupported(f"cgroup controller {controller} is not available on this host")
    if resources.get("unified") and hierarchies.mode != "v2":
        raise InvalidParameter("invalid configuration: cannot use unified on cgroup v1")


def _check_mounts(spec: "Spec") -> None:
    for entry in spec.get("mounts") or ():
        if not entry.get("destination"):
            raise InvalidParameter("mount destination is empty")
        if bool(entry.get("uidMappings")) != bool(entry.get("gidMappings")):
            text = "an idmap mount needs both uidMappings and gidMappings"
            raise InvalidParameter(f"invalid mount {entry['destination']}: {text}")


def _check_hooks(spec: "Spec") -> None:
    for kind, listed in (spec.get("hooks") or {}).items():
        if kind not in hooks.KINDS:
            continue
        for hook in listed or ():  # type: ignore[attr-defined]  # values of a TypedDict are objects
            if not os.path.isabs(hook.get("path", "")):
                raise InvalidParameter(f"{kind} hook path {hook.get('path')!r} is not absolute")
            if hook.get("timeout") is not None and hook["timeout"] <= 0:
                raise InvalidParameter(f"{kind} hook timeout must be greater than zero")


def _check_label(label: str | None) -> None:
    if label and not os.path.isdir(SELINUX):
        raise Unsupported(
            "selinux label is specified in config, but selinux is disabled or not supported"
        )
    if label:
        raise Unsupported("SELinux labels are not supported")
