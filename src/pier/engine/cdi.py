"""Devices by the Container Device Interface: "vendor.com/class=name", described in files on the host.

github.com/cncf-tags/container-device-interface, SPEC.md. Files of later directories win over earlier
ones; a name that two files of one directory claim is nobody's. Files are JSON or YAML.
"""

import json
import logging
import os
import stat
from collections.abc import Iterable
from typing import Any, TextIO

from pier.errors import Internal
from pier.runtime import spec

log = logging.getLogger(__name__)

_HOOK_STAGES = frozenset(
    ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
)

Edits = dict[str, Any]


def inject(built: spec.Spec, names: Iterable[str], directories: Iterable[str]) -> list[str]:
    """Add devices to a container's specification, in the order of their names.

    Returns the groups that the process is to be in as well, by number. Raises Internal in dockerd's words for names that no file has, and for an edit that cannot be.
    """
    wanted = list(names)
    known = devices(directories)
    missing = [name for name in wanted if name not in known]
    if missing:
        raise Internal(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}"
        )
    applied: list[str] = []
    groups: list[str] = []
    for name in wanted:
        path, common, own = known[name]
        if path not in applied:  # the file's edits for all of its devices, once
            applied.append(path)
            _edit(built, common)
            groups += map(str, common.get("additionalGids") or ())
        _edit(built, own)
        groups += map(str, own.get("additionalGids") or ())
    return groups


def devices(directories: Iterable[str]) -> dict[str, tuple[str, Edits, Edits]]:
    """Every device by name: its file, that file's common edits, its own edits."""
    known: dict[str, tuple[str, Edits, Edits]] = {}
    for directory in directories:
        found: dict[str, tuple[str, Edits, Edits]] = {}
        twice: set[str] = set()
        for path in _files(directory):
            document = _read(path)
            kind, common = document.get("kind", ""), document.get("containerEdits") or {}
            for device in document.get("devices") or ():
                name = f"{kind}={device.get('name', '')}"
                if name in found:
                    twice.add(name)
                found[name] = path, common, device.get("containerEdits") or {}
        known |= {name: entry for name, entry in found.items() if name not in twice}
    return known


def _files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith((".json", ".yaml", ".yml"))]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file) if path.endswith(".json") else _load_yaml(file)
    except (OSError, ValueError) as exc:
        log.warning("CDI: %s is passed over: %s", path, exc)
        return {}
    return document if isinstance(document, dict) else {}


def _load_yaml(file: TextIO) -> Any:
    """Read YAML. Raises ValueError."""
    import yaml  # noqa: PLC0415  # a megabyte and a half that few engines need

    try:
        return yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc


def _edit(built: spec.Spec, edits: Edits) -> None:
    process, linux = built["process"], built["linux"]
    if env := edits.get("env"):
        named = {entry.partition("=")[0] for entry in env}
        kept = [entry for entry in process["env"] if entry.partition("=")[0] not in named]
        process["env"] = [*kept, *env]
    for node in edits.get("deviceNodes") or ():
        device, rule = _node(node)
        others = [other for other in linux["devices"] if other["path"] != device["path"]]
        linux["devices"] = [*others, device]
        linux["resources"]["devices"] = [*linux["resources"].get("devices", ()), rule]
    for mount in edits.get("mounts") or ():
        built["mounts"] = [*built["mounts"], _mount(mount)]
    for hook in edits.get("hooks") or ():
        _add_hook(built, hook)


def _node(node: dict[str, Any]) -> tuple[spec.Device, spec.DeviceCgroup]:
    """A device node: what the file leaves out is read off the host's node."""
    source = node.get("hostPath") or node["path"]
    kind, major, minor = node.get("type", ""), node.get("major", 0), node.get("minor", 0)
    try:
        found = os.stat(source)
    except OSError as exc:
        if not kind or (kind != "p" and not major):
            text = f"CDI device injection failed: failed to stat CDI host device {source!r}: "
            raise Internal(text + (exc.strerror or "").lower()) from exc
    else:
        if not kind:
            kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
        if not major:
            major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    device: spec.Device = {
        "type": kind,
        "path": node["path"],
        "major": major,
        "minor": minor,
        "fileMode": node.get("fileMode", 0o666),
        "uid": node.get("uid", 0),
        "gid": node.get("gid", 0),
    }
    access = node.get("permissions") or "rwm"
    rule: spec.DeviceCgroup = {
        "allow": True, "type": kind, "major": major, "minor": minor, "access": access,
    }  # fmt: skip
    return device, rule


def _mount(mount: dict[str, Any]) -> spec.Mount:
    options = list(mount.get("options") or ())
    if not {"bind", "rbind"}.intersection(options) and not mount.get("type"):
        options.append("rbind")
    return {
        "destination": mount["containerPath"],
        "source": mount["hostPath"],
        "type": mount.get("type") or "bind",
        "options": options,
    }


def _add_hook(built: spec.Spec, hook: dict[str, Any]) -> None:
    stage = hook["hookName"]
    if stage not in _HOOK_STAGES:
        raise Internal(f"CDI device injection failed: unknown hook name {stage!r}")
    entry = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
    hooks: dict[str, Any] = dict(built.get("hooks") or {})
    hooks[stage] = [*hooks.get(stage, ()), entry]
    built["hooks"] = hooks  # type: ignore[typeddict-item]  # its keys are the stages
