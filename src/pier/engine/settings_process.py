"""The settings of pierd's own process: where it listens, where its files are, what it logs."""

import os
from collections.abc import Callable
from typing import Any

from pier.engine.settings_option import Option
from pier.errors import InvalidParameter

DEFAULT_CONFIG_FILE = "/etc/pier/daemon.json"
DEFAULT_SOCKET = "/run/pier/pier.sock"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

# Without TLS a TCP socket is root for whoever reaches it: dockerd 28 warns and waits; we ask.
_TLS_FILES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}

OPTIONS = (
    Option(
        "cdi-spec-dir",
        "",
        "cdi-spec-dirs",
        "cdi_spec_dirs",
        "list",
        "CDI specification directories to use",
    ),
    Option(
        "config-file", "", "", "", "string", f"Daemon configuration file ({DEFAULT_CONFIG_FILE})"
    ),
    Option(
        "data-root", "", "data-root", "data_root", "string", "Root directory of persistent state"
    ),
    Option("debug", "D", "debug", "debug", "bool", "Enable debug mode"),
    Option(
        "exec-root", "", "exec-root", "exec_root", "string", "Root directory for execution state"
    ),
    Option("group", "G", "group", "group", "string", "Group for the unix socket (docker or pier)"),
    Option("help", "h", "", "", "bool", "Print usage"),
    Option("host", "H", "hosts", "hosts", "list", "Daemon socket(s) to listen on"),
    Option("label", "", "labels", "labels", "list", "Set key=value labels on the daemon"),
    Option(
        *("log-driver", "", "log-driver", "log_driver", "string"),
        "Default driver for container logs",
    ),
    Option("log-format", "", "log-format", "log_format", "string", "text|json"),
    Option("log-opt", "", "log-opts", "log_opts", "map", "Default log driver options"),
    Option("log-level", "l", "log-level", "log_level", "string", "|".join(LOG_LEVELS)),
    Option("pidfile", "p", "pidfile", "pidfile", "string", "Path to use for daemon PID file"),
    Option(
        "plugin-dir",
        "",
        "plugin-dirs",
        "plugin_dirs",
        "list",
        "Directories where volume drivers are found",
    ),
    Option(
        *("network-clean", "", "", "", "bool"),
        "Remove the links, rules and forwarding that networks have left, and exit",
    ),
    Option("validate", "", "", "", "bool", "Validate daemon configuration and exit"),
    Option("version", "v", "", "", "bool", "Print version information and quit"),
)


def settle_tls(clean: dict[str, Any]) -> None:
    """--tlsverify implies --tls, files have default names, and TCP without TLS is to be asked for.

    dockerd 28 announces that it will refuse it as well, unless one of the two is given as false.
    """
    is_said = "tls" in clean or "tlsverify" in clean
    clean["tls"] = bool(clean.get("tls") or clean.get("tlsverify"))
    if clean["tls"]:
        directory = os.environ.get("DOCKER_CERT_PATH") or os.path.dirname(DEFAULT_CONFIG_FILE)
        for field, name in _TLS_FILES.items():
            clean[field] = clean.get(field) or os.path.join(directory, name)
    for host in clean.get("hosts", ()):
        if host.startswith("tcp://") and not is_said:
            raise InvalidParameter(
                f"cannot listen on {host} without TLS: who can connect there is root here; give "
                "--tlsverify with --tlscacert, --tlscert and --tlskey, or --tls=false to allow it"
            )


def _path(value: Any) -> str:
    return os.path.realpath(str(value))


def _log_format(value: Any) -> str:
    if value not in ("text", "json"):
        raise InvalidParameter(f"invalid log format: {value}")
    return str(value)


def _log_level(value: Any) -> str:
    if value not in LOG_LEVELS:
        raise InvalidParameter(f"invalid logging level: {value}")
    return str(value)


def _labels(value: Any) -> tuple[str, ...]:
    for label in value:
        if "=" not in label:
            raise InvalidParameter(f"bad attribute format: {label}")
    return tuple(value)


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(_host(host) for host in value)


def _host(host: str) -> str:
    scheme, has_scheme, address = host.partition("://")
    match scheme if has_scheme else "tcp":
        case "unix":
            path = address or DEFAULT_SOCKET
            return "unix://" + os.path.abspath(path)
        case "fd":
            return host
        case "tcp":
            return _tcp(address if has_scheme else host)
        case _:
            raise InvalidParameter(f"invalid bind address format: {host}")


def _tcp(address: str) -> str:
    name, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in address:
        raise InvalidParameter(f"invalid bind address (tcp://{address}): HOST:PORT is wanted")
    return f"tcp://{name or '0.0.0.0'}:{int(port)}"


CHECKS: dict[str, Callable[[Any], Any]] = {
    "data-root": _path,
    "exec-root": _path,
    "hosts": _hosts,
    "labels": _labels,
    "log-format": _log_format,
    "log-level": _log_level,
    "pidfile": _path,
}
