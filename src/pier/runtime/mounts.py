"""The `mounts` of config.json: each entry becomes a detached mount and is attached in the root.

Options are those of the OCI runtime specification (config.md, Mounts) and mount(8). What is a flag
of the mount is set on the detached mount, what is a flag of the file system goes to its context.
Bind mounts that only the keeper can make (`sources`) arrive ready.
"""

from __future__ import annotations

import errno
import os
import stat

from pier.kernel import mount as mnt
from pier.kernel.cgroups import Hierarchies, namespace_mounts
from pier.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from pier.runtime.rootfs import O_PATH_CLOEXEC, Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.runtime.made import Made
    from pier.runtime.spec import Mount

# Option → (attributes to set, attributes to clear). Prefixed with "r", the same for the whole tree.
ATTRIBUTES = {
    "ro": (mnt.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mnt.MOUNT_ATTR_RDONLY),
    "nosuid": (mnt.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mnt.MOUNT_ATTR_NOSUID),
    "nodev": (mnt.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mnt.MOUNT_ATTR_NODEV),
    "noexec": (mnt.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mnt.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (mnt.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, mnt.MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (mnt.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, mnt.MOUNT_ATTR_NODIRATIME),
    "relatime": (mnt.MOUNT_ATTR_RELATIME, mnt.MOUNT_ATTR__ATIME),
    "norelatime": (mnt.MOUNT_ATTR_STRICTATIME, mnt.MOUNT_ATTR__ATIME),
    "noatime": (mnt.MOUNT_ATTR_NOATIME, mnt.MOUNT_ATTR__ATIME),
    "atime": (mnt.MOUNT_ATTR_RELATIME, mnt.MOUNT_ATTR__ATIME),
    "strictatime": (mnt.MOUNT_ATTR_STRICTATIME, mnt.MOUNT_ATTR__ATIME),
    "nostrictatime": (mnt.MOUNT_ATTR_RELATIME, mnt.MOUNT_ATTR__ATIME),
}
RECURSIVE_ATTRIBUTES = {"r" + name: value for name, value in ATTRIBUTES.items()}
PROPAGATIONS = {
    "private": mnt.MS_PRIVATE,
    "slave": mnt.MS_SLAVE,
    "shared": mnt.MS_SHARED,
    "unbindable": mnt.MS_UNBINDABLE,
}
RECURSIVE_PROPAGATIONS = {"r" + name: value for name, value in PROPAGATIONS.items()}
SUPERBLOCK_FLAGS = frozenset(("sync", "dirsync", "lazytime", "mand", "silent"))
NEGATED_SUPERBLOCK_FLAGS = frozenset(("async", "nolazytime", "nomand", "loud", "defaults"))
UNSUPPORTED = frozenset(("copy-symlink",))
# What runc lets be mounted inside /proc: files that say less, as lxcfs has them.
ALLOWED_IN_PROC = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)
PROC_ROOT_INO = 1
PLAIN = mnt.MOUNT_ATTR_NOSUID | mnt.MOUNT_ATTR_NODEV | mnt.MOUNT_ATTR_NOEXEC
# What is made ahead for the hierarchies of cgroup v1, in place of a `key`.
CGROUP_ROOT = "cgroup"


class Options:
    """The options of one entry, sorted by where they go."""

    def __init__(self, words: list[str]) -> None:
        self.bind = False
        self.bind_recursive = False
        self.remount = self.copy_up = False
        self.idmap = self.idmap_recursive = False
        self.attr_set = self.attr_clr = 0
        self.recursive_set = self.recursive_clr = 0
        self.propagation = self.recursive_propagation = 0
        self.data: list[tuple[str, str | None]] = []
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self._asks(word):
            return
        if word in ATTRIBUTES:
            to_set, to_clear = ATTRIBUTES[word]
            self.attr_set = self.attr_set & ~to_clear | to_set
            self.attr_clr = self.attr_clr & ~to_set | to_clear
        elif word in RECURSIVE_ATTRIBUTES:
            to_set, to_clear = RECURSIVE_ATTRIBUTES[word]
            self.recursive_set = self.recursive_set & ~to_clear | to_set
            self.recursive_clr = self.recursive_clr & ~to_set | to_clear
        elif word in PROPAGATIONS:
            self.propagation = PROPAGATIONS[word]
        elif word in RECURSIVE_PROPAGATIONS:
            self.recursive_propagation = RECURSIVE_PROPAGATIONS[word]
        elif word in SUPERBLOCK_FLAGS:
            self.data.append((word, None))
        elif word not in NEGATED_SUPERBLOCK_FLAGS:
            key, equals, value = word.partition("=")
            self.data.append((key, value if equals else None))

    def _asks(self, word: str) -> bool:
        """Take a word that says what to do, and is no flag of anything; True if it was one."""
        match word:
            case "bind" | "rbind":
                self.bind, self.bind_recursive = True, word == "rbind"
            case "idmap" | "ridmap":
                self.idmap, self.idmap_recursive = True, word == "ridmap"
            case "tmpcopyup":
                self.copy_up = True
            case "remount":
                self.remount = True
            case _ if word in UNSUPPORTED:
                raise OSError(errno.ENOTSUP, f"mount option {word!r} is not supported")
            case _:
                return False
        return True

    def apply(self, mount_fd: int) -> None:
        """Set attributes and propagation on a detached mount."""
        if self.attr_set or self.attr_clr:
            mnt.mount_setattr(mount_fd, self.attr_set, attr_clr=self.attr_clr)
        if self.recursive_set or self.recursive_clr:
            mnt.mount_setattr(
                mount_fd, self.recursive_set, attr_clr=self.recursive_clr, recursive=True
            )
        if self.recursive_propagation:
            mnt.mount_setattr(mount_fd, 0, propagation=self.recursive_propagation, recursive=True)
        if self.propagation:
            mnt.mount_setattr(mount_fd, 0, propagation=self.propagation)


def attach(
    root: Root,
    entry: Mount,
    hierarchies: Hierarchies,
    cgroup: str | None,
    *,
    bundle: str = "",
    source_fd: int = -1,
    made: Made | None = None,
) -> int | None:
    """Make the mount that `entry` describes and attach it in the root.

    `cgroup` is the container's cgroup, None when it joined another cgroup namespace. `source_fd`
    is the mount itself if the keeper made it; it is closed here. A relative source is the bundle's.
    `made` are file systems that were made ahead; the one that is used is taken out.
    Returns the mount's descriptor, the caller's to close, for the file systems whose contents the
    set-up goes on to use (proc, devpts), so that it need not trust a path for them; else None.
    Raises OSError.
    """
    if made is not None and (made_fd := made.fds.pop(key(entry), -1)) >= 0:
        return _attach_made(root, entry, made_fd, is_there=key(entry) in made.nested)
    options = Options(entry.get("options", []))
    fstype = entry.get("type", "")
    destination = entry["destination"]
    # Devices and mount points are still to be made in it.
    late = not options.remount and (fstype == "tmpfs" or os.path.normpath(destination) == "/dev")
    late_flags = options.attr_set & mnt.MOUNT_ATTR_RDONLY if late else 0
    options.attr_set &= ~late_flags
    if source_fd >= 0:
        _attach_file_or_directory(root, source_fd, destination)
    elif options.remount:
        _remount(root, destination, options)
    elif options.bind or fstype == "bind":
        mount_fd = bind(entry, options, bundle)
        if late_flags:
            root.late_fds.append(os.dup(mount_fd))
        _attach_file_or_directory(root, mount_fd, destination)
    elif fstype in ("cgroup", "cgroup2"):
        _attach_cgroup(root, destination, options, hierarchies, cgroup, made)
    else:
        return _attach_new(root, entry, fstype, options, late=bool(late_flags))
    return None


def key(entry: Mount) -> str:
    """What has to be the same for a file system that was made ahead."""
    words = (entry["destination"], entry.get("type", ""), entry.get("source", ""))
    return " ".join((*words, *entry.get("options", ())))


def make(entry: Mount) -> int:
    """Make a file system as a detached mount with its flags; the caller closes it."""
    options = Options(entry["options"])
    mount_fd = mnt.new_mount(entry["type"], options.data, source=entry["source"])
    options.apply(mount_fd)
    return mount_fd


def _attach_made(root: Root, entry: Mount, mount_fd: int, *, is_there: bool) -> int | None:
    """Attach a mount of `make`'s, unless it came with another; returns what `attach` does."""
    destination = entry["destination"]
    if entry["type"] == "proc":
        root.attach_plainly(mount_fd, destination)
        return mount_fd
    if not is_there:
        _attach_at(root, mount_fd, root.make_directory(destination), destination)
    if entry["type"] == "devpts":
        return mount_fd
    os.close(mount_fd)
    return None


def _attach_new(
    root: Root, entry: Mount, fstype: str, options: Options, *, late: bool
) -> int | None:
    """Attach a file system of its own: what `attach` returns. `late`: read-only at the end."""
    destination = entry["destination"]
    if fstype == "tmpfs" and not any(key == "mode" for key, _ in options.data):
        _take_mode(root, destination, options)
    mount_fd = _new_mount(fstype, entry.get("source", "") or fstype, options)
    keep = fstype in ("proc", "devpts")
    if "subpath" in entry:
        mount_fd = _only_part(root, mount_fd, entry["subpath"])
    try:
        if options.copy_up:
            _copy_up(root, fstype, destination, mount_fd)
        options.apply(mount_fd)
        if fstype in ("proc", "sysfs"):
            root.attach_plainly(mount_fd, destination)
        else:
            is_file = "subpath" in entry and not stat.S_ISDIR(os.fstat(mount_fd).st_mode)
            target_fd = root.make_file(destination) if is_file else root.make_directory(destination)
            _attach_at(root, mount_fd, target_fd, destination)
        if late:
            root.late_fds.append(os.dup(mount_fd))
    except OSError:
        keep = False
        raise
    finally:
        if not keep:
            os.close(mount_fd)
    return mount_fd if keep else None


def _take_mode(root: Root, destination: str, options: Options) -> None:
    """Give a tmpfs the permissions of the directory that it covers, if there is one."""
    try:
        covered_fd = root.open(destination, O_PATH_CLOEXEC | os.O_DIRECTORY)
    except OSError:
        return
    options.data.append(("mode", f"{stat.S_IMODE(os.fstat(covered_fd).st_mode):04o}"))
    os.close(covered_fd)


def _new_mount(fstype: str, source: str, options: Options) -> int:
    try:
        return mnt.new_mount(fstype, options.data, source=source)
    except PermissionError:
        if fstype != "sysfs":
            raise
        # In a user namespace that does not own the network namespace: the host's, as it is.
        return mnt.open_tree(mnt.AT_FDCWD, "/sys", mnt.OPEN_TREE_CLONE | mnt.AT_RECURSIVE)


def _copy_up(root: Root, fstype: str, destination: str, mount_fd: int) -> None:
    if fstype != "tmpfs":
        raise OSError(errno.EINVAL, "tmpcopyup is only for mounts of type tmpfs")
    from pier.runtime import copyup  # noqa: PLC0415  # rare, and the zygote's memory is every keeper's

    path_fd = root.make_directory(destination)
    try:
        copyup.copy_tree(path_fd, mount_fd)
    finally:
        os.close(path_fd)


def bind(entry: Mount, options: Options, bundle: str) -> int:
    """Return a detached bind mount of the entry's source with its options; the caller closes it.

    A relative source is the bundle's.
    """
    source = os.path.join(bundle, entry["source"])
    if options.data:
        raise OSError(
            errno.EINVAL, "bind mounts cannot have any filesystem-specific options applied"
        )
    if options.copy_up:
        raise OSError(errno.EINVAL, "tmpcopyup is only for mounts of type tmpfs")
    if options.idmap:
        raise OSError(errno.EPERM, "idmap mounts need the rights of the host's root")
    flags = mnt.OPEN_TREE_CLONE | (mnt.AT_RECURSIVE if options.bind_recursive else 0)
    if "subpath" in entry:
        source_fd = os.open(source, O_PATH_CLOEXEC)
        mount_fd = part_of(source_fd, entry["subpath"], flags)
    else:
        mount_fd = mnt.open_tree(mnt.AT_FDCWD, source, flags)
    try:
        options.apply(mount_fd)
    except OSError:
        os.close(mount_fd)
        raise
    return mount_fd


def _attach_file_or_directory(root: Root, mount_fd: int, destination: str) -> None:
    """Attach a bind mount, and close it."""
    try:
        directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
        target_fd = root.make_directory(destination) if directory else root.make_file(destination)
        _attach_at(root, mount_fd, target_fd, destination)
    finally:
        os.close(mount_fd)


def _only_part(root: Root, whole_fd: int, subpath: str) -> int:
    """Return a detached mount of a part of a new mount, which is closed.

    A part can be cloned only of what is mounted, so the whole is over /dev for a moment: where its
    part goes may have to become a file.
    """
    root.attach(whole_fd, "/dev", directory=True)
    place = f"/proc/self/fd/{whole_fd}"
    try:
        return part_of(os.dup(whole_fd), subpath)
    finally:
        mnt.umount2(place, mnt.MNT_DETACH)
        os.close(whole_fd)


def part_of(whole_fd: int, subpath: str, flags: int = mnt.OPEN_TREE_CLONE) -> int:
    """Return a detached mount of what is at `subpath` below `whole_fd`, which is closed.

    Whoever else has the volume may have made links of it: none that leads out is followed (EXDEV),
    and what was found is mounted by its descriptor, whatever has taken its place since.
    """
    try:
        part_fd = openat2(
            whole_fd,
            os.fsencode(subpath),
            O_PATH_CLOEXEC,
            resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
        )
    except OSError as exc:
        if exc.errno == errno.EXDEV:  # in dockerd's words
            raise OSError(exc.errno, "path concatenation escapes the base directory") from None
        raise
    finally:
        os.close(whole_fd)
    try:
        return mnt.open_tree(part_fd, "", flags | mnt.AT_EMPTY_PATH)
    finally:
        os.close(part_fd)


def _attach_at(root: Root, mount_fd: int, target_fd: int, destination: str) -> None:
    """Attach at a target that is open, unless it is of procfs; close the target."""
    try:
        check_target(root, mount_fd, target_fd, destination)
        root.attach_at(mount_fd, target_fd, destination)
    except OSError as exc:
        # The kernel's EINVAL for a file over a directory says nothing.
        if exc.errno == errno.EINVAL and _is_directory(mount_fd) != _is_directory(target_fd):
            raise OSError(errno.ENOTDIR, "not a directory") from exc
        raise
    finally:
        os.close(target_fd)


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def check_target(root: Root, mount_fd: int, target_fd: int, destination: str) -> None:
    """Raise OSError(EPERM) for a target in procfs.

    Whoever covers a part of /proc could make a fake of what the set-up, or an exec, relies on.
    """
    where = root.path_of(target_fd)
    if where == "/proc":
        if (
            mnt.file_system_type(mount_fd) != mnt.PROC_SUPER_MAGIC
            or os.fstat(mount_fd).st_ino != PROC_ROOT_INO
        ):
            text = f'"{destination}" cannot be mounted because it is not of type proc'
            raise OSError(errno.EPERM, text)
    elif where.startswith("/proc/") and where not in ALLOWED_IN_PROC:
        text = f'"{destination}" cannot be mounted because it is inside /proc'
        raise OSError(errno.EPERM, text)


def _remount(root: Root, destination: str, options: Options) -> None:
    """Change the flags of a mount that is there, mount(8)'s "remount,bind"."""
    if options.data:
        text = "a remount changes flags of the mount, not options of the file system"
        raise OSError(errno.EINVAL, text)
    target_fd = root.open(destination)
    try:
        options.apply(target_fd)
    finally:
        os.close(target_fd)


def _attach_cgroup(
    root: Root, destination: str, options: Options, hierarchies: Hierarchies, cgroup: str | None,
    made: Made | None,
) -> None:  # fmt: skip
    """Show the container's own cgroups at `destination`.

    cgroup v2 is one mount. On v1 a tmpfs holds the container's directory of each hierarchy, bound:
    it is what a new mount in a cgroup namespace shows, in half the calls, and in the host's cgroup
    namespace a new mount would show the whole hierarchy. Without `cgroup`, where a namespace was
    joined whose root we do not know, they are new mounts.
    """
    if not hierarchies.all:
        # A user's container has none of its own: what the host shows, read-only.
        host_fd = mnt.open_tree(
            mnt.AT_FDCWD, "/sys/fs/cgroup", mnt.OPEN_TREE_CLONE | mnt.AT_RECURSIVE
        )
        mnt.mount_setattr(host_fd, mnt.MOUNT_ATTR_RDONLY, recursive=True)
        _attach_file_or_directory(root, host_fd, destination)
        return
    attributes = PLAIN | options.attr_set
    if hierarchies.mode == "v2":
        mount_fd = mnt.new_mount("cgroup2", source="cgroup2", attributes=attributes)
        try:
            root.attach(mount_fd, destination, directory=True)
        finally:
            os.close(mount_fd)
        return
    homes = {os.path.basename(h.mount): h.mount for h in hierarchies.all}
    directory_fd = made.fds.pop(CGROUP_ROOT, -1) if made is not None else -1
    if directory_fd < 0:
        directory_fd = make_cgroup_root(hierarchies)
    try:
        root.attach(directory_fd, destination, directory=True)
        for kind, target, data in namespace_mounts(hierarchies):
            if kind != "cgroup":
                continue
            if cgroup is not None:
                mount_fd = mnt.open_tree(mnt.AT_FDCWD, homes[target] + cgroup, mnt.OPEN_TREE_CLONE)
            else:
                mount_fd = mnt.new_mount(kind, Options(data.split(",")).data, source=kind)
            try:
                # In the tmpfs that we have made: nobody else has anything in it.
                mnt.move_mount(mount_fd, directory_fd, target)
            finally:
                os.close(mount_fd)
        mnt.mount_setattr(directory_fd, attributes, recursive=True)
    finally:
        os.close(directory_fd)


def make_empty() -> int:
    """Make what masks directories: an empty tmpfs, read-only; the caller closes it."""
    attributes = mnt.MOUNT_ATTR_RDONLY | mnt.MOUNT_ATTR_NOSUID | mnt.MOUNT_ATTR_NODEV
    return mnt.new_mount(
        "tmpfs", (("size", "0k"), ("nr_inodes", "1")), source="tmpfs", attributes=attributes
    )


def make_cgroup_root(hierarchies: Hierarchies) -> int:
    """Make the tmpfs in which the hierarchies of cgroup v1 are mounted; the caller closes it."""
    mount_fd = mnt.new_mount("tmpfs", (("mode", "755"),), source="tmpfs")
    for kind, target, data in namespace_mounts(hierarchies):
        if kind == "symlink":
            os.symlink(data, target, dir_fd=mount_fd)
        elif kind == "cgroup":
            os.mkdir(target, 0o755, dir_fd=mount_fd)
    return mount_fd
