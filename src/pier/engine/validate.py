"""A request to create a container, checked in dockerd's words and completed with its defaults.

Order and messages follow moby/moby (daemon/container.go, runconfig/hostconfig_unix.go). What Pier
does not offer yet is refused by name and never ignored.
"""

import posixpath

from pier.engine import (
    capability_set,
    defaults,
    devices,
    foreign_runtimes,
    log_options,
    outside_probe,
    seccomp_profile,
    security_opts,
    sysctls,
    user_mounts,
)
from pier.engine.host_limits import HostLimits, host_limits
from pier.engine.own_options import check_own_options
from pier.engine.settings import Settings
from pier.engine.signals import parse_signal
from pier.engine.validate_network import validate_network
from pier.engine.validate_resources import validate_resources, validate_ulimits
from pier.errors import InvalidParameter, Unsupported
from pier.model.container import ContainerConfig, CreateRequest, HealthConfig, HostConfig
from pier.model.container import RestartPolicy as Policy

_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_MIN_DURATION_NS = 1_000_000
_MAX_HOSTNAME_BYTES = 64


def validate_create(
    request: CreateRequest,
    settings: Settings,
    *,
    limits: HostLimits | None = None,
) -> list[str]:
    """Check `request` and fill in the defaults, in place; returns the warnings for the user.

    Raises InvalidParameter, NotFound, Unsupported.
    """
    host = request.HostConfig
    log_options.settle(host.LogConfig, settings.log_driver, settings.log_opts)
    check_own_options(request, host, limits or host_limits())
    _validate_config(request)
    _validate_modes(host)
    host.Runtime = host.Runtime or settings.default_runtime
    foreign_runtimes.find(host.Runtime, settings)
    warnings = validate_network(request)
    _validate_host(host)
    warnings += validate_resources(host, limits or host_limits())
    _validate_unsupported(host)
    _complete(host, limits or host_limits(), settings)
    return warnings


def validate_restart_policy(policy: Policy) -> None:
    """Raises InvalidParameter."""
    count = policy.MaximumRetryCount
    if policy.Name not in ("", *_POLICIES):
        quoted = "', '".join(_POLICIES[:-1])
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.Name}';"
            f" use one of '{quoted}', or '{_POLICIES[-1]}'"
        )
    if policy.Name == "on-failure":
        if count < 0:
            raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    elif count:
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            + (" and cannot be negative" if count < 0 else "")
        )


def _validate_config(config: ContainerConfig) -> None:
    if config.WorkingDir:
        if not posixpath.isabs(config.WorkingDir):
            raise InvalidParameter(
                f"the working directory '{config.WorkingDir}' is invalid, it needs to be an"
                " absolute path"
            )
        config.WorkingDir = user_mounts.clean(config.WorkingDir)
    if config.StopSignal:
        parse_signal(config.StopSignal)
    for item in config.Env or ():
        if not item or item.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {item}")
    _validate_health(config.Healthcheck)
    for field in ("Hostname", "Domainname"):
        name: str = getattr(config, field)
        # They go into files of lines and words, and sethostname(2) takes 64 bytes.
        if len(name.encode()) > _MAX_HOSTNAME_BYTES or any(c.isspace() or c == "\0" for c in name):
            raise InvalidParameter(f"invalid {field.lower()}: {name!r}")
    for text in (
        config.User,
        config.WorkingDir,
        *(config.Env or ()),
        *(config.Cmd or ()),
        *(config.Entrypoint or ()),
    ):
        if "\0" in text:
            raise InvalidParameter("invalid argument: a null byte cannot be part of a string")


def _validate_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    for field in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        value: int = getattr(health, field)
        if value and value < _MIN_DURATION_NS:
            raise InvalidParameter(f"{field} in Healthcheck cannot be less than 1ms")
    if health.Test[:1] and health.Test[0] in ("HTTP", "TCP", "UNIX"):
        outside_probe.check(health.Test)
    if health.Retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def _validate_modes(host: HostConfig) -> None:
    joined = "container:"
    ipc, pid = host.IpcMode, host.PidMode
    if not (ipc.startswith(joined) and ipc != joined) and ipc not in (
        "",
        "none",
        "private",
        "shareable",
        "host",
    ):
        raise InvalidParameter(f"invalid IPC mode: {ipc}")
    if pid not in ("", "host") and not (pid.startswith(joined) and pid != joined):
        raise InvalidParameter(f"invalid PID mode: {pid}")
    if host.UTSMode not in ("", "host"):
        raise InvalidParameter(f"invalid UTS mode: {host.UTSMode}")
    if host.CgroupnsMode not in ("", "private", "host"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host.CgroupnsMode}")
    if host.UsernsMode not in ("", "host"):
        raise InvalidParameter(f"invalid user namespace mode: {host.UsernsMode}")
    if host.Isolation not in ("", "default"):
        raise InvalidParameter(
            f"invalid isolation ({host.Isolation}): linux only supports 'default'"
        )


def _validate_host(host: HostConfig) -> None:
    if host.AutoRemove and host.RestartPolicy.Name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    user_mounts.parse_all(host, check_sources=True)
    validate_restart_policy(host.RestartPolicy)
    capability_set.normalise(host.CapAdd or (), "CapAdd")
    capability_set.normalise(host.CapDrop or (), "CapDrop")
    if "" in host.Annotations:
        raise InvalidParameter(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    if host.ShmSize < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.OomScoreAdj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host.OomScoreAdj}, range for oom score adj is [-1000, 1000]"
        )
    validate_ulimits(host.Ulimits)
    options = security_opts.parse(host.SecurityOpt)
    if options.seccomp not in ("", "builtin", seccomp_profile.UNCONFINED):
        seccomp_profile.parse(options.seccomp)
    for mapping in host.Devices or ():
        devices.check_mapping(mapping)
    devices.parse_rules(host.DeviceCgroupRules)
    host.Sysctls = sysctls.validate(host)
    log_options.check(host.LogConfig)
    for field in ("MaskedPaths", "ReadonlyPaths"):
        for path in getattr(host, field) or ():
            if not posixpath.isabs(path):
                raise InvalidParameter(f"invalid {field}: {path} is not an absolute path")


def _validate_unsupported(host: HostConfig) -> None:
    for key in host.StorageOpt:
        if key != "size":
            raise InvalidParameter(f"Unknown option {key}")
    if host.Cgroup:
        raise Unsupported(f"cgroup of another container: '{host.Cgroup}' is not supported")


def _complete(host: HostConfig, limits: HostLimits, settings: Settings) -> None:
    """The defaults that inspect shows."""
    if host.PidsLimit is not None and host.PidsLimit <= 0:
        host.PidsLimit = None
    host.ShmSize = host.ShmSize or settings.default_shm_size
    host.IpcMode = host.IpcMode or settings.default_ipc_mode
    host.RestartPolicy.Name = host.RestartPolicy.Name or "no"
    if not host.CgroupnsMode:
        # Private on cgroup v1 too, where dockerd shows all of the host's; not when privileged,
        # since that is how such a container reaches the host's cgroups there.
        host.CgroupnsMode = settings.default_cgroupns_mode or (
            "host" if host.Privileged and not limits.cgroup_v2 else "private"
        )
    if not host.Privileged:
        if host.MaskedPaths is None:
            host.MaskedPaths = list(defaults.masked_paths())
        if host.ReadonlyPaths is None:
            host.ReadonlyPaths = list(defaults.READONLY_PATHS)
