"""Project quotas: a limit on the bytes of a directory and all below it (quotactl(2), xfs_quota(8)).

A file belongs to the project of the directory in which it is made, when that has PROJINHERIT. ext4
has them with the features "quota" and "project", and mounted with `prjquota`; XFS mounted with it. Who
has CAP_SYS_RESOURCE is not bound by them.
"""

import ctypes
import errno
import fcntl
import struct

from pier.kernel.syscalls import syscall

SYS_quotactl_fd = 443  # since Linux 5.14
PRJQUOTA = 2
Q_GETQUOTA, Q_SETQUOTA = 0x800007, 0x800008
QIF_BLIMITS = 1
BLOCK_BYTES = 1024  # QIF_DQBLKSIZE

# linux/fs.h: struct fsxattr, _IOR('X', 31), _IOW('X', 32)
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FS_XFLAG_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=5I8x")
# linux/quota.h: struct if_dqblk; hard and soft limit of blocks, bytes, the same of inodes, times
_DQBLK = struct.Struct("=8QI4x")


def project_of(fd: int) -> int:
    """Return the project of an open file, 0 for none. Raises OSError."""
    return _attributes(fd)[3]


def set_project(directory_fd: int, project: int) -> None:
    """Make an empty directory part of a project, and all that will be in it. Raises OSError."""
    flags, size, extents, _, cow_size = _attributes(directory_fd)
    packed = _FSXATTR.pack(flags | FS_XFLAG_PROJINHERIT, size, extents, project, cow_size)
    fcntl.ioctl(directory_fd, FS_IOC_FSSETXATTR, packed)


def has_project_quota(fd: int) -> bool:
    """Tell whether the file system of an open file counts what projects have."""
    try:
        _quotactl(fd, Q_GETQUOTA, 0, ctypes.create_string_buffer(_DQBLK.size))
    except OSError as exc:
        return exc.errno == errno.ENOENT  # of XFS: project 0 has nothing
    return True


def set_limit(fd: int, project: int, size: int) -> None:
    """Let a project of the file system of `fd` have `size` bytes at most. Raises OSError."""
    blocks = -(-size // BLOCK_BYTES)
    packed = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, QIF_BLIMITS)
    _quotactl(fd, Q_SETQUOTA, project, ctypes.create_string_buffer(packed, _DQBLK.size))


def usage(fd: int, project: int) -> tuple[int, int]:
    """Return how many bytes a project may have, 0 for any number, and how many it has.

    Raises OSError.
    """
    buffer = ctypes.create_string_buffer(_DQBLK.size)
    _quotactl(fd, Q_GETQUOTA, project, buffer)
    hard, _, space, *_ = _DQBLK.unpack(buffer.raw)
    return hard * BLOCK_BYTES, space


def _attributes(fd: int) -> tuple[int, int, int, int, int]:
    answer = fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))
    flags, size, extents, project, cow_size = _FSXATTR.unpack(answer)
    return flags, size, extents, project, cow_size


def _quotactl(fd: int, command: int, project: int, buffer: "ctypes.Array[ctypes.c_char]") -> None:
    word = (command << 8) | PRJQUOTA
    syscall("quotactl_fd", SYS_quotactl_fd, fd, word, project, buffer)
