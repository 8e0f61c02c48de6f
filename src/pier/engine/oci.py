"""A container's record made into what the runtime is given: config.json, keeper.json, an exec.

On the start path: constants are shared, not copied, and nothing on the disk is touched but what
the user asked for (binds, devices, block devices). Follows Docker 28.5's spec (moby/moby,
daemon/oci_linux.go and daemon/exec_linux.go).
"""

import functools
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pier.engine import (
    capability_set,
    cdi,
    defaults,
    devices,
    environment,
    log_options,
    mounts,
    resources,
    security_opts,
)
from pier.engine.own_options import own_options
from pier.engine.seccomp_profile import UNCONFINED, SeccompFilters
from pier.engine.security_opts import SecurityOptions
from pier.engine.settings import Settings
from pier.errors import Internal
from pier.model.api_execs import ExecCreateRequest
from pier.model.container import ContainerRecord, HostConfig
from pier.runtime import spec

_APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"
_APPARMOR_PROFILES = "/sys/kernel/security/apparmor/profiles"
_APPARMOR_DEFAULT = "docker-default"
DEFAULT_SETTINGS = Settings()
_ROOT_USER: spec.User = {"uid": 0, "gid": 0}
# Looked up like any other: root may be a member of groups.
_ROOT = "0"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Namespaces of running containers to join, as the engine looked them up.

    `pid`, `ipc` and `network` are paths such as "/proc/<pid>/ns/net"; `hostname` is the name of
    the container whose network is joined, which is then the joining one's name as well.
    """

    pid: str | None = None
    ipc: str | None = None
    network: str | None = None
    hostname: str = ""


def build_spec(
    record: ContainerRecord,
    *,
    exec_root: str,
    data_root: str,
    filters: SeccompFilters,
    sandbox: Sandbox,
    cdi_spec_dirs: Sequence[str] = (),
    settings: Settings = DEFAULT_SETTINGS,
) -> tuple[spec.Spec, spec.KeeperConfig]:
    """Return config.json and keeper.json for a container whose settings were validated.

    The user's name is looked up later, in the container's own files (`KeeperConfig.user`). Raises
    InvalidParameter or Unsupported for what has gone since then: a device, the source of a bind.
    """
    host, config = record.HostConfig, record.Config
    options = security_options(host, settings)
    caps = capability_set.resolve(host.CapAdd, host.CapDrop, privileged=host.Privileged)
    directory = f"{data_root}/containers/{record.Id}"
    name = sandbox.hostname or config.Hostname or record.Id[:12]
    cgroup = cgroup_path(host.CgroupParent or settings.cgroup_parent, record.Id)
    nodes, rules = devices.build(host)
    limits = resources.build(host)
    limits["devices"] = rules
    if unified := own_options(host).cgroup:
        limits["unified"] = unified
    mount_list, propagation = mounts.build(
        host,
        record.mounts,
        directory=directory,
        files_directory=_files_directory(host, data_root, directory),
        data_root=data_root,
        writable_cgroups=options.writable_cgroups,
        shm=_shm(host, sandbox),
    )
    linux: spec.Linux = {
        "namespaces": _namespaces(host, sandbox),
        "cgroupsPath": cgroup,
        "resources": limits,
        "devices": nodes,
        "sysctl": _sysctls(host),
        "maskedPaths": [] if host.Privileged else _paths(host.MaskedPaths, defaults.masked_paths()),
        "readonlyPaths": []
        if host.Privileged
        else _paths(host.ReadonlyPaths, defaults.READONLY_PATHS),
    }
    if propagation:
        linux["rootfsPropagation"] = propagation
    built: spec.Spec = {
        "ociVersion": defaults.OCI_VERSION,
        "process": _process(record, name, caps, options, settings.default_ulimits),
        "root": {"path": "rootfs", "readonly": host.ReadonlyRootfs},
        "mounts": mount_list,
        "annotations": host.Annotations,
        "linux": linux,
    }
    if host.UTSMode != "host":
        built["hostname"] = name
        if config.Domainname:
            built["domainname"] = config.Domainname
    keeper: spec.KeeperConfig = {
        "id": record.Id,
        "overlay": {
            "base": data_root,
            "lower": [
                *(f"points/{point}" for point in reversed(record.frozen)),
                *(f"layers/{_hex(layer)}/diff" for layer in reversed(record.layers)),
            ],
            "upper": f"containers/{record.Id}/upper",
            "work": f"containers/{record.Id}/work",
            # A step's files are synced with the layer that they become, not at each step's end.
            "volatile": host.AutoRemove or record.for_build,
        },
        "cgroup": cgroup,
        "user": config.User or _ROOT,
        "groups": host.GroupAdd or [],
        "stdin_open": config.OpenStdin,
        "stdin_once": config.StdinOnce,
        "log": log_options.build(record, f"{directory}/{record.Id}-json.log"),
        "seccomp_bpf": filters.path_for(seccomp_choice(host, options), caps),
        "init": (settings.init if host.Init is None else host.Init) and host.PidMode == "",
    }
    if host.DeviceRequests:
        keeper["groups"] = [*keeper["groups"], *_requested(host, built, cdi_spec_dirs)]
    return built, keeper


def build_exec(
    record: ContainerRecord,
    request: ExecCreateRequest,
    *,
    filters: SeccompFilters,
    settings: Settings = DEFAULT_SETTINGS,
) -> spec.ExecConfig:
    """Return what a further process of a running container is given.

    It has the container's limits, rights and filter; with `Privileged` all capabilities, still
    under the container's filter, as with Docker. Raises as `build_spec` does.
    """
    host, config = record.HostConfig, record.Config
    options = security_options(host, settings)
    caps = capability_set.resolve(host.CapAdd, host.CapDrop, privileged=host.Privileged)
    name = config.Hostname or record.Id[:12]
    process = _process(
        record,
        name,
        capability_set.available() if request.Privileged else caps,
        options,
        settings.default_ulimits,
        privileged=request.Privileged,
    )
    process["args"] = list(request.Cmd or ())
    process["cwd"] = request.WorkingDir or config.WorkingDir or "/"
    env = environment.container_env(name, config.Env, tty=request.Tty)
    process["env"] = environment.replace_or_append(env, request.Env or ())
    process["terminal"] = request.Tty
    process.pop("consoleSize", None)
    if request.Tty and request.ConsoleSize:
        height, width = request.ConsoleSize
        process["consoleSize"] = {"height": height, "width": width}
    return {
        "process": process,
        "user": request.User or config.User or _ROOT,
        "groups": host.GroupAdd or [],
        "stdin_open": request.AttachStdin,
        "seccomp_bpf": filters.path_for(seccomp_choice(host, options), caps),
    }


def _requested(host: HostConfig, built: spec.Spec, cdi_spec_dirs: Sequence[str]) -> list[str]:
    """Add what the device requests name; returns further groups. Raises Internal, as dockerd."""
    groups: list[str] = []
    for request in host.DeviceRequests or ():
        if request.Driver != "cdi":
            wanted = " ".join(f"[{' '.join(group)}]" for group in request.Capabilities or ())
            raise Internal(
                f'could not select device driver "{request.Driver}" with capabilities: [{wanted}]'
            )
        groups += cdi.inject(built, request.DeviceIDs or (), cdi_spec_dirs)
    return groups


def security_options(host: HostConfig, settings: Settings) -> SecurityOptions:
    """The container's options, and the daemon's where it has none of its own."""
    options = security_opts.parse(host.SecurityOpt)
    if settings.seccomp_profile and not options.seccomp and not host.Privileged:
        options = options._replace(seccomp=settings.seccomp_profile)
    named = any(option.startswith("no-new-privileges") for option in host.SecurityOpt or ())
    if settings.no_new_privileges and not named:
        options = options._replace(no_new_privileges=True)
    return options


def cgroup_path(parent: str, container_id: str) -> str:
    """The container's cgroup below every hierarchy: "<parent>/<id>", never above the root."""
    if not parent:
        return f"{defaults.CGROUP_PARENT}/{container_id}"
    return posixpath.normpath(f"/{parent.lstrip('/')}/{container_id}")


def _process(
    record: ContainerRecord,
    hostname: str,
    caps: tuple[str, ...],
    options: SecurityOptions,
    ulimits: Mapping[str, tuple[int, int]],
    *,
    privileged: bool = False,
) -> spec.Process:
    host, config = record.HostConfig, record.Config
    names = list(caps)
    process: spec.Process = {
        "terminal": config.Tty,
        "user": _ROOT_USER,
        "args": [record.Path, *record.Args],
        "env": environment.container_env(hostname, config.Env, tty=config.Tty),
        "cwd": config.WorkingDir or "/",
        # No inheritable ones: CVE-2022-24769.
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "rlimits": resources.rlimits(host.Ulimits, ulimits),
        "noNewPrivileges": options.no_new_privileges,
        "oomScoreAdj": host.OomScoreAdj,
    }
    if config.Tty and any(host.ConsoleSize):
        height, width = host.ConsoleSize
        process["consoleSize"] = {"height": height, "width": width}
    profile = _apparmor(options.apparmor, privileged=privileged or host.Privileged)
    if profile:
        process["apparmorProfile"] = profile
    return process


def _namespaces(host: HostConfig, sandbox: Sandbox) -> list[spec.Namespace]:
    namespaces: list[spec.Namespace] = [{"type": "mount"}]
    for kind, mode, path in (
        ("network", host.NetworkMode, sandbox.network),
        ("pid", host.PidMode, sandbox.pid),
        ("ipc", host.IpcMode, sandbox.ipc),
    ):
        if path:
            namespaces.append({"type": kind, "path": path})
        elif mode != "host":
            namespaces.append({"type": kind})
    if host.UTSMode != "host":
        namespaces.append({"type": "uts"})
    if host.CgroupnsMode != "host":
        namespaces.append({"type": "cgroup"})
    return namespaces


def _shm(host: HostConfig, sandbox: Sandbox) -> spec.Mount | None:
    """/dev/shm goes with the IPC namespace: one's own, the host's, the other container's, none."""
    if host.IpcMode == "none":
        return None
    if host.IpcMode == "host":
        return defaults.mount("/dev/shm", "bind", "/dev/shm", "rbind", "rprivate")
    if sandbox.ipc:
        shared = defaults.mount("/dev/shm", "bind", "/dev/shm", "rbind", "rprivate")
        return {**shared, "mountNamespace": f"{sandbox.ipc.removesuffix('ipc')}mnt"}
    return defaults.shm(host.ShmSize or defaults.SHM_SIZE)


def _sysctls(host: HostConfig) -> dict[str, str]:
    private = host.NetworkMode != "host" and not host.NetworkMode.startswith("container:")
    sysctls = dict(defaults.network_sysctls()) if private else {}
    sysctls.update(host.Sysctls)
    return sysctls


def _paths(wanted: list[str] | None, default: tuple[str, ...]) -> list[str]:
    """None is the default; an empty list is none (--security-opt systempaths=unconfined)."""
    return list(default) if wanted is None else wanted


def _files_directory(host: HostConfig, data_root: str, own: str) -> str:
    """Where hosts, hostname and resolv.conf are: with the container whose network it is."""
    joined = host.NetworkMode.removeprefix("container:")
    return f"{data_root}/containers/{joined}" if joined != host.NetworkMode else own


def seccomp_choice(host: HostConfig, options: SecurityOptions) -> str:
    """The profile's name or text: a privileged container has no filter unless one was named."""
    if host.Privileged and not options.seccomp:
        return UNCONFINED
    return options.seccomp


def _apparmor(wanted: str, *, privileged: bool) -> str:
    """The AppArmor profile to change to; "" on a host without AppArmor, whatever was wanted.

    Docker's default profile is used where something loaded it; Pier loads none.
    """
    loaded = _apparmor_profiles()
    if loaded is None:
        return ""
    if wanted:
        return wanted
    if privileged:
        return UNCONFINED
    return _APPARMOR_DEFAULT if _APPARMOR_DEFAULT in loaded else ""


@functools.cache
def _apparmor_profiles() -> frozenset[str] | None:
    try:
        with open(_APPARMOR_ENABLED, encoding="ascii") as file:
            if not file.read().startswith("Y"):
                return None
        with open(_APPARMOR_PROFILES, encoding="utf-8") as file:
            return frozenset(line.partition(" (")[0] for line in file)
    except OSError:
        return None


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
