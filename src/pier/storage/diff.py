"""A container's upper directory becomes a layer: the changes on top of its image, as a tar.

Kernel overlayfs.rst says how an upperdir notes "deleted", image-spec layer.md how a layer does: the
character device 0:0 becomes `.wh.name`, the xattr trusted.overlay.opaque=y `.wh..wh..opq` in its
directory. Members are sorted by name, whiteouts carry nothing but their name, and the root directory
is no member (as with Docker): the same changes give the same tar, whoever made them and when they
were unpacked.
"""

import os
import stat
from collections.abc import Iterator

from pier.storage.pack import Packer, joined
from pier.storage.placeholders import Placeholders
from pier.storage.recipe import RecipeWriter
from pier.storage.tar.writer import END
from pier.storage.whiteouts import OPAQUE, WHITEOUT, is_opaque, is_whiteout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def layer_tar(
    upper_fd: int,
    placeholders: Placeholders | None = None,
    *,
    not_after_ns: int | None = None,
    recipe: RecipeWriter | None = None,
) -> Iterator[bytes]:
    """Yield a layer's tar. `upper_fd` is a directory's descriptor and stays the caller's.

    `placeholders` knows what the runtime made for its own mounts, which is no change. What is
    younger than `not_after_ns` becomes as old as that. `recipe` is told what it is made of, for a
    directory that becomes the layer as it is. Raises OSError.
    """
    return joined(_layer(Packer(not_after_ns, recipe=recipe), upper_fd, placeholders))


def _names(fd: int) -> list[bytes]:
    """List a directory by descriptor, sorted; in bytes, as os.listdir(fd) gives surrogates."""
    return sorted(os.fsencode(name) for name in os.listdir(fd))


def _layer(packer: Packer, upper_fd: int, placeholders: Placeholders | None) -> Iterator[bytes]:
    yield from _directory(packer, upper_fd, b"", placeholders)
    yield packer.own(END)


def _directory(
    packer: Packer, fd: int, prefix: bytes, placeholders: Placeholders | None
) -> Iterator[bytes]:
    """Yield the members below a directory; it holds one descriptor a level."""
    for name in _names(fd):
        path = prefix + name
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if is_whiteout(found):
            yield packer.empty(prefix + WHITEOUT + name)
        elif placeholders is not None and placeholders.holds(fd, name, path, found):
            continue
        elif stat.S_ISDIR(found.st_mode):
            yield from packer.pack(fd, name, path, found)
            try:
                inner_fd = os.open(name, _DIRECTORY, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                if is_opaque(inner_fd):
                    yield packer.empty(path + b"/" + OPAQUE)
                yield from _directory(packer, inner_fd, path + b"/", placeholders)
            finally:
                os.close(inner_fd)
        else:
            yield from packer.pack(fd, name, path, found)
