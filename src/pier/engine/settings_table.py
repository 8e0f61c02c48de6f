"""Every option there is, in one table: Pier's, those with one accepted value, those yet to come.

An option of dockerd that Pier does not have yet is refused by name, unless it asks for what Pier
does anyway.
"""

from collections.abc import Callable
from typing import Any

from pier.engine import (
    settings_daemon,
    settings_defaults,
    settings_network,
    settings_process,
    settings_registry,
    settings_runtimes,
)
from pier.engine.settings_option import Option, Value

_TOPICS = (
    settings_daemon,
    settings_defaults,
    settings_network,
    settings_process,
    settings_registry,
    settings_runtimes,
)
OPTIONS: tuple[Option, ...] = tuple(
    sorted((option for topic in _TOPICS for option in topic.OPTIONS), key=lambda o: o.flag or o.key)
)
BY_FLAG = {option.flag: option for option in OPTIONS if option.flag}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}
BY_KEY = {option.key: option for option in OPTIONS if option.key}
# What makes a value of Settings out of one given, by key.
CHECKS: dict[str, Callable[[Any], Any]] = {
    key: check for topic in _TOPICS for key, check in topic.CHECKS.items()
}

# What dockerd can be told and Pier does in one way only: that value is accepted, others are not.
FIXED: dict[str, tuple[Value, ...]] = {
    "experimental": (False,),
    "ip6tables": (True,),
    "live-restore": (True,),
    "raw-logs": (False,),
    "selinux-enabled": (False,),
    "storage-driver": ("overlay2", "overlayfs"),
}

# The rest of dockerd's options: known, and refused by name rather than as misspelt.
NOT_YET = frozenset(
    """
    api-cors-header authorization-plugin authorization-plugins
    containerd containerd-namespace containerd-plugin-namespace
    containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd
    firewall-backend init-path min-api-version
    network-control-plane-mtu network-diagnostic-port node-generic-resource
    node-generic-resources nri-opts oom-score-adjust resolv-conf rootless
    swarm-default-advertise-addr swarm-raft-election-tick
    swarm-raft-heartbeat-tick userland-proxy-path userns-remap
    """.split()  # noqa: SIM905 - ninety quoted words would bury the table
)
