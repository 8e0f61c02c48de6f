"""The grammars of --mount, --volume, --tmpfs and --device, as Docker's client reads them.

--mount is one record of CSV with `key=value` fields: docker/cli `opts/mount.go`, documented at
https://docs.docker.com/engine/storage/bind-mounts/#options-for---mount.
"""

import os

from pier.cli.flags import Kind
from pier.cli.kinds import BOOL, parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")
_PREFIXES = {
    "bind": ("BindOptions", "bind"),
    "volume": ("VolumeOptions", "volume"),
    "tmpfs": ("TmpfsOptions", "tmpfs"),
    "image": ("ImageOptions", "image"),
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
        match key:
            case "type":
                mount["Type"] = value.lower()
            case "source" | "src":
                mount["Source"] = absolute(value)
            case "target" | "dst" | "destination":
                mount["Target"] = value
            case "readonly" | "ro":
                mount["ReadOnly"] = _flag(key, value)
            case "consistency":
                mount["Consistency"] = value.lower()
            case "bind-recursive":
                recursive = value
            case _:
                _set_option(mount, field, key, value)
    _set_recursive(mount, recursive)
    if not mount.get("Target"):
        raise ValueError("target is required")
    if not mount.get("ReadOnly"):
        mount.pop("ReadOnly", None)
    for kind, (name, prefix) in _PREFIXES.items():
        if name in mount and kind != mount["Type"]:
            raise ValueError(f"cannot mix '{prefix}-*' options with mount type '{mount['Type']}'")
    return mount


def _set_option(mount: "dict[str, Any]", field: str, key: str, value: str) -> None:
    """Set what is only for one type of mount."""
    kind = key.partition("-")[0]
    options: dict[str, Any] = {}
    if kind in _PREFIXES:
        options = mount.setdefault(_PREFIXES[kind][0], {})
    match key:
        case "bind-propagation":
            options["Propagation"] = value.lower()
        case "bind-nonrecursive":
            options["NonRecursive"] = _flag(key, value)
        case "volume-nocopy":
            options["NoCopy"] = _flag(key, value)
        case "volume-label":
            name, _, text = value.partition("=")
            options.setdefault("Labels", {})[name] = text
        case "volume-driver":
            options.setdefault("DriverConfig", {})["Name"] = value
        case "volume-opt":
            name, _, text = value.partition("=")
            options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = text
        case "volume-subpath" | "image-subpath":
            options["Subpath"] = value
        case "tmpfs-size":
            try:
                options["SizeBytes"] = parse_bytes(value)
            except ValueError:
                raise ValueError(f"invalid value for {key}: {value}") from None
        case "tmpfs-mode":
            try:
                options["Mode"] = int(value, 8)
            except ValueError:
                raise ValueError(f"invalid value for {key}: {value}") from None
        case _:
            raise ValueError(f"unexpected key '{key}' in '{field}'")


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
