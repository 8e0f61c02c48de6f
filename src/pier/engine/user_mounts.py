"""What the user mounts into a container: `Binds`, `Mounts` and `Tmpfs`, parsed and checked.

Rules and messages are those of Docker's (moby/moby, volume/mounts/linux_parser.go). Volumes have
no place to live yet: asking for one is an error, never a directory that nobody finds again. The z
and Z of a bind are for SELinux, see `security_opts`. Not for showing mounts: see `mount_points`.
"""

import os
import posixpath
from typing import Literal, NamedTuple

from pier.errors import InvalidParameter, Unsupported
from pier.model.container import HostConfig, Mount, TmpfsOptions

PROPAGATIONS = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
DEFAULT_PROPAGATION = "rprivate"
_MODES = (
    frozenset(("rw", "ro")),
    frozenset(("z", "Z")),
    PROPAGATIONS,
    frozenset(("nocopy",)),
    frozenset(("consistent", "cached", "delegated")),
)
_ALL_MODES = frozenset().union(*_MODES)
_NO_VOLUMES = "volumes are not supported yet: bind a directory of the host instead"
# Options of a tmpfs that undo each other: the last of a group counts.
_TMPFS_FLAGS = {
    name: group
    for group in (
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("sync", "async"),
        ("dirsync",),
        ("mand", "nomand"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
        ("relatime", "norelatime"),
        ("strictatime", "nostrictatime"),
        (*PROPAGATIONS, "unbindable", "runbindable"),
    )
    for name in group
}
_TMPFS_DATA = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev", DEFAULT_PROPAGATION)


class UserMount(NamedTuple):
    """A mount asked for. `options` are those of a tmpfs, already merged with Docker's defaults.

    `create` says whether a source that is missing is made, as a directory, at start.
    """

    kind: Literal["bind", "tmpfs"]
    source: str
    destination: str
    readonly: bool = False
    propagation: str = DEFAULT_PROPAGATION
    recursive: bool = True
    readonly_recursive: bool = True
    create: bool = False
    options: tuple[str, ...] = ()


def parse_all(host: HostConfig, *, check_sources: bool = False) -> list[UserMount]:
    """Return all mounts, those nearer to the root first.

    With `check_sources`, the source of a bind in `Mounts` must exist. Raises InvalidParameter in
    dockerd's words, Unsupported for volumes.
    """
    if not (host.Binds or host.Mounts or host.Tmpfs):
        return []
    found = [parse_bind(raw) for raw in host.Binds or ()]
    for entry in host.Mounts:
        found.append(_parse_mount(entry))
        if check_sources:
            _check_source(entry)
    for target, options in host.Tmpfs.items():
        _check_target(target)
        found.append(_tmpfs(clean(target), options.split(",") if options else []))
    seen = set()
    for mount in found:
        if mount.destination in seen:
            raise InvalidParameter(f"Duplicate mount point: {mount.destination}")
        seen.add(mount.destination)
    return sorted(found, key=lambda mount: mount.destination.count("/"))


def parse_bind(raw: str) -> UserMount:
    """Parse "source:destination[:modes]" of `Binds` or `docker run -v`."""
    parts = raw.split(":", 3)
    if not parts[0] or len(parts) == 4:
        raise _invalid(raw)
    if len(parts) == 1:
        _check_target(parts[0])
        raise Unsupported(f"anonymous volume '{parts[0]}': {_NO_VOLUMES}")
    source, target = parts[:2]
    if len(parts) == 2 and _valid_mode(target):
        raise _invalid(raw)
    mode = parts[2] if len(parts) == 3 else ""
    if not _valid_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    words = mode.split(",")
    try:
        _check_mount(target, "bind" if posixpath.isabs(source) else "volume")
        if posixpath.isabs(source) and "nocopy" in words:
            raise _config("bind", "field VolumeOptions must not be specified")
    except InvalidParameter as exc:
        raise InvalidParameter(f"{_invalid(raw).message}: {exc.message}") from exc
    if not posixpath.isabs(source):
        raise Unsupported(f"named volume '{source}': {_NO_VOLUMES}")
    propagation = next((word for word in words if word in PROPAGATIONS), DEFAULT_PROPAGATION)
    return UserMount(
        "bind",
        clean(source),
        clean(target),
        readonly="ro" in words,
        propagation=propagation,
        create=True,
    )


def merge_tmpfs_options(words: list[str]) -> tuple[str, ...]:
    """Drop what a later word overrides. Raises InvalidParameter for what no tmpfs knows."""
    seen: set[object] = set()
    kept = []
    for word in reversed(words):
        if word == "defaults":
            continue
        key: object = _TMPFS_FLAGS.get(word)
        if key is None:
            name, equals, _ = word.partition("=")
            if not equals or name not in _TMPFS_DATA:
                raise InvalidParameter(f'invalid tmpfs option "{word}"')
            key = name
        if key not in seen:
            seen.add(key)
            kept.append(word)
    return tuple(reversed(kept))


def missing_source(source: str) -> InvalidParameter:
    return _config("bind", f"bind source path does not exist: {source}")


def clean(path: str) -> str:
    """An absolute path without "//", "." and ".."; normpath keeps two leading slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _tmpfs(target: str, words: list[str]) -> UserMount:
    options = merge_tmpfs_options([*_TMPFS_DEFAULTS, *words])
    return UserMount("tmpfs", "tmpfs", target, readonly="ro" in options, options=options)


def _parse_mount(entry: Mount) -> UserMount:
    if not entry.Target:
        raise _config(entry.Type, "field Target must not be empty")
    _check_mount(entry.Target, entry.Type)
    target = clean(entry.Target)
    match entry.Type:
        case "bind":
            return _parse_bind_mount(entry, target)
        case "tmpfs":
            if entry.BindOptions is not None:
                raise _config("tmpfs", "field BindOptions must not be specified")
            if entry.Source:
                raise _config("tmpfs", "field Source must not be specified")
            return _tmpfs(target, _tmpfs_words(entry.TmpfsOptions, readonly=entry.ReadOnly))
        case "volume":
            raise Unsupported(f"volume '{entry.Source or target}': {_NO_VOLUMES}")
        case "image" | "npipe" | "cluster":
            raise Unsupported(f"mounts of type '{entry.Type}' are not supported")
        case _:
            raise _config(entry.Type, "mount type unknown")


def _parse_bind_mount(entry: Mount, target: str) -> UserMount:
    if not entry.Source:
        raise _config("bind", "field Source must not be empty")
    if entry.VolumeOptions is not None:
        raise _config("bind", "field VolumeOptions must not be specified")
    if not posixpath.isabs(entry.Source):
        raise _config("bind", f"invalid mount path: '{entry.Source}' mount path must be absolute")
    options = entry.BindOptions
    propagation = (options.Propagation if options else "") or DEFAULT_PROPAGATION
    if propagation not in PROPAGATIONS:
        raise _config("bind", f"invalid propagation mode: {propagation}")
    return UserMount(
        "bind",
        clean(entry.Source),
        target,
        readonly=entry.ReadOnly,
        propagation=propagation,
        recursive=not (options and options.NonRecursive),
        readonly_recursive=not (options and options.ReadOnlyNonRecursive),
        create=bool(options and options.CreateMountpoint),
    )


def _tmpfs_words(options: TmpfsOptions | None, *, readonly: bool) -> list[str]:
    words = ["ro"] if readonly else []
    if options:
        if options.Mode:
            words.append(f"mode={options.Mode:o}")
        if options.SizeBytes:
            words.append(f"size={options.SizeBytes}")
        for option in options.Options:
            if not 1 <= len(option) <= 2:
                raise _config("tmpfs", "invalid option array length")
            if option[0] not in ("exec", "noexec"):
                raise _config("tmpfs", f"invalid option: {option[0]}")
            words.append("=".join(option))
    return words


def _check_source(entry: Mount) -> None:
    create = entry.BindOptions is not None and entry.BindOptions.CreateMountpoint
    if entry.Type == "bind" and not create and not os.path.exists(entry.Source):
        raise missing_source(entry.Source)


def _check_mount(target: str, kind: str) -> None:
    try:
        _check_target(target)
    except InvalidParameter as exc:
        raise _config(kind, exc.message) from exc


def _check_target(target: str) -> None:
    if target.startswith("/") and clean(target) == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{target}' mount path must be absolute")


def _valid_mode(mode: str) -> bool:
    """Whether each word is a mode, and none of a kind comes twice; "" is valid."""
    if not mode:
        return True
    words = mode.split(",")
    return _ALL_MODES.issuperset(words) and all(
        sum(word in kind for word in words) <= 1 for kind in _MODES
    )


def _invalid(raw: str) -> InvalidParameter:
    return InvalidParameter(f"invalid volume specification: '{raw}'")


def _config(kind: str, problem: str) -> InvalidParameter:
    return InvalidParameter(f'invalid mount config for type "{kind}": {problem}')
