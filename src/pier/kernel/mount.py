"""The mount API, old and new: mount(2), umount2(2), pivot_root(2), fsopen(2), open_tree(2), ….

The new calls take descriptors, which is what makes mounting into a hostile root safe: a target is
resolved once, with openat2, and `move_mount` attaches to that very directory. No policy here.
"""

from __future__ import annotations

import ctypes
import os

from pier.kernel.syscalls import (
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    call,
    function,
    syscall,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000

PROC_SUPER_MAGIC = 0x9FA0

_mount = function(
    "mount",
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)
_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)
_pivot_root = function("pivot_root", ctypes.c_char_p, ctypes.c_char_p)


class MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). `target` is a path string: only for paths that nobody hostile can touch."""
    call(_mount, os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode())


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    call(_umount2, os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); both may be ".", see its NOTES."""
    call(_pivot_root, os.fsencode(new_root), os.fsencode(put_old))


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """Open the mount at `path`, or clone it with OPEN_TREE_CLONE (and AT_RECURSIVE).

    Returns a close-on-exec descriptor, the caller's to close; a clone that was never attached is
    unmounted by the close. Confined to no root: resolve hostile paths first. Linux 5.2.
    """
    return syscall("open_tree", SYS_open_tree, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(mount_fd: int, target_fd: int, name: str = "") -> None:
    """Attach the detached mount `mount_fd` on the file or directory that `target_fd` refers to.

    With `name`, on what is called so in that directory; a link is not followed.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if name else MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", SYS_move_mount, mount_fd, b"", target_fd, os.fsencode(name), flags)


def mount_setattr(
    mount_fd: int,
    attr_set: int,
    *,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """Change the attributes of a mount, or of the tree below it. Linux 5.12.

    With MOUNT_ATTR_IDMAP `userns_fd` is the user namespace whose maps say who owns the files.
    """
    attr = MountAttr(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attr)
    syscall("mount_setattr", SYS_mount_setattr, mount_fd, b"", flags, ctypes.byref(attr), size)


def file_system_type(fd: int) -> int:
    """Return the magic number of the file system that `fd` lies on, fstatfs(2)."""
    # struct statfs begins with a long f_type, and takes 120 bytes at most.
    buffer = (ctypes.c_long * 16)()
    call(_fstatfs, fd, ctypes.addressof(buffer))
    return int(buffer[0])


def fsopen(fstype: str) -> int:
    """Open a file system context, close-on-exec, the caller's to close. Linux 5.2."""
    return syscall("fsopen", SYS_fsopen, fstype.encode(), FSOPEN_CLOEXEC)


def fsconfig_string(fs_fd: int, key: str, value: str) -> None:
    """Set one option of a context; the kernel takes at most 255 bytes of value."""
    syscall(
        "fsconfig", SYS_fsconfig, fs_fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0
    )


def fsconfig_flag(fs_fd: int, key: str) -> None:
    """Set an option that has no value."""
    syscall("fsconfig", SYS_fsconfig, fs_fd, FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsconfig_create(fs_fd: int) -> None:
    """Make the superblock that the context describes."""
    syscall("fsconfig", SYS_fsconfig, fs_fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """Return a detached mount of a created context: MOUNT_ATTR_*; the caller closes it."""
    return syscall("fsmount", SYS_fsmount, fs_fd, FSMOUNT_CLOEXEC, attributes)


def new_mount(
    fstype: str,
    options: Iterable[tuple[str, str | None]] = (),
    *,
    source: str = "",
    attributes: int = 0,
) -> int:
    """Make a detached mount of `fstype` in one go: fsopen, fsconfig, fsmount.

    `options` are (key, value) pairs, in this order; one whose value is None is a flag. The kernel's own words for a refused option are read
    from the context and become the OSError's text.
    """
    fs_fd = fsopen(fstype)
    try:
        if source:
            fsconfig_string(fs_fd, "source", source)
        for key, value in options:
            if value is None:
                fsconfig_flag(fs_fd, key)
            else:
                fsconfig_string(fs_fd, key, value)
        fsconfig_create(fs_fd)
        return fsmount(fs_fd, attributes)
    except OSError as exc:
        raise OSError(exc.errno, _reason(fs_fd, fstype, exc)) from exc
    finally:
        os.close(fs_fd)


def _reason(fs_fd: int, fstype: str, exc: OSError) -> str:
    """Read the messages that the kernel left in the context: lines such as "e overlay: …"."""
    lines = []
    try:
        while True:
            lines.append(os.read(fs_fd, 1024).decode(errors="replace").strip())
    except OSError:
        pass
    return f"mount {fstype}: {'; '.join(lines) or exc.strerror}"
