"""What Pier offers beyond Docker, as annotations: they travel in Docker's API from any client.

    pier.timeout=30s                 a run is stopped after so long
    pier.idle-timeout=10m            … after so long with hardly any CPU time used and no exec
    pier.health-on-failure=restart   none, kill, restart or stop, when it becomes unhealthy
    pier.health-http=:8080/healthz   the health check, made from outside: see `outside_probe`
    pier.health-tcp=5432
    pier.health-unix=/run/app.sock
    pier.restart-delay=1s            the first delay of a restart policy, doubled with every exit
    pier.restart-delay-max=5m        … up to this
    pier.net-rate-in=10mbit          what its interfaces receive and send: see `network.shaping`
    pier.net-rate-out=10mbit
    pier.net-burst=128k
    pier.net-delay=100ms,10ms        later, give or take, and how much is lost
    pier.net-loss=1%
    pier.trace=true                  where the time of its starts goes: see `traces`
    pier.egress=allow=example.com:443    what it reaches outside: see `network.egress`
    pier.cgroup.memory.high=1G       any file of its cgroup (v2)

Annotations, not labels: an image cannot bring them along.
"""

from typing import NamedTuple

from pier.engine.host_limits import HostLimits
from pier.engine.restart import FIRST_DELAY_S, LONGEST_DELAY_S
from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig, HealthConfig, HostConfig
from pier.model.gotime import SECOND, parse_duration
from pier.network import egress, shaping

PREFIX = "pier."
TRACE = "pier.trace"
_CGROUP = "pier.cgroup."
_DURATIONS = ("timeout", "idle-timeout", "restart-delay", "restart-delay-max")
_ON_FAILURE = ("none", "kill", "restart", "stop")
_HEALTH = {"health-http": "HTTP", "health-tcp": "TCP", "health-unix": "UNIX"}
_SHAPING = tuple(key.removeprefix(PREFIX) for key in shaping.KEYS)
_KNOWN = frozenset((*_DURATIONS, *_HEALTH, *_SHAPING, "health-on-failure", "trace", "egress"))


class OwnOptions(NamedTuple):
    """Times in seconds; 0 for those that are not limited."""

    timeout_s: float
    idle_timeout_s: float
    health_on_failure: str
    restart_delay_s: float
    restart_delay_max_s: float
    cgroup: dict[str, str]


def own_options(host: HostConfig) -> OwnOptions:
    """The options of a container. Raises InvalidParameter for a value that makes no sense."""
    given = host.Annotations
    times = {name: _seconds(name, given.get(PREFIX + name, "0")) for name in _DURATIONS}
    first_s = times["restart-delay"] or FIRST_DELAY_S
    return OwnOptions(
        timeout_s=times["timeout"],
        idle_timeout_s=times["idle-timeout"],
        health_on_failure=given.get("pier.health-on-failure", "none"),
        restart_delay_s=first_s,
        restart_delay_max_s=max(times["restart-delay-max"] or LONGEST_DELAY_S, first_s),
        cgroup={
            key.removeprefix(_CGROUP): value
            for key, value in given.items()
            if key.startswith(_CGROUP)
        },
    )


def is_traced(host: HostConfig) -> bool:
    """Whether it is to be written down where the time of the container's starts goes."""
    return host.Annotations.get(TRACE) == "true"


def check_own_options(config: ContainerConfig, host: HostConfig, limits: HostLimits) -> None:
    """Check a new container's, and put a health check from outside where health checks are.

    Raises InvalidParameter, also for a name with our prefix that means nothing.
    """
    for key in host.Annotations:
        name = key.removeprefix(PREFIX)
        if key.startswith(PREFIX) and name not in _KNOWN and not key.startswith(_CGROUP):
            raise InvalidParameter(f"unknown option {key}")
    options = own_options(host)
    if host.Annotations.get(TRACE, "true") not in ("true", "false"):
        raise InvalidParameter(f"invalid {TRACE} '{host.Annotations[TRACE]}': use true or false")
    shaping.parse_shape(host.Annotations)
    egress.parse(host.Annotations.get(egress.OPTION, ""))
    if options.health_on_failure not in _ON_FAILURE:
        raise InvalidParameter(
            f"invalid pier.health-on-failure '{options.health_on_failure}':"
            f" use one of {', '.join(_ON_FAILURE)}"
        )
    if options.health_on_failure == "restart" and host.RestartPolicy.Name not in ("", "no"):
        raise InvalidParameter(
            "conflicting options: pier.health-on-failure=restart and a restart policy"
            " (use kill, and the policy restarts it)"
        )
    for key in options.cgroup:
        if not limits.cgroup_v2:
            raise InvalidParameter(f"pier.cgroup.{key} needs cgroup v2, which this host has not")
        if "/" in key or key.startswith((".", "cgroup.")):
            raise InvalidParameter(f"invalid cgroup file '{key}'")
    _health_from_outside(config, host)


def _health_from_outside(config: ContainerConfig, host: HostConfig) -> None:
    wanted = [(kind, host.Annotations[PREFIX + name]) for name, kind in _HEALTH.items()
              if PREFIX + name in host.Annotations]  # fmt: skip
    if len(wanted) > 1:
        raise InvalidParameter("conflicting options: more than one health check from outside")
    for kind, target in wanted:
        if config.Healthcheck is None:
            config.Healthcheck = HealthConfig()
        config.Healthcheck.Test = [kind, target]


def _seconds(name: str, text: str) -> float:
    try:
        value = parse_duration(text) / SECOND
    except ValueError as exc:
        raise InvalidParameter(f"invalid {PREFIX}{name}: {exc}") from exc
    if value < 0:
        raise InvalidParameter(f"invalid {PREFIX}{name}: {text} is negative")
    return value
