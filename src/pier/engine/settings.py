"""What pierd is told: dockerd's flags, and the same in a file (dockerd(8), daemon.json).

One table says each option's flag, its key in the file and its kind. An option of dockerd that Pier
does not have yet is refused by name, unless it asks for what Pier does anyway.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pier.engine import defaults, log_options, settings_daemon, settings_network, settings_runtimes
from pier.engine.settings_builder import BuilderSettings, parse_builder
from pier.engine.settings_option import Option
from pier.engine.settings_runtimes import RuntimeEntry
from pier.errors import InvalidParameter, Unsupported
from pier.model.container import LogConfig
from pier.registry.endpoints import (
    RegistryEntry,
    RegistrySettings,
    parse_entries,
    parse_insecure,
    parse_mirror,
)

DEFAULT_CONFIG_FILE = "/etc/pier/daemon.json"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

Value = bool | str | int | list[str] | dict[str, Any]
# Without TLS a TCP socket is root for whoever reaches it: dockerd 28 warns and waits; we ask.
_TLS_FILES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}


class Settings(Struct, frozen=True):
    """How this engine runs; paths are absolute. `group` "" leaves the sockets' group to pierd."""

    hosts: tuple[str, ...] = ("unix:///run/pier/pier.sock",)
    data_root: str = "/var/lib/pier"
    exec_root: str = "/run/pier"
    pidfile: str = "/run/pier/pierd.pid"
    group: str = ""
    debug: bool = False
    log_driver: str = defaults.LOG_DRIVER
    log_format: str = "text"
    log_level: str = "info"
    log_opts: dict[str, str] = {}
    labels: tuple[str, ...] = ()
    shutdown_timeout: int = 15
    metrics_addr: str = ""
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    # What a container gets that does not say: see `settings_daemon`.
    cgroup_parent: str = ""
    default_cgroupns_mode: str = ""
    default_ipc_mode: str = "private"
    default_shm_size: int = defaults.SHM_SIZE
    default_ulimits: dict[str, tuple[int, int]] = {}
    init: bool = False
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    trace_dir: str = ""
    plugin_dirs: tuple[str, ...] = (
        "/run/docker/plugins",
        "/etc/docker/plugins",
        "/usr/lib/docker/plugins",
    )
    # The engine's images, to be pulled by others: see registry/server/engine_shelf.py.
    registry_listen: tuple[str, ...] = ()
    registry_htpasswd: str = ""
    registry_tls_cert: str = ""
    registry_tls_key: str = ""
    runtimes: dict[str, RuntimeEntry] = {}
    default_runtime: str = settings_runtimes.OWN
    bridge: str = ""
    bip: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_address_pools: tuple[tuple[str, int], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    host_gateway_ips: tuple[str, ...] = ()
    icc: bool = True
    ip: str = ""
    ip_forward: bool = True
    ip_forward_no_drop: bool = False
    ip_masq: bool = True
    iptables: bool = True
    ipv6: bool = False
    mtu: int = 0
    publish_before_firewall: bool = False
    userland_proxy: bool = True
    image_budget: int = 0
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registries: dict[str, RegistryEntry] = {}
    builder: BuilderSettings = BuilderSettings()
    registry_certificates: str = "/etc/docker/certs.d"
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5

    def registry_settings(self) -> RegistrySettings:
        """Return what they say of registries."""
        return RegistrySettings(
            mirrors=self.registry_mirrors,
            insecure=self.insecure_registries,
            registries=self.registries,
            certificates=self.registry_certificates,
            max_downloads=self.max_concurrent_downloads,
            max_uploads=self.max_concurrent_uploads,
            max_attempts=self.max_download_attempts,
        )


class Invocation(Struct, frozen=True):
    """A parsed command line: what to do, and with which settings."""

    action: Literal["run", "help", "version", "validate", "network-clean"]
    settings: Settings


OPTIONS = (
    *settings_daemon.OPTIONS,
    Option(
        *("add-runtime", "", "runtimes", "runtimes", "runtime"),
        "Register an additional OCI runtime (NAME=PATH)",
    ),
    Option("bip", "", "bip", "bip", "string", "IPv4 address of the default bridge (CIDR)"),
    Option("bridge", "b", "bridge", "bridge", "string", 'Default bridge network, or "none"'),
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
    Option(
        "default-address-pool",
        "",
        "default-address-pools",
        "default_address_pools",
        "pools",
        "Address pools for networks (base=CIDR,size=BITS)",
    ),
    Option(
        "default-gateway",
        "",
        "default-gateway",
        "default_gateway",
        "string",
        "Default gateway of the default bridge",
    ),
    Option(
        *("default-runtime", "", "default-runtime", "default_runtime", "string"),
        "Default OCI runtime for containers (runc)",
    ),
    Option("dns", "", "dns", "dns", "list", "DNS server to use"),
    Option("dns-opt", "", "dns-opts", "dns_opts", "list", "DNS options to use"),
    Option("dns-search", "", "dns-search", "dns_search", "list", "DNS search domains to use"),
    Option(
        "fixed-cidr",
        "",
        "fixed-cidr",
        "fixed_cidr",
        "string",
        "Range of the default bridge's addresses",
    ),
    Option(
        "fixed-cidr-v6",
        "",
        "fixed-cidr-v6",
        "fixed_cidr_v6",
        "string",
        "IPv6 subnet of the default bridge",
    ),
    Option(
        "host-gateway-ip",
        "",
        "host-gateway-ips",
        "host_gateway_ips",
        "list",
        "What host-gateway means in --add-host",
    ),
    Option("icc", "", "icc", "icc", "bool", "Containers of the default bridge reach each other"),
    Option("ip", "", "ip", "ip", "string", "Default address for published ports"),
    Option("ip-forward", "", "ip-forward", "ip_forward", "bool", "Enable net.ipv4.ip_forward"),
    Option(
        "ip-forward-no-drop",
        "",
        "ip-forward-no-drop",
        "ip_forward_no_drop",
        "bool",
        "Forward for others too where we enabled it",
    ),
    Option(
        "ip-masq", "", "ip-masq", "ip_masq", "bool", "Masquerade what leaves the default bridge"
    ),
    Option("iptables", "", "iptables", "iptables", "bool", "Make firewall rules (nftables)"),
    Option("ipv6", "", "ipv6", "ipv6", "bool", "IPv6 on the default bridge"),
    Option("mtu", "", "mtu", "mtu", "number", "MTU of the default bridge's interfaces"),
    Option(
        "publish-before-firewall",
        "",
        "publish-before-firewall",
        "publish_before_firewall",
        "bool",
        "Accept containers' traffic ahead of the host's own iptables rules, as Docker does",
    ),
    Option(
        "userland-proxy",
        "",
        "userland-proxy",
        "userland_proxy",
        "bool",
        "Relay published ports where the firewall cannot",
    ),
    Option("debug", "D", "debug", "debug", "bool", "Enable debug mode"),
    Option(
        "exec-root", "", "exec-root", "exec_root", "string", "Root directory for execution state"
    ),
    Option("group", "G", "group", "group", "string", "Group for the unix socket (docker or pier)"),
    Option("help", "h", "", "", "bool", "Print usage"),
    Option("host", "H", "hosts", "hosts", "list", "Daemon socket(s) to listen on"),
    Option(
        *("insecure-registry", "", "insecure-registries", "insecure_registries", "list"),
        "Registries that need not verify, or speak plain HTTP",
    ),
    Option("label", "", "labels", "labels", "list", "Set key=value labels on the daemon"),
    Option(
        *("log-driver", "", "log-driver", "log_driver", "string"),
        "Default driver for container logs",
    ),
    Option("log-format", "", "log-format", "log_format", "string", "text|json"),
    Option("log-opt", "", "log-opts", "log_opts", "map", "Default log driver options"),
    Option("log-level", "l", "log-level", "log_level", "string", "|".join(LOG_LEVELS)),
    Option(
        *("max-concurrent-downloads", "", "max-concurrent-downloads", "max_concurrent_downloads"),
        *("number", "Layers pulled at once (3)"),
    ),
    Option(
        *("max-concurrent-uploads", "", "max-concurrent-uploads", "max_concurrent_uploads"),
        *("number", "Layers pushed at once (5)"),
    ),
    Option(
        *("max-download-attempts", "", "max-download-attempts", "max_download_attempts"),
        *("number", "Attempts for each layer (5)"),
    ),
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
        "registry-htpasswd",
        "",
        "registry-htpasswd",
        "registry_htpasswd",
        "string",
        "Who may pull, an htpasswd file with bcrypt hashes",
    ),
    Option(
        "registry-listen",
        "",
        "registry-listen",
        "registry_listen",
        "list",
        "Serve the images, read-only, as a registry at HOST:PORT",
    ),
    Option(
        "registry-tls-cert",
        "",
        "registry-tls-cert",
        "registry_tls_cert",
        "string",
        "Certificate chain of that registry",
    ),
    Option(
        "registry-tls-key",
        "",
        "registry-tls-key",
        "registry_tls_key",
        "string",
        "Private key of that certificate",
    ),
    Option("", "", "registries", "registries", "object", ""),
    Option("", "", "builder", "builder", "object", ""),
    Option(
        *("registry-certificates", "", "registry-certificates", "registry_certificates", "string"),
        "Directory of registries' certificates (/etc/docker/certs.d)",
    ),
    Option(
        *("image-budget", "", "image-budget", "image_budget", "string"),
        "What images may take on the disk (50GB); those unused for longest go",
    ),
    Option(
        *("registry-mirror", "", "registry-mirrors", "registry_mirrors", "list"),
        "Preferred mirrors of Docker Hub",
    ),
    Option(
        *("network-clean", "", "", "", "bool"),
        "Remove the links, rules and forwarding that networks have left, and exit",
    ),
    Option("validate", "", "", "", "bool", "Validate daemon configuration and exit"),
    Option("version", "v", "", "", "bool", "Print version information and quit"),
)

# What dockerd can be told and Pier does in one way only: that value is accepted, others are not.
_FIXED: dict[str, tuple[Value, ...]] = {
    "experimental": (False,),
    "ip6tables": (True,),
    "live-restore": (True,),
    "raw-logs": (False,),
    "selinux-enabled": (False,),
    "storage-driver": ("overlay2", "overlayfs"),
}

# The rest of dockerd's options: known, and refused by name rather than as misspelt.
_NOT_YET = frozenset(
    """
    allow-direct-routing api-cors-header authorization-plugin authorization-plugins bip6
    bridge-accept-fwmark containerd containerd-namespace containerd-plugin-namespace
    containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd default-gateway-v6
    default-network-opt default-network-opts default-stop-timeout exec-opt exec-opts
    feature features firewall-backend http-proxy https-proxy init-path min-api-version
    network-control-plane-mtu network-diagnostic-port no-proxy node-generic-resource
    node-generic-resources nri-opts oom-score-adjust proxies resolv-conf rootless
    storage-opt storage-opts swarm-default-advertise-addr swarm-raft-election-tick
    swarm-raft-heartbeat-tick userland-proxy-path userns-remap
    """.split()  # noqa: SIM905 - ninety quoted words would bury the table
)

_BY_FLAG = {option.flag: option for option in OPTIONS if option.flag}
_BY_SHORT = {option.short: option for option in OPTIONS if option.short}
_BY_KEY = {option.key: option for option in OPTIONS if option.key}
# What 0 means, which dockerd takes for "not set".
_DEFAULT_LIMITS = {
    "max concurrent downloads": 3,
    "max concurrent uploads": 5,
    "max download attempts": 5,
}
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def parse(argv: Sequence[str]) -> Invocation:
    """Parse pierd's arguments (without the program's name) and its configuration file.

    Raises InvalidParameter in dockerd's words, Unsupported for what Pier does not have yet.
    """
    flags = _parse_flags(argv)
    for action in ("help", "version"):
        if flags.pop(action, False) is True:
            return Invocation(action, Settings())
    validate = flags.pop("validate", False) is True
    clean = flags.pop("network-clean", False) is True
    values = _merge(flags)
    if clean:
        return Invocation("network-clean", _settings(values))
    return Invocation("validate" if validate else "run", _settings(values))


def usage() -> str:
    """Return the text of `--help`."""
    lines = [
        "Usage: pierd [OPTIONS]",
        "",
        "A container engine, drop-in for dockerd.",
        "",
        "Options:",
    ]
    for option in _BY_FLAG.values():
        short = f"-{option.short}, " if option.short else "    "
        kind = "" if option.kind == "bool" else " " + option.kind
        lines.append(f"  {short}--{option.flag + kind:<22} {option.help}")
    return "\n".join(lines)


def _parse_flags(argv: Sequence[str]) -> dict[str, Value]:
    """Return the values by flag, as pflag reads a command line: `--a b`, `--a=b`, `-ab`, `-a b`."""
    values: dict[str, Value] = {}
    words = iter(argv)
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, has_value, text = word[2:].partition("=")
            _store(values, _known(name), text if has_value else None, words, "--" + name)
        elif word.startswith("-") and len(word) > 1:
            _parse_shorthands(values, word, words)
        else:
            raise InvalidParameter("\"pierd\" accepts no arguments.\nSee 'pierd --help'.")
    return values


def _known(name: str) -> Option:
    if option := _BY_FLAG.get(name):
        return option
    if name in _FIXED:
        kind: Literal["bool", "string"] = "bool" if isinstance(_FIXED[name][0], bool) else "string"
        return Option(name, "", name, "", kind, "")
    if name in _NOT_YET:
        raise Unsupported(f"flag --{name} is not supported by pierd yet")
    raise InvalidParameter(f"unknown flag: --{name}\nSee 'pierd --help'.")


def _parse_shorthands(values: dict[str, Value], word: str, words: Iterator[str]) -> None:
    for position, letter in enumerate(word[1:], 1):
        option = _BY_SHORT.get(letter)
        if option is None:
            raise InvalidParameter(
                f"unknown shorthand flag: '{letter}' in {word}\nSee 'pierd --help'."
            )
        rest = word[position + 1 :]
        if rest.startswith("=") or (rest and option.kind != "bool"):
            _store(values, option, rest.removeprefix("="), words, f"-{letter}, --{option.flag}")
            return
        _store(values, option, None, words, f"'{letter}' in {word}")


def _store(
    values: dict[str, Value], option: Option, text: str | None, words: Iterator[str], shown: str
) -> None:
    if option.kind == "bool":
        values[option.flag] = True if text is None else _parse_bool(text, shown)
        return
    if text is None:
        text = next(words, None)
    if text is None:
        raise InvalidParameter(f"flag needs an argument: {shown}\nSee 'pierd --help'.")
    if option.kind == "map":
        _store_pair(values, option, text, shown)
    elif option.kind in ("list", "pools", "ulimits", "runtime"):
        so_far = values.setdefault(option.flag, [])
        assert isinstance(so_far, list)
        so_far.append(text)
    else:
        values[option.flag] = text


def _store_pair(values: dict[str, Value], option: Option, text: str, shown: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidParameter(f'invalid argument "{text}" for "{shown}" flag: bad format {text}')
    pairs = values.setdefault(option.flag, {})
    assert isinstance(pairs, dict)
    pairs[key] = value


def _parse_bool(text: str, shown: str) -> bool:
    if text not in _TRUE and text not in _FALSE:
        raise InvalidParameter(
            f'invalid argument "{text}" for "{shown}" flag: '
            f'strconv.ParseBool: parsing "{text}": invalid syntax'
        )
    return text in _TRUE


def _merge(flags: dict[str, Value]) -> dict[str, Value]:
    """Return the values by key, from the flags and the configuration file."""
    path = flags.pop("config-file", None)
    from_flags = {_known(flag).key: value for flag, value in flags.items()}
    from_file = _read_file(str(path or DEFAULT_CONFIG_FILE), must_exist=path is not None)
    return from_flags | _checked(from_file, from_flags, str(path or DEFAULT_CONFIG_FILE))


def _read_file(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        if not must_exist:
            return {}
        raise _file_error(path, f"open {path}: no such file or directory") from None
    except OSError as exc:
        raise _file_error(path, f"open {path}: {(exc.strerror or str(exc)).lower()}") from None
    if not content.strip():
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise _file_error(path, f"invalid JSON: {exc}") from None


def _checked(
    from_file: dict[str, Any], from_flags: dict[str, Value], path: str
) -> dict[str, Value]:
    unknown = [
        key for key in from_file if key not in _BY_KEY and key not in _FIXED and key not in _NOT_YET
    ]
    if unknown:
        what = "the following directives don't match any configuration option: "
        raise _file_error(path, what + ", ".join(unknown))
    twice = [
        f"{key}: (from flag: {_shown(from_flags[key])}, from file: {_shown(value)})"
        for key, value in from_file.items()
        if key in from_flags
    ]
    if twice:
        what = (
            "the following directives are specified both as a flag and in the configuration file: "
        )
        raise _file_error(path, what + ", ".join(twice))
    for key, value in from_file.items():
        if key in _NOT_YET:
            raise Unsupported(f"directive {key} in {path} is not supported by pierd yet")
        option = _BY_KEY.get(key)
        if option is not None and not _is_kind(value, option.kind):
            wanted = "list of strings" if option.kind == "list" else option.kind
            raise _file_error(path, f"json: cannot unmarshal {value!r} into {key} of type {wanted}")
    return from_file


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{' '.join(map(str, value))}]"
        case dict():
            return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"
        case _:
            return str(value)


def _is_kind(value: Any, kind: str) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "object" | "ulimits":
            return isinstance(value, dict)
        case "map":
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        case "runtime":
            return isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())
        case "list":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "pools":
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)
        case "number":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _file_error(path: str, what: str) -> InvalidParameter:
    return InvalidParameter(f"unable to configure the Docker daemon with file {path}: {what}")


def _settings(values: dict[str, Value]) -> Settings:
    """Check the merged values and return them as Settings."""
    for key, accepted in _FIXED.items():
        if key in values and values[key] not in accepted:
            raise Unsupported(
                f"{key} = {_shown(values[key])} is not supported by pierd yet, "
                f"only {' or '.join(map(_shown, accepted))}"
            )
    clean: dict[str, Any] = {
        _BY_KEY[key].field: _CHECKS.get(key, _as_is)(value)
        for key, value in values.items()
        if key in _BY_KEY
    }
    if "exec_root" in clean and "pidfile" not in clean:
        # Engines side by side differ in their exec root at least: none takes another's pidfile.
        clean["pidfile"] = os.path.join(clean["exec_root"], "pierd.pid")
    for field in ("registry_htpasswd", "registry_tls_cert", "registry_tls_key"):
        if clean.get(field) and not clean.get("registry_listen"):
            raise InvalidParameter(f"{field.replace('_', '-')} needs registry-listen")
    _settle_tls(clean)
    settings = Settings(**clean)
    _check_log(settings)
    settings_runtimes.check_default(settings.default_runtime, settings.runtimes)
    return settings


def _check_log(settings: Settings) -> None:
    """Options that no container could be made with are better refused now."""
    try:
        log_options.check(LogConfig(settings.log_driver, settings.log_opts))
    except InvalidParameter as exc:
        raise InvalidParameter(f"failed to set log opts: {exc.message}") from None


def _as_is(value: Any) -> Any:
    return value


def _path(value: Any) -> str:
    return os.path.realpath(str(value))


def _mirrors(value: Any) -> tuple[str, ...]:
    return tuple(parse_mirror(mirror).url for mirror in value)


def _insecure(value: Any) -> tuple[str, ...]:
    return tuple(parse_insecure(entry) for entry in value)


def _positive(what: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        text = str(value)
        if not (text.isascii() and text.isdecimal()):
            raise InvalidParameter(f"invalid {what}: {text}")
        return int(text) or _DEFAULT_LIMITS[what]

    return check


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
            path = address or Settings().hosts[0].removeprefix("unix://")
            return "unix://" + os.path.abspath(path)
        case "fd":
            return host
        case "tcp":
            return _tcp(address if has_scheme else host)
        case _:
            raise InvalidParameter(f"invalid bind address format: {host}")


def _bytes(text: str) -> int:
    """Read a size, "" and "0" for none, in decimal units as `pier images` shows them."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)b?", text.lower() or "0", re.ASCII)
    if found is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2] or " "))


def _tcp(address: str) -> str:
    name, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in address:
        raise InvalidParameter(f"invalid bind address (tcp://{address}): HOST:PORT is wanted")
    return f"tcp://{name or '0.0.0.0'}:{int(port)}"


def _settle_tls(clean: dict[str, Any]) -> None:
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


_CHECKS: dict[str, Callable[[Any], Any]] = {
    **settings_daemon.CHECKS,
    **settings_network.CHECKS,
    **settings_runtimes.CHECKS,
    "data-root": _path,
    "exec-root": _path,
    "hosts": _hosts,
    "image-budget": _bytes,
    "insecure-registries": _insecure,
    "labels": _labels,
    "log-format": _log_format,
    "log-level": _log_level,
    "max-concurrent-downloads": _positive("max concurrent downloads"),
    "max-concurrent-uploads": _positive("max concurrent uploads"),
    "max-download-attempts": _positive("max download attempts"),
    "pidfile": _path,
    "registry-listen": tuple,
    "builder": parse_builder,
    "registries": parse_entries,
    "registry-certificates": _path,
    "registry-mirrors": _mirrors,
}
