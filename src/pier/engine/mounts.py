"""The `mounts` of a container's spec: Docker's own, those of the engine's files, the user's.

See config.md of the OCI runtime specification, Mounts. A mount of the user's takes the place of
one of ours at the same destination; one of /dev takes the place of all below /dev.
"""

import errno
import hashlib
import os
import posixpath
import re

from pier.engine import defaults, etc_files
from pier.engine.idmaps import map_ids
from pier.engine.user_mounts import holds, missing_source
from pier.errors import Internal, InvalidParameter
from pier.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from pier.kernel.overlay import OPTIONS, forget_volatile
from pier.model.container import HostConfig
from pier.model.mounts import DEFAULT_PROPAGATION, MountRecord
from pier.runtime.spec import Mount
from pier.storage.cow import make_upper
from pier.storage.merged import MergedDirectory

_MOUNTINFO = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


def build(
    host: HostConfig,
    wanted: list[MountRecord],
    *,
    directory: str,
    files_directory: str,
    data_root: str,
    writable_cgroups: bool | None,
    shm: Mount | None,
) -> tuple[list[Mount], str]:
    """Return the mounts in order, and what `rootfsPropagation` they ask for ("" for nothing).

    `wanted` are the container's own, in order. `directory` is its
    data directory. `files_directory` holds hosts, hostname and resolv.conf. `shm` is what /dev/shm is to be, None
    for nothing. Touches the disk only for the user's own binds: a missing source is made where
    Docker makes it. Raises InvalidParameter, Internal.
    """
    mounts = _system(host, writable_cgroups=writable_cgroups, shm=shm)
    taken = {mount.Destination for mount in wanted}
    if taken:
        below_dev = "/dev" in taken
        mounts = [
            mount
            for mount in mounts
            if mount["destination"] not in taken
            and not (below_dev and mount["destination"].startswith("/dev/"))
        ]
    mode = ["rbind", "ro", "rprivate"] if host.ReadonlyRootfs else ["rbind", "rprivate"]
    files: list[Mount] = [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{files_directory}/{name}",
            "options": mode,
        }
        for name in etc_files.NAMES
        if f"/etc/{name}" not in taken
    ]
    propagation = ""
    users: list[Mount] = []
    for mount in wanted:
        match mount.Type:
            case "tmpfs":
                users.append(defaults.mount(mount.Destination, "tmpfs", "tmpfs", *mount.options))
            case "volume":
                users.append(_volume(mount))
            case "image":
                users.append(_image(mount, data_root))
            case "bind" if mount.cow:
                users.append(_cow(mount, directory))
            case "bind":
                users.append(_bind(mount))
        propagation = _root_propagation(mount, propagation, data_root)
    if users:
        # Nearer to the root first: a bind of /etc must not hide the files that belong into it.
        files = sorted(files + users, key=lambda mount: mount["destination"].count("/"))
    return mounts + files, propagation


def _system(host: HostConfig, *, writable_cgroups: bool | None, shm: Mount | None) -> list[Mount]:
    writable = host.Privileged if writable_cgroups is None else writable_cgroups
    mounts = [
        defaults.PROC,
        defaults.DEV,
        defaults.DEV_PTS,
        defaults.SYS_RW if host.Privileged else defaults.SYS,
        defaults.CGROUP_RW if writable else defaults.CGROUP,
        defaults.MQUEUE,
    ]
    if shm is not None:
        mounts.append(shm)
    return mounts


def _volume(mount: MountRecord) -> Mount:
    if mount.subpath:
        _check_part(mount)
    # As with dockerd: what is mounted in it on the host later is seen inside.
    options = ["rbind", "rw" if mount.RW else "rro", mount.Propagation or "rslave"]
    return _below(defaults.mount(mount.Destination, "bind", mount.Source, *options), mount.subpath)


def _image(mount: MountRecord, data_root: str) -> Mount:
    """An image is its layers, one on the other; a single one needs no overlay."""
    layers = [f"{data_root}/layers/{x.removeprefix('sha256:')}/diff" for x in mount.layers[::-1]]
    if mount.subpath:
        with MergedDirectory.open(layers) as root:
            if root.find(os.fsencode(posixpath.normpath(mount.subpath))) is None:
                raise _no_part(mount)
    if len(layers) == 1:
        entry = defaults.mount(mount.Destination, "bind", layers[0], "bind", "ro", "rprivate")
    else:
        lower = [f"lowerdir+={layer}" for layer in layers]
        entry = defaults.mount(mount.Destination, "overlay", "overlay", *lower, "ro")
    return _below(entry, mount.subpath)


def _check_part(mount: MountRecord) -> None:
    """Raises Internal in dockerd's words unless there is something at the subpath.

    The runtime looks again, and mounts what is there then; neither follows a link out.
    """
    try:
        whole_fd = os.open(mount.Source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
            os.close(openat2(whole_fd, os.fsencode(mount.subpath), os.O_PATH, resolve=flags))
        finally:
            os.close(whole_fd)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_part(mount) from None
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            raise Internal(
                "path concatenation escapes the base directory, base: "
                f"{mount.Source}, subpath: {mount.subpath}"
            ) from None
        # The runtime says what it is.


def _no_part(mount: MountRecord) -> Internal:
    path = posixpath.join(mount.Source, posixpath.normpath(mount.subpath))
    return Internal(f"cannot access path {path}: lstat {path}: no such file or directory")


def _below(entry: Mount, subpath: str) -> Mount:
    if subpath:
        entry["subpath"] = subpath
    return entry


def _bind(mount: MountRecord) -> Mount:
    _make_source(mount)
    options = ["rbind" if mount.recursive else "bind", mount.Propagation or DEFAULT_PROPAGATION]
    if not mount.RW:
        # Since Docker 25 a read-only bind is so with all mounts below it (kernel 5.12).
        options.insert(1, "rro" if mount.recursive and mount.readonly_recursive else "ro")
    return map_ids(defaults.mount(mount.Destination, "bind", mount.Source, *options), mount)


def _cow(mount: MountRecord, directory: str) -> Mount:
    """The source below an upper directory of the container's own, which is made when it is not there.

    Raises InvalidParameter, Internal.
    """
    _make_source(mount)
    place = cow_place(directory, mount.Destination)
    try:
        make_upper(place, mount.Source)
        forget_volatile(f"{place}/work")
    except NotADirectoryError:
        problem = f"cow is for directories, and {mount.Source} is none"
        raise InvalidParameter(f'invalid mount config for type "bind": {problem}') from None
    except OSError as exc:
        raise Internal(f"making a layer over {mount.Source}: {exc}") from exc
    words = [f"lowerdir+={mount.Source}", f"upperdir={place}/upper", f"workdir={place}/work"]
    words += [f"{key}={value}" for key, value in OPTIONS]
    return defaults.mount(mount.Destination, "overlay", "overlay", *words)


def cow_place(directory: str, destination: str) -> str:
    """Where a container, whose data `directory` has, keeps what it writes to a `cow` mount."""
    return f"{directory}/cow/{hashlib.sha256(os.fsencode(destination)).hexdigest()[:32]}"


def _make_source(mount: MountRecord) -> None:
    if not os.path.lexists(mount.Source):
        if not mount.create:
            raise missing_source(mount.Source)
        try:
            os.makedirs(mount.Source, mode=0o755, exist_ok=True)
        except OSError as exc:
            raise Internal(
                f"error while creating mount source path '{mount.Source}':"
                f" mkdir {mount.Source}: {os.strerror(exc.errno or 0).lower()}"
            ) from exc


def _root_propagation(mount: MountRecord, present: str, data_root: str) -> str:
    """What the root must be for the mount's own propagation to work; the strongest wins.

    Binds that hold the data root are slaves unasked, and private where there is nobody to be slave of.
    Raises InvalidParameter when the source's mount has no peers that events could come from.
    """
    if mount.Type != "bind" or mount.Propagation in ("", "private", "rprivate"):
        return present
    where, tags = _propagation_of(mount.Source)
    if mount.Propagation.endswith("shared"):
        if "shared" not in tags:
            raise InvalidParameter(
                f"path {mount.Source} is mounted on {where} but it is not a shared mount"
            )
        return "shared"
    if not tags and holds(mount.Source, data_root):
        return present
    if not tags:
        raise InvalidParameter(
            f"path {mount.Source} is mounted on {where} but it is not a shared or slave mount"
        )
    return present or "rslave"


def _propagation_of(path: str) -> tuple[str, set[str]]:
    """The mount point that holds `path`, and which of "shared" and "slave" it is.

    From mountinfo, proc_pid_mountinfo(5): field 5, and the optional ones from 7 to the "-".
    """
    real = os.fsencode(os.path.realpath(path))
    best, tags = b"/", set[str]()
    with open(_MOUNTINFO, "rb") as file:
        for line in file:
            fields = line.split(b" ")
            where = _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), fields[4])
            if len(where) < len(best) or not (real + b"/").startswith(where.rstrip(b"/") + b"/"):
                continue
            optional = fields[6 : fields.index(b"-")]
            best, tags = where, set()
            for field in optional:
                if field.startswith(b"shared:"):
                    tags.add("shared")
                elif field.startswith(b"master:"):
                    tags.add("slave")
    return os.fsdecode(best), tags
