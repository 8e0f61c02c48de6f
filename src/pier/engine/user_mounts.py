"""What the user mounts into a container: `Binds`, `Mounts` and `Tmpfs`, parsed and checked.

Rules and messages are those of Docker's (moby/moby, volume/mounts/linux_parser.go). The z and Z of
a bind are for SELinux, see `security_opts`. What volumes and images come to is settled in `settle`.
"""

import os
import posixpath

from pier.engine import idmaps
from pier.errors import InvalidParameter
from pier.model.container import HostConfig, Mount, TmpfsOptions
from pier.model.mounts import DEFAULT_PROPAGATION, MountRecord

PROPAGATIONS = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
_MODES = (
    frozenset(("rw", "ro")),
    frozenset(("z", "Z")),
    PROPAGATIONS,
    frozenset(("nocopy",)),
    frozenset(("consistent", "cached", "delegated")),
    frozenset(("idmap",)),
    frozenset(("cow",)),
)
_NOT_INHERITED = PROPAGATIONS | {"nocopy", "idmap", "cow"}
_ALL_MODES = frozenset().union(*_MODES)
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

MAX_COW_SOURCE = 250
"""fsconfig(2) takes 255 bytes a value."""


def parse_all(
    host: HostConfig, *, check_sources: bool = False, readonly_recursive: bool = True
) -> list[MountRecord]:
    """Return all mounts, volumes and images as they were named, those nearer to the root first.

    `readonly_recursive` is what `ro` means in `Binds`. With `check_sources`, the source of a bind in
    `Mounts` must exist. Raises InvalidParameter in dockerd's words.
    """
    if not (host.Binds or host.Mounts or host.Tmpfs):
        return []
    found = [parse_bind(raw) for raw in host.Binds or ()]
    for bind in found:
        bind.readonly_recursive = readonly_recursive
    for entry in host.Mounts:
        found.append(parse_mount(entry))
        if check_sources:
            _check_source(entry)
    for target, options in host.Tmpfs.items():
        _check_target(target)
        tmpfs = _tmpfs(clean(target), options.split(",") if options else [])
        tmpfs.is_shown = False
        found.append(tmpfs)
    seen = set()
    for mount in found:
        if mount.Destination in seen:
            raise InvalidParameter(f"Duplicate mount point: {mount.Destination}")
        seen.add(mount.Destination)
    return in_order(found)


def in_order(mounts: list[MountRecord]) -> list[MountRecord]:
    """Those nearer to the root first, so that none hides another; else as they came."""
    return sorted(mounts, key=lambda mount: mount.Destination.count("/"))


def parse_volume_path(target: str) -> MountRecord:
    """Return the anonymous volume that a path of `Config.Volumes` stands for."""
    _check_target(target)
    return MountRecord("volume", clean(target), copies=True, anonymous=True)


def parse_bind(raw: str) -> MountRecord:
    """Parse "[source:]destination[:modes]" of `Binds` or `docker run -v`."""
    parts = raw.split(":", 3)
    if not parts[0] or len(parts) == 4:
        raise _invalid(raw)
    if len(parts) == 1:
        return parse_volume_path(parts[0])
    source, target = parts[:2]
    if len(parts) == 2 and valid_mode(target):
        raise _invalid(raw)
    mode = parts[2] if len(parts) == 3 else ""
    if not valid_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    words = mode.split(",")
    kind = "bind" if posixpath.isabs(source) else "volume"
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    try:
        _check_mount(target, kind)
        if kind == "bind" and "nocopy" in words:
            raise _config("bind", "field VolumeOptions must not be specified")
        if kind == "volume" and (propagation or "idmap" in words or "cow" in words):
            raise _config("volume", "field BindOptions must not be specified")
    except InvalidParameter as exc:
        raise InvalidParameter(f"{_invalid(raw).message}: {exc.message}") from exc
    if kind == "volume":
        return MountRecord(
            "volume",
            clean(target),
            Name=source,
            Mode=mode,
            RW="ro" not in words,
            copies="nocopy" not in words,
        )
    return _checked_cow(
        MountRecord(
            "bind",
            clean(target),
            Source=clean(source),
            Mode=mode,
            RW="ro" not in words,
            Propagation=propagation,
            create=True,
            idmap=idmaps.AUTO if "idmap" in words else "",
            cow="cow" in words,
        )
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


def settle_propagation(mount: MountRecord, data_root: str) -> None:
    """Give a bind whose propagation nobody chose its own: rslave where the source holds the data root.

    As dockerd has it: what the host mounts later appears below `-v /:/host`, and what it unmounts goes.
    Raises InvalidParameter for a chosen one that would hold what the engine mounts.
    """
    if mount.Type != "bind":
        return
    if not holds(mount.Source, data_root):
        mount.Propagation = mount.Propagation or DEFAULT_PROPAGATION
    elif not mount.Propagation:
        mount.Propagation = DEFAULT_PROPAGATION if mount.cow or mount.idmap else "rslave"
    elif mount.Propagation not in ("rslave", "rshared"):
        raise InvalidParameter(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount'
            f' source is within the daemon root, daemon root: "{data_root}", bind mount source:'
            f' "{mount.Source}", propagation: "{mount.Propagation}"'
        )


def holds(source: str, data_root: str) -> bool:
    """Whether one of the two directories lies in the other."""
    one, other = source.rstrip("/") + "/", data_root.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def missing_source(source: str) -> InvalidParameter:
    return _config("bind", f"bind source path does not exist: {source}")


def clean(path: str) -> str:
    """An absolute path without "//", "." and ".."; normpath keeps two leading slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _tmpfs(target: str, words: list[str]) -> MountRecord:
    options = merge_tmpfs_options([*_TMPFS_DEFAULTS, *words])
    return MountRecord("tmpfs", target, RW="ro" not in options, options=[*options])


def parse_mount(entry: Mount) -> MountRecord:
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
            return _parse_volume_mount(entry, target)
        case "image":
            return _parse_image_mount(entry, target)
        case _:
            raise _config(entry.Type, "mount type unknown")


def _parse_volume_mount(entry: Mount, target: str) -> MountRecord:
    if entry.BindOptions is not None:
        raise _config("volume", "field BindOptions must not be specified")
    options = entry.VolumeOptions
    subpath = options.Subpath if options else ""
    if not entry.Source and entry.ReadOnly:
        raise _config("volume", "must not set ReadOnly mode when using anonymous volumes")
    if subpath and not entry.Source:
        raise _config("volume", "must not set Subpath when using anonymous volumes")
    _check_subpath("volume", subpath)
    driver = options.DriverConfig if options else None
    return MountRecord(
        "volume",
        target,
        Name=entry.Source,
        Driver=driver.Name if driver else "",
        RW=not entry.ReadOnly,
        copies=not (options and options.NoCopy),
        anonymous=not entry.Source,
        subpath=subpath,
        labels=options.Labels if options else {},
        driver_options=driver.Options if driver else {},
    )


def _parse_image_mount(entry: Mount, target: str) -> MountRecord:
    if not entry.Source:
        raise _config("image", "field Source must not be empty")
    if entry.BindOptions is not None:
        raise _config("image", "field BindOptions must not be specified")
    if entry.VolumeOptions is not None:
        raise _config("image", "field VolumeOptions must not be specified")
    subpath = entry.ImageOptions.Subpath if entry.ImageOptions else ""
    _check_subpath("image", subpath)
    # Always read-only, whatever was asked for, as with dockerd.
    return MountRecord("image", target, Source=entry.Source, RW=False, subpath=subpath)


def _check_subpath(kind: str, subpath: str) -> None:
    if not subpath:
        return
    if posixpath.isabs(subpath) or posixpath.normpath(subpath).split("/")[0] == "..":
        # Of an image as well: these are dockerd's words.
        raise _config(kind, "subpath must be a relative path within the volume")


def _parse_bind_mount(entry: Mount, target: str) -> MountRecord:
    if not entry.Source:
        raise _config("bind", "field Source must not be empty")
    if entry.VolumeOptions is not None:
        raise _config("bind", "field VolumeOptions must not be specified")
    if not posixpath.isabs(entry.Source):
        raise _config("bind", f"invalid mount path: '{entry.Source}' mount path must be absolute")
    options = entry.BindOptions
    propagation = options.Propagation if options else ""
    if propagation and propagation not in PROPAGATIONS:
        raise _config("bind", f"invalid propagation mode: {propagation}")
    if options and options.ReadOnlyForceRecursive:
        if not entry.ReadOnly:
            raise _config("bind", "mode must be read-only to use ReadOnlyForceRecursive")
        if options.NonRecursive or options.ReadOnlyNonRecursive:
            raise _config("bind", "ReadOnlyForceRecursive cannot be combined with NonRecursive")
    return _checked_cow(
        MountRecord(
            "bind",
            target,
            Source=clean(entry.Source),
            RW=not entry.ReadOnly,
            Propagation=propagation,
            recursive=not (options and options.NonRecursive),
            readonly_recursive=not (options and options.ReadOnlyNonRecursive),
            create=bool(options and options.CreateMountpoint),
            idmap=options.IDMap if options else "",
            cow=bool(options and options.CopyOnWrite),
        )
    )


def _checked_cow(mount: MountRecord) -> MountRecord:
    """Raises InvalidParameter for what an overlay cannot be as well."""
    if not mount.cow:
        return mount
    if not mount.RW:
        raise _config("bind", "cow is for what is written, and the mount is read-only")
    if mount.idmap or mount.Propagation not in ("", DEFAULT_PROPAGATION):
        raise _config("bind", "cow cannot be combined with idmap or a propagation")
    if len(os.fsencode(mount.Source)) > MAX_COW_SOURCE:
        raise _config("bind", f"the source of cow is longer than {MAX_COW_SOURCE} bytes")
    return mount


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


def valid_mode(mode: str) -> bool:
    """Whether each word is a mode, and none of a kind comes twice; "" is valid."""
    if not mode:
        return True
    words = mode.split(",")
    return _ALL_MODES.issuperset(words) and all(
        sum(word in kind for word in words) <= 1 for kind in _MODES
    )


def valid_inherited_mode(mode: str) -> bool:
    """Whether `--volumes-from` takes it: only what may differ from the giver's own mount."""
    return valid_mode(mode) and _NOT_INHERITED.isdisjoint(mode.split(","))


def _invalid(raw: str) -> InvalidParameter:
    return InvalidParameter(f"invalid volume specification: '{raw}'")


def _config(kind: str, problem: str) -> InvalidParameter:
    return InvalidParameter(f'invalid mount config for type "{kind}": {problem}')
