"""The settings of the daemon itself and of what containers get by default, checked.

dockerd's flags and keys. What containers get by default is not written into their records: like
dockerd's, a changed default counts from the next start on.
"""

import os
from collections.abc import Callable
from typing import Any

from pier.engine.log_values import parse_binary
from pier.engine.seccomp_profile import UNCONFINED
from pier.engine.seccomp_profile import parse as parse_profile
from pier.engine.settings_option import Option
from pier.engine.validate_resources import validate_ulimits
from pier.errors import InvalidParameter
from pier.model.container import Ulimit

OPTIONS = (
    Option(
        *("cgroup-parent", "", "cgroup-parent", "cgroup_parent", "string"),
        "Set parent cgroup for all containers",
    ),
    Option(
        *("default-cgroupns-mode", "", "default-cgroupns-mode", "default_cgroupns_mode", "string"),
        'Default mode for containers cgroup namespace ("host" | "private")',
    ),
    Option(
        *("default-ipc-mode", "", "default-ipc-mode", "default_ipc_mode", "string"),
        'Default mode for containers ipc ("shareable" | "private")',
    ),
    Option(
        *("default-shm-size", "", "default-shm-size", "default_shm_size", "string"),
        "Default shm size for containers (64MiB)",
    ),
    Option(
        *("default-ulimit", "", "default-ulimits", "default_ulimits", "ulimits"),
        "Default ulimits for containers (NAME=SOFT[:HARD])",
    ),
    Option("init", "", "init", "init", "bool", "Run an init in the container to forward signals"),
    Option(
        *("metrics-addr", "", "metrics-addr", "metrics_addr", "string"),
        "Set address and port to serve the metrics api on",
    ),
    Option(
        *("no-new-privileges", "", "no-new-privileges", "no_new_privileges", "bool"),
        "Set no-new-privileges by default for new containers",
    ),
    Option(
        *("seccomp-profile", "", "seccomp-profile", "seccomp_profile", "string"),
        'Path to seccomp profile, "unconfined" or "builtin"',
    ),
    Option(
        *("trace-dir", "", "trace-dir", "trace_dir", "string"),
        "Write where the time of every start went to this directory (ID.json)",
    ),
    Option(
        *("shutdown-timeout", "", "shutdown-timeout", "shutdown_timeout", "number"),
        "Not waited for: containers go on when pierd ends",
    ),
    Option("tls", "", "tls", "tls", "bool", "Use TLS; implied by --tlsverify"),
    Option(
        *("tlscacert", "", "tlscacert", "tlscacert", "string"),
        "Trust certs signed only by this CA (/etc/pier/ca.pem)",
    ),
    Option(
        *("tlscert", "", "tlscert", "tlscert", "string"),
        "Path to TLS certificate file (/etc/pier/cert.pem)",
    ),
    Option(
        *("tlskey", "", "tlskey", "tlskey", "string"),
        "Path to TLS key file (/etc/pier/key.pem)",
    ),
    Option("tlsverify", "", "tlsverify", "tlsverify", "bool", "Use TLS and verify the remote"),
)


def _cgroupns_mode(value: Any) -> str:
    if value not in ("host", "private"):
        raise InvalidParameter(
            f'invalid default cgroup namespace ({value}): use "host" or "private"'
        )
    return str(value)


def _ipc_mode(value: Any) -> str:
    if value in ("private", "shareable"):
        return str(value)
    hint = 'use "shareable" or "private"'
    if value in ("host", "none") or str(value).startswith("container:"):
        raise InvalidParameter(f'IPC mode "{value}" is not supported as default value; {hint}')
    raise InvalidParameter(f"default IPC mode setting ({value}) is invalid; {hint}")


def _shm_size(value: Any) -> int:
    return parse_binary(str(value))


def _ulimits(value: Any) -> dict[str, tuple[int, int]]:
    """Soft and hard limits by name, from flags ("nofile=1024:2048") or the file's objects."""
    found = [_ulimit(text) for text in value] if isinstance(value, list) else _objects(value)
    validate_ulimits(found)
    return {item.Name: (item.Soft, item.Hard) for item in found}


def _ulimit(text: str) -> Ulimit:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return Ulimit(Name=name, Soft=int(soft), Hard=int(hard or soft))
    except ValueError:
        raise InvalidParameter(f"invalid ulimit argument: {text}") from None


def _objects(value: dict[str, Any]) -> list[Ulimit]:
    found = []
    for name, item in value.items():
        if not isinstance(item, dict) or not {"Soft", "Hard"} <= item.keys():
            raise InvalidParameter(f"invalid ulimit argument: {name}: {item}")
        found.append(Ulimit(Name=name, Soft=int(item["Soft"]), Hard=int(item["Hard"])))
    return found


def _seccomp_profile(value: Any) -> str:
    """Return "" for the built-in one; of a file the text, since it may be gone later."""
    if value in ("", "builtin"):
        return ""
    if value == UNCONFINED:
        return UNCONFINED
    try:
        with open(str(value), encoding="utf-8") as file:
            text = file.read()
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise InvalidParameter(f"opening seccomp profile ({value}) failed: {reason}") from None
    parse_profile(text)
    return text


def _seconds(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidParameter(f"invalid shutdown timeout: {value}") from None


def _file(value: Any) -> str:
    return os.path.abspath(str(value))


CHECKS: dict[str, Callable[[Any], Any]] = {
    "default-cgroupns-mode": _cgroupns_mode,
    "default-ipc-mode": _ipc_mode,
    "default-shm-size": _shm_size,
    "default-ulimits": _ulimits,
    "seccomp-profile": _seccomp_profile,
    "shutdown-timeout": _seconds,
    "tlscacert": _file,
    "tlscert": _file,
    "tlskey": _file,
}
