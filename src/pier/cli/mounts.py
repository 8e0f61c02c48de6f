"""The grammars of --mount, --volume, --tmpfs and --device, as Docker's client reads them.

--mount is one record of CSV with `key=value` fields: docker/cli `opts/mount.go`, documented at
https://docs.docker.com/engine/storage/bind-mounts/#options-for---mount.
"""

import os

from pier.cli.flags import Kind
from pier.cli.kinds import BOOL, parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "idmap", "cow")
_OPTIONS = {
    "bind": "BindOptions",
    "volume": "VolumeOptions",
    "tmpfs": "TmpfsOptions",
    "image": "ImageOptions",
}


def fields(text: str) -> list[str]:
    """The fields of one CSV record. Raises ValueError for an empty one."""
    if not text:
        raise ValueError("EOF")
    if '"' not in text:
        return text.split(",")
    import csv

    return next(csv.reader([text]))


def _flag(key: str, value: str) -> bool:
    try:
        return bool(BOOL.parse(value))
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def absolute(path: str) -> str:
    """A path that begins with a dot is relative to the working directory; others are left alone."""
    if path == "." or path.startswith(("./", "../")) or path == "..":
        return os.path.abspath(path)
    return path


def _parse_mount(text: str) -> "dict[str, Any]":
    mount: dict[str, Any] = {"Type": "volume"}
    recursive = ""
    for field in fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            if key not in _FLAGS:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        if key in _COMMON:
            name, read = _COMMON[key]
            mount[name] = read(key, value)
        elif key == "bind-recursive":
            recursive = value
        elif key == "idmap":  # Pier's own
            mount.setdefault("BindOptions", {})["IDMap"] = "auto" if value == "true" else value
        elif key == "cow":  # likewise
            if _flag(key, value):
                mount.setdefault("BindOptions", {})["CopyOnWrite"] = True
        elif key in _TYPED:
            _set_typed(mount, key, value)
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    _set_recursive(mount, recursive)
    return _checked(mount)


def _checked(mount: "dict[str, Any]") -> "dict[str, Any]":
    if not mount.get("Target"):
        raise ValueError("target is required")
    if not mount.get("ReadOnly"):
        mount.pop("ReadOnly", None)
    for kind, name in _OPTIONS.items():
        if name in mount and kind != mount["Type"]:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
    if "VolumeOptions" in mount:
        mount["VolumeOptions"].setdefault("DriverConfig", {})
    return mount


def _set_typed(mount: "dict[str, Any]", key: str, value: str) -> None:
    """Set what only one type of mount has; zero values are left out, as in Docker's JSON."""
    place, read = _TYPED[key]
    target = mount.setdefault(_OPTIONS[key.partition("-")[0]], {})
    *parents, name = place.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
    setting = read(key, value)
    if isinstance(setting, dict):
        target.setdefault(name, {}).update(setting)
    elif setting:
        target[name] = setting


def _text(key: str, value: str) -> str:
    return value


def _lower(key: str, value: str) -> str:
    return value.lower()


def _source(key: str, value: str) -> str:
    return absolute(value)


def _pair(key: str, value: str) -> dict[str, str]:
    name, _, text = value.partition("=")
    return {name: text}


def _size(key: str, value: str) -> int:
    try:
        return parse_bytes(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _octal(key: str, value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


# key -> (field, how its value is read)
_COMMON: "dict[str, tuple[str, Callable[[str, str], Any]]]" = {
    "type": ("Type", _lower),
    "source": ("Source", _source),
    "src": ("Source", _source),
    "target": ("Target", _text),
    "dst": ("Target", _text),
    "destination": ("Target", _text),
    "readonly": ("ReadOnly", _flag),
    "ro": ("ReadOnly", _flag),
    "consistency": ("Consistency", _lower),
}
_TYPED: "dict[str, tuple[str, Callable[[str, str], Any]]]" = {
    "bind-propagation": ("Propagation", _lower),
    "bind-nonrecursive": ("NonRecursive", _flag),
    "volume-nocopy": ("NoCopy", _flag),
    "volume-label": ("Labels", _pair),
    "volume-driver": ("DriverConfig.Name", _text),
    "volume-opt": ("DriverConfig.Options", _pair),
    "volume-subpath": ("Subpath", _text),
    "image-subpath": ("Subpath", _text),
    "tmpfs-size": ("SizeBytes", _size),
    "tmpfs-mode": ("Mode", _octal),
}


def _set_recursive(mount: "dict[str, Any]", value: str) -> None:
    options = mount.setdefault("BindOptions", {}) if value else {}
    match value:
        case "" | "enabled":
            if value and not options:
                del mount["BindOptions"]
        case "disabled":
            options["NonRecursive"] = True
        case "writable":
            options["ReadOnlyNonRecursive"] = True
            if not mount.get("ReadOnly"):
                raise ValueError(
                    "option 'bind-recursive=writable' requires 'readonly' to be specified in "
                    "conjunction"
                )
        case "readonly":
            options["ReadOnlyForceRecursive"] = True
            if not mount.get("ReadOnly"):
                raise ValueError(
                    "option 'bind-recursive=readonly' requires 'readonly' to be specified in "
                    "conjunction"
                )
            if options.get("Propagation") != "rprivate":
                raise ValueError(
                    "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be "
                    "specified in conjunction"
                )
        case _:
            raise ValueError(
                f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", '
                '"writable", or "readonly")'
            )


MOUNT = Kind("mount", _parse_mount, repeated=True)


def split_volumes(volumes: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Divide the values of --volume into binds and anonymous volumes.

    Raises ValueError for an empty one.
    """
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for volume in volumes:
        source, colon, rest = volume.partition(":")
        if not volume:
            raise ValueError("invalid empty volume spec")
        if not colon:
            anonymous[volume] = {}
        else:
            binds.append(f"{absolute(source)}:{rest}")
    return binds, anonymous


def parse_device(text: str) -> dict[str, str]:
    """Read `/dev/x[:/dev/y][:rwm]`. Raises ValueError."""
    source, *rest = text.split(":")
    target, permissions = source, "rwm"
    if not source or len(rest) > 2:
        raise ValueError(f"bad format for path: {text}")
    if len(rest) == 2:
        target, permissions = rest[0] or source, rest[1]
    elif rest and _is_device_mode(rest[0]):
        permissions = rest[0]
    elif rest:
        target = rest[0]
    if not target.startswith("/"):
        raise ValueError(f"{target} is not an absolute path")
    if not _is_device_mode(permissions):
        raise ValueError(f"bad mode specified: {permissions}")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def _is_device_mode(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def is_cdi_name(text: str) -> bool:
    """Whether a device is a name of the Container Device Interface, `vendor.com/class=name`."""
    kind, equals, name = text.partition("=")
    vendor, slash, class_name = kind.partition("/")
    return bool(equals and slash and name and class_name and vendor) and not text.startswith("/")
