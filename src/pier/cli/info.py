"""`pier info`: the engine and its host."""

import sys

from pier import __version__
from pier.cli.command import Command
from pier.cli.errors import NoEngine
from pier.cli.formats import FORMAT, Format
from pier.cli.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _info(context: "Context", options: "Options") -> None:
    source = options.text("format")
    form = Format(source) if source else None
    client_text = f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: false\n\nServer:\n"
    try:
        info = context.client.get("/info").json()
    except NoEngine:
        if form is None:
            sys.stdout.write(client_text)
        raise
    if form is not None:
        from pier.cli.version import client_version

        info["ClientInfo"] = {"Debug": False, **client_version(), "Plugins": [], "Warnings": None}
        print(form.render(info))
        return
    sys.stdout.write(client_text + "".join(f" {line}\n" for line in _lines(info)) + "\n")
    sys.stdout.flush()
    for warning in info.get("Warnings") or ():
        sys.stderr.write(f"{warning}\n")


def _lines(info: "dict[str, Any]") -> "list[str]":
    return [*_counts(info), *_drivers(info), *_parts(info), *_host(info), *_settings(info)]


def _rows(info: "dict[str, Any]", *rows: tuple[str, str]) -> "list[str]":
    """`Title: value` for every field that is there and not empty."""
    return [
        f"{title}: {_text(info[key])}" for title, key in rows if info.get(key) not in (None, "")
    ]


def _text(value: "Any") -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _counts(info: "dict[str, Any]") -> "list[str]":
    return _rows(
        info,
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    )


def _drivers(info: "dict[str, Any]") -> "list[str]":
    lines = [f" {name}: {value}" for name, value in info.get("DriverStatus") or ()]
    lines += _rows(
        info,
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    )
    plugins = info.get("Plugins") or {}
    lines.append("Plugins:")
    for name in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(name) or name in ("Volume", "Network", "Log"):
            lines.append(f" {name}: {' '.join(plugins.get(name) or ())}")
    swarm = (info.get("Swarm") or {}).get("LocalNodeState")
    return [*lines, f"Swarm: {swarm}"] if swarm else lines


def _parts(info: "dict[str, Any]") -> "list[str]":
    lines = []
    if info.get("Runtimes"):
        lines.append("Runtimes: " + " ".join(sorted(info["Runtimes"])))
    lines += _rows(info, ("Default Runtime", "DefaultRuntime"), ("Init Binary", "InitBinary"))
    for name, key in (("containerd", "Containerd"), ("runc", "Runc"), ("init", "Init")):
        commit = (info.get(f"{key}Commit") or {}).get("ID")
        if commit is not None:
            lines.append(f"{name} version: {commit}")
    options = info.get("SecurityOptions") or ()
    if options:
        lines.append("Security Options:")
    for option in options:
        name, *settings = option.split(",")
        lines.append(" " + name.removeprefix("name="))
        for setting in settings:
            key, _, value = setting.partition("=")
            lines.append(f"  {key.capitalize()}: {value}")
    return lines


def _host(info: "dict[str, Any]") -> "list[str]":
    lines = _rows(
        info,
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    )
    lines.append(f"Total Memory: {binary_size(info.get('MemTotal') or 0)}")
    return lines + _rows(
        info,
        ("Name", "Name"),
        ("ID", "ID"),
        ("Docker Root Dir", "DockerRootDir"),
        ("Debug Mode", "Debug"),
        ("HTTP Proxy", "HttpProxy"),
        ("HTTPS Proxy", "HttpsProxy"),
        ("No Proxy", "NoProxy"),
    )


def _settings(info: "dict[str, Any]") -> "list[str]":
    lines = []
    if info.get("Labels"):
        lines += ["Labels:", *(f" {label}" for label in info["Labels"])]
    lines += _rows(info, ("Experimental", "ExperimentalBuild"))
    registries = info.get("RegistryConfig") or {}
    insecure = [
        name
        for name, config in sorted((registries.get("IndexConfigs") or {}).items())
        if config and not config.get("Secure")
    ]
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += ["Insecure Registries:", *(f" {name}" for name in insecure)]
    if registries.get("Mirrors"):
        lines += ["Registry Mirrors:", *(f" {mirror}" for mirror in registries["Mirrors"])]
    lines += _rows(
        info,
        ("Live Restore Enabled", "LiveRestoreEnabled"),
        ("Product License", "ProductLicense"),
    )
    pools = info.get("DefaultAddressPools") or ()
    if pools:
        lines += ["Default Address Pools:"]
        lines += [f"  Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools]
    return lines


INFO = Command(
    "info [OPTIONS]",
    "Display system-wide information",
    _info,
    arity=(0, 0),
    options=(FORMAT,),
    aliases="system info, info",
)
