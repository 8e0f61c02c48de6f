"""Execute this command anew, from where no container can write to the interpreter.

A process of ours enters the container and becomes its program there. Were its executable the
host's python, an image that has itself executed as "/proc/self/exe" could write to that
(CVE-2019-5736). So it is executed through a read-only mount that exists nowhere in the file system,
or, for a user who may not mount, out of a sealed copy in memory.
"""

import fcntl
import os
import sys

TITLE_ROOM = 64
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
F_ADD_SEALS = 1033


def hide() -> None:
    """Let no process of a container look into those of ours that enter it, nor take them over.

    They are root's of the host while they join its namespaces, and hold descriptors of the host's.
    A user's keep what the maps of a new namespace are written by: `userns` hides them in its place.
    """
    if os.geteuid() == 0:
        from pier.kernel.process import PR_SET_DUMPABLE, prctl

        prctl(PR_SET_DUMPABLE, 0)


def execute_protected() -> None:
    """Replace this process by the same command, protected. Raises OSError."""
    # Not `sys.executable`, which in a virtual environment is a link, perhaps of the user's.
    python = os.path.realpath(sys.executable)
    root = os.path.abspath(__file__)
    for _ in range(4):
        root = os.path.dirname(root)
    code = (
        f"import sys; sys.path.append({root!r})\n"
        "from pier.runtime.cli.main import main\nmain(protected=True)"
    )
    args = [python, "-IS", "-c", code, *sys.argv[1:]]
    sys.stdout.flush()
    fd = _readonly_mount(python)
    if fd < 0:
        fd = _sealed_copy(python)
    os.execve(fd, args, os.environ)  # noqa: S606


def _readonly_mount(path: str) -> int:
    """Open a file through a read-only detached mount of it; -1 where we may not mount."""
    from pier.kernel import mount as mnt

    try:
        mount_fd = mnt.open_tree(mnt.AT_FDCWD, path, mnt.OPEN_TREE_CLONE)
    except PermissionError:
        return -1
    mnt.mount_setattr(mount_fd, mnt.MOUNT_ATTR_RDONLY)
    return mount_fd


def _sealed_copy(path: str) -> int:
    copy_fd = os.memfd_create("python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        while left:
            left -= os.sendfile(copy_fd, file.fileno(), None, left)
    fcntl.fcntl(copy_fd, F_ADD_SEALS, SEALS)
    return copy_fd
