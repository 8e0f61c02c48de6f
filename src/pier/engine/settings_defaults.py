"""dockerd's settings that are maps of their own: features, proxies, defaults of networks, options of
the runtime and of the storage driver. What names something that Pier has not is refused by name.
"""

from collections.abc import Callable
from typing import Any

from pier.engine.log_values import parse_binary
from pier.engine.settings_option import Option
from pier.errors import InvalidParameter, Unsupported

OPTIONS = (
    Option(
        *("default-network-opt", "", "default-network-opts", "default_network_opts", "nested"),
        "Default options of new networks (DRIVER=OPTION=VALUE)",
    ),
    Option(
        *("default-stop-timeout", "", "default-stop-timeout", "default_stop_timeout", "number"),
        "Seconds that a container has to stop (10)",
    ),
    Option(
        *("exec-opt", "", "exec-opts", "exec_opts", "list"),
        "Runtime execution options (native.cgroupdriver=cgroupfs)",
    ),
    Option("feature", "", "features", "features", "features", "Enable a feature (NAME[=BOOL])"),
    Option(
        "http-proxy", "", "http-proxy", "http_proxy", "string", "HTTP proxy for what pierd pulls"
    ),
    Option("https-proxy", "", "https-proxy", "https_proxy", "string", "HTTPS proxy, as above"),
    Option(
        "no-proxy", "", "no-proxy", "no_proxy", "string", "Hosts that need no proxy, with commas"
    ),
    Option("", "", "proxies", "proxies", "map", ""),
    Option(
        *("storage-opt", "", "storage-opts", "layer_size", "list"),
        "Options of the storage driver (overlay2.size=SIZE)",
    ),
)
PROXIES = ("http-proxy", "https-proxy", "no-proxy")
# Those of dockerd that mean something here; the containerd image store is none of them.
_FEATURES = ("buildkit", "cdi")
_NOT_HERE = ("containerd-snapshotter", "containerd-migration")
_BOOLEANS = {"1": True, "true": True, "": True, "0": False, "false": False}


def _features(value: Any) -> dict[str, bool]:
    """Return what is on and off, from flags ("name", "name=false") or the file's object."""
    found: dict[str, bool] = {}
    given = (
        value.items() if isinstance(value, dict) else (text.partition("=")[::2] for text in value)
    )
    for name, setting in given:
        is_on = setting if isinstance(setting, bool) else _BOOLEANS.get(str(setting).lower())
        if is_on is None:
            raise InvalidParameter(f"invalid value for feature {name}: {setting}")
        if name in _NOT_HERE and not is_on:
            continue
        if name not in _FEATURES:
            raise Unsupported(f"feature {name} is not supported by pierd")
        found[name] = is_on
    return found


def _exec_opts(value: Any) -> tuple[str, ...]:
    for option in value:
        name, equals, setting = option.partition("=")
        if name != "native.cgroupdriver" or not equals:
            raise InvalidParameter(f"invalid exec-opt: {option}")
        if setting != "cgroupfs":
            raise Unsupported(f"{option} is not supported by pierd, only {name}=cgroupfs")
    return tuple(value)


def _storage_opts(value: Any) -> int:
    """Return what a writable layer may have in bytes, 0 for any number."""
    size = 0
    for option in value:
        name, equals, text = option.partition("=")
        if not equals:
            raise InvalidParameter(f"unable to parse storage-opt key/value: {option}")
        if name.lower() != "overlay2.size":
            raise InvalidParameter(f"overlay2: unknown option {name}")
        size = parse_binary(text)
    return size


def _network_opts(value: Any) -> dict[str, dict[str, str]]:
    """Return options by driver, from flags ("driver=option=value") or the file's objects."""
    found: dict[str, dict[str, str]] = {}
    if isinstance(value, dict):
        for driver, options in value.items():
            if not isinstance(options, dict):
                raise InvalidParameter(f"invalid default network options of {driver}: {options}")
            found[driver] = {key: str(setting) for key, setting in options.items()}
        return found
    for text in value:
        driver, _, rest = text.partition("=")
        key, equals, setting = rest.partition("=")
        if not (driver and key and equals):
            raise InvalidParameter(f"invalid default network option: {text}")
        found.setdefault(driver, {})[key] = setting
    return found


def _stop_timeout(value: Any) -> int:
    text = str(value)
    if not text.removeprefix("-").isdecimal():
        raise InvalidParameter(f"invalid default stop timeout: {text}")
    return int(text)


def _proxies(value: Any) -> dict[str, str]:
    unknown = [key for key in value if key not in PROXIES]
    if unknown:
        raise InvalidParameter(
            "the following directives don't match any configuration option: " + ", ".join(unknown)
        )
    return dict(value)


def spread_proxies(values: dict[str, Any]) -> None:
    """Make of the file's object of proxies what their flags are. Raises InvalidParameter."""
    for key, setting in values.pop("proxies", {}).items():
        field = key.replace("-", "_")
        if values.get(field, setting) != setting:
            raise InvalidParameter(
                "the following directives are specified both as a flag and in the configuration"
                f" file: {key}"
            )
        values[field] = setting


CHECKS: dict[str, Callable[[Any], Any]] = {
    "default-network-opts": _network_opts,
    "default-stop-timeout": _stop_timeout,
    "exec-opts": _exec_opts,
    "features": _features,
    "proxies": _proxies,
    "storage-opts": _storage_opts,
}
