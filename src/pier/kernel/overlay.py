"""overlayfs: make an overlay out of any number of layers (kernel Documentation, overlayfs.rst)."""

from __future__ import annotations

import errno
import os

from pier.kernel.lean import suppress
from pier.kernel.mount import AT_FDCWD, OPEN_TREE_CLONE, mount, new_mount, open_tree

# A container's layer is turned into a tar by walking it: directories must not be renamed by a
# redirect xattr, nor files split into metadata and data.
OPTIONS: tuple[tuple[str, str | None], ...] = (
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
)


def open_overlay(
    base: str, lower: list[str], upper: str, work: str, *, volatile: bool = False
) -> int:
    """Return a detached overlay mount, the caller's to close.

    `lower` (top layer first), `upper` and `work` are relative to `base`. The working directory of
    this process is changed meanwhile: fsconfig takes at most 255 bytes a value, and a path may be
    longer than that. Without `lower` the upper directory alone is the root.
    Raises OSError: EINVAL for more than some 60 layers on kernels before 6.7, which have no
    "lowerdir+".
    """
    os.chdir(base)
    try:
        if not lower:
            return open_tree(AT_FDCWD, upper, OPEN_TREE_CLONE)
        options = [*OPTIONS]
        forget_volatile(work)
        if volatile:
            options.append(("volatile", None))
        places: list[tuple[str, str | None]] = [("upperdir", upper), ("workdir", work)]
        layers: list[tuple[str, str | None]] = [("lowerdir+", layer) for layer in lower]
        try:
            return new_mount("overlay", [*layers, *places, *options], source="overlay")
        except OSError as exc:
            if not lacks_lowerdir_plus(exc):
                raise
            return _open_by_numbers([*lower, upper, work], options)
    finally:
        os.chdir("/")


def _open_by_numbers(places: list[str], options: list[tuple[str, str | None]]) -> int:
    """As `open_overlay`, with one "lowerdir" for all layers, whose names must fit 255 bytes.

    From within /proc/self/fd the name of a directory is the number of a descriptor.
    """
    fds: list[int] = []
    try:
        fds.extend(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for place in places)
        os.chdir("/proc/self/fd")
        *lower, upper, work = map(str, fds)
        words = [("lowerdir", ":".join(lower)), ("upperdir", upper), ("workdir", work), *options]
        return new_mount("overlay", words, source="overlay")
    finally:
        for fd in fds:
            os.close(fd)


def mount_overlay(
    base: str, lower: list[str], upper: str, work: str, target: str, *, volatile: bool = False
) -> None:
    """Mount an overlay on `target` by mount(2), for kernels without "lowerdir+".

    The options must fit a page, so layers are named by descriptors: 127 layers take 2 KiB.
    """
    fds: list[int] = []
    base_fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    fds.append(base_fd)
    try:
        names = []
        for layer in [*lower, upper, work]:
            fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=base_fd)
            fds.append(fd)
            names.append(f"/proc/self/fd/{fd}")
        forget_volatile(os.path.join(base, work))
        layers = ":".join(names[:-2])
        data = f"lowerdir={layers},upperdir={names[-2]},workdir={names[-1]}"
        data += "".join(f",{key}={value}" for key, value in OPTIONS)
        mount("overlay", target, "overlay", 0, data + (",volatile" if volatile else ""))
    finally:
        for fd in fds:
            os.close(fd)


def lacks_lowerdir_plus(exc: OSError) -> bool:
    """Tell whether `open_overlay` may have failed because the kernel is older than "lowerdir+".

    Before 6.5 overlayfs had no words of its own for an unknown option: any EINVAL may mean it.
    """
    return exc.errno == errno.EINVAL


def forget_volatile(work: str) -> None:
    """Remove the mark that a volatile mount leaves, which forbids using the layer again.

    The mark guards against a layer that a power cut left half written. After one, containers that
    ran with it are gone, so it can only be that of this boot; and who mounts another's layer so for
    a moment takes the mark away at once, but may be killed before.
    """
    mark = os.path.join(work, "work", "incompat", "volatile")
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(mark, "dirty"))
    with suppress(FileNotFoundError):
        os.rmdir(mark)
