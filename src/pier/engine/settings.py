"""What pierd is told: dockerd's flags, and the same in a file (dockerd(8), daemon.json).

Each topic has a table that says an option's flag, its key in the file and its kind, and the checks
of the values: `settings_process`, `settings_daemon` (what containers get), `settings_network`,
`settings_registry`, `settings_runtimes`. `settings_table` has them all, `settings_flags` reads the
command line and `settings_file` the file.
"""

import os
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from pier.engine import defaults, log_options, settings_runtimes
from pier.engine.settings_builder import BuilderSettings
from pier.engine.settings_defaults import spread_proxies
from pier.engine.settings_file import checked, read_file, shown
from pier.engine.settings_flags import known, parse_flags, usage
from pier.engine.settings_option import Value
from pier.engine.settings_process import DEFAULT_CONFIG_FILE, DEFAULT_SOCKET, settle_tls
from pier.engine.settings_runtimes import RuntimeEntry
from pier.engine.settings_table import BY_KEY, CHECKS, FIXED
from pier.errors import InvalidParameter, Unsupported
from pier.model.container import LogConfig
from pier.registry.endpoints import RegistryEntry, RegistrySettings

__all__ = ["Invocation", "Settings", "parse", "usage"]


class Settings(Struct, frozen=True):
    """How this engine runs; paths are absolute. `group` "" leaves the sockets' group to pierd."""

    hosts: tuple[str, ...] = (f"unix://{DEFAULT_SOCKET}",)
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
    # See `settings_defaults`.
    default_network_opts: dict[str, dict[str, str]] = {}
    default_stop_timeout: int = 10
    exec_opts: tuple[str, ...] = ()
    features: dict[str, bool] = {}
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    layer_size: int = 0
    plugin_dirs: tuple[str, ...] = (
        "/run/docker/plugins",
        "/etc/docker/plugins",
        "/usr/lib/docker/plugins",
    )
    # The engine's images, to be pulled by others, and pushed: registry/server/engine_shelf.py, _store.py.
    registry_listen: tuple[str, ...] = ()
    registry_push: bool = False
    registry_htpasswd: str = ""
    registry_tls_cert: str = ""
    registry_tls_key: str = ""
    runtimes: dict[str, RuntimeEntry] = {}
    default_runtime: str = settings_runtimes.OWN
    allow_direct_routing: bool = False
    bridge_accept_fwmark: str = ""
    bridge: str = ""
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
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


def parse(argv: Sequence[str]) -> Invocation:
    """Parse pierd's arguments (without the program's name) and its configuration file.

    Raises InvalidParameter in dockerd's words, Unsupported for what Pier does not have yet.
    """
    flags = parse_flags(argv)
    for action in ("help", "version"):
        if flags.pop(action, False) is True:
            return Invocation(action, Settings())
    validate = flags.pop("validate", False) is True
    clean = flags.pop("network-clean", False) is True
    values = _merge(flags)
    if clean:
        return Invocation("network-clean", _settings(values))
    return Invocation("validate" if validate else "run", _settings(values))


def _merge(flags: dict[str, Value]) -> dict[str, Value]:
    """Return the values by key, from the flags and the configuration file."""
    path = flags.pop("config-file", None)
    from_flags = {known(flag).key: value for flag, value in flags.items()}
    from_file = read_file(str(path or DEFAULT_CONFIG_FILE), must_exist=path is not None)
    return from_flags | checked(from_file, from_flags, str(path or DEFAULT_CONFIG_FILE))


def _settings(values: dict[str, Value]) -> Settings:
    """Check the merged values and return them as Settings."""
    fixed = dict(FIXED)
    if values.get("iptables") is False:
        fixed["ip6tables"] = (True, False)  # without rules there are none for IPv6 either
    for key, accepted in fixed.items():
        if key in values and values[key] not in accepted:
            raise Unsupported(
                f"{key} = {shown(values[key])} is not supported by pierd yet, "
                f"only {' or '.join(map(shown, accepted))}"
            )
    clean: dict[str, Any] = {
        BY_KEY[key].field: CHECKS.get(key, _as_is)(value)
        for key, value in values.items()
        if key in BY_KEY
    }
    if "exec_root" in clean and "pidfile" not in clean:
        # Engines side by side differ in their exec root at least: none takes another's pidfile.
        clean["pidfile"] = os.path.join(clean["exec_root"], "pierd.pid")
    for field in ("registry_htpasswd", "registry_push", "registry_tls_cert", "registry_tls_key"):
        if clean.get(field) and not clean.get("registry_listen"):
            raise InvalidParameter(f"{field.replace('_', '-')} needs registry-listen")
    settle_tls(clean)
    spread_proxies(clean)
    if clean.get("features", {}).get("cdi") is False or [*clean.get("cdi_spec_dirs", ())] == [""]:
        clean["cdi_spec_dirs"] = ()
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
