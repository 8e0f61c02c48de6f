"""RUN --mount made ready for a container: what it stands for on the disk, and what it changes."""

import contextlib
import os
import posixpath
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

from msgspec import Struct

from pier.build.cache_mounts import CacheMounts, name_of
from pier.build.context import INSIDE, Context, outside
from pier.build.dockerfile.lines import Heredoc
from pier.build.failures import BuildFailed
from pier.build.files import SCRIPTS
from pier.build.ignore import Ignore
from pier.build.mounts import StepMount
from pier.build.session import ClientSession
from pier.build.sources import Item, total
from pier.build.step_secrets import lend
from pier.build.threads import finished
from pier.images.image import Image
from pier.kernel.openat2 import openat2
from pier.model.container import ImageOptions, Mount
from pier.storage.copy import copy_data, copy_metadata, copy_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Ready(Struct):
    """`mounts` and `tmpfs` are as in `HostConfig`; `targets` are the paths inside.

    `environment` has secrets: it is for the process and for no record.
    """

    mounts: list[Mount]
    tmpfs: dict[str, str]
    targets: list[str]
    environment: list[str]


class Surroundings(Struct, frozen=True):
    """What mounts come from. `images` are by what a step calls them; `open_image` returns the
    root directory of one, the caller's to close; `private` is where secrets may be on a disk.
    """

    context: Context
    images: Mapping[str, Image | None]
    open_image: Callable[[Image], int]
    caches: CacheMounts
    session: ClientSession | None
    private: str
    executor: Executor


def inputs(
    mounts: Sequence[StepMount], context: Context, images: Mapping[str, Image | None]
) -> list[object]:
    """Return what of their content counts for the cache. Blocking. Raises PierError, OSError."""
    found: list[object] = []
    for mount in mounts:
        if mount.kind != "bind":
            continue
        if mount.stage:
            image = images.get(mount.stage)
            found.append(image.id if image else "")
        else:
            _open_source(mount, context, close=True)
            path = os.fsencode(posixpath.normpath("/" + mount.source).lstrip("/"))
            found.append(total([Item(context.root_fd, path, Ignore(()))]))
    return found


async def prepare(
    stack: contextlib.AsyncExitStack,
    mounts: Sequence[StepMount],
    around: Surroundings,
    directory: str,
) -> Ready:
    """Make mounts ready; `stack` gives back what is held meanwhile. Raises PierError, OSError.

    `directory` is the working directory, for targets that are relative to it.
    """
    lent = await lend(stack, mounts, around.session, around.private, directory)
    ready = Ready([], {}, [str(mount.Target) for mount in lent.mounts], lent.environment)
    for mount in mounts:
        if mount.kind in ("secret", "ssh"):
            continue
        target = posixpath.normpath(posixpath.join("/", directory, mount.target))
        ready.targets.append(target)
        if mount.kind == "tmpfs":
            ready.tmpfs[target] = f"size={mount.size}" if mount.size else ""
        elif mount.kind == "cache":
            path = await _cache(stack, mount, around)
            ready.mounts.append(_bind(path, target, read_only=mount.read_only))
        elif not mount.read_only:
            path = await finished(around.executor, partial(_copy, mount, around))
            ready.mounts.append(_bind(path, target, read_only=False))
        elif bool(mount.stage) and await finished(
            around.executor, partial(_is_file, mount, around)
        ):
            path = await finished(around.executor, partial(_copy, mount, around))
            ready.mounts.append(_bind(path, target, read_only=True))
        elif mount.stage:
            ready.mounts.append(_of_image(mount, target, around.images))
        else:
            path = _open_source(mount, around.context)
            ready.mounts.append(_bind(path, target, read_only=True))
    ready.mounts += lent.mounts
    return ready


def script(document: Heredoc, context: Context) -> Mount:
    """Write a heredoc that begins with `#!` to a file, and return its mount. Raises OSError."""
    path = os.path.join(context.directory(), "script")
    with open(os.open(path, _WRITE, 0o755), "wb") as file:
        file.write(document.content.encode())
        os.fchmod(file.fileno(), 0o755)
    return _bind(path, SCRIPTS + document.name, read_only=True)


def cache_names(mounts: Sequence[StepMount], images: Mapping[str, Image | None]) -> list[str]:
    """Return the names of the cache mounts among them."""
    return [name_of(mount, _base(mount, images)) for mount in mounts if mount.kind == "cache"]


def _base(mount: StepMount, images: Mapping[str, Image | None]) -> str:
    if not mount.stage:
        return ""
    image = images.get(mount.stage)
    return f"{image.id if image else ''}:{mount.source}"


async def _cache(stack: contextlib.AsyncExitStack, mount: StepMount, around: Surroundings) -> str:
    """Hold a cache mount's directory, which begins as a copy of what `from` and `source` name."""
    base = _base(mount, around.images)

    def fill(path: str) -> None:
        source_fd = _source_fd(mount, around)
        try:
            target_fd = os.open(path, _DIRECTORY)
            try:
                copy_tree(source_fd, target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    held = around.caches.held(mount, base, fill if mount.stage else None, around.executor)
    return await stack.enter_async_context(held)


def _is_file(mount: StepMount, around: Surroundings) -> bool:
    """Tell whether a mount names a single file of an image: only directories can be mounted there."""
    fd = _source_fd(mount, around)
    try:
        return not stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _copy(mount: StepMount, around: Surroundings) -> str:
    """Copy what a bind names: the step may write to it, and it goes with the build. Blocking."""
    place = around.context.directory()
    source_fd = _source_fd(mount, around)
    try:
        found = os.fstat(source_fd)
        if stat.S_ISDIR(found.st_mode):
            target_fd = os.open(place, _DIRECTORY)
            try:
                copy_tree(source_fd, target_fd)
            finally:
                os.close(target_fd)
            return place
        path = os.path.join(place, "file")
        target_fd = os.open(path, _WRITE, 0o600)
        try:
            copy_data(source_fd, target_fd, found.st_size)
            copy_metadata(source_fd, target_fd, found)
        finally:
            os.close(target_fd)
        return path
    finally:
        os.close(source_fd)


def _source_fd(mount: StepMount, around: Surroundings) -> int:
    """Open what a mount names, for reading; the caller closes it. Raises BuildFailed, OSError."""
    path = posixpath.normpath("/" + mount.source).lstrip("/") or "."
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    image = around.images.get(mount.stage) if mount.stage else None
    if mount.stage and image is None:
        raise BuildFailed(f"the stage {mount.stage} has no files to mount")
    try:
        if image is None:
            if outside(mount.source):
                raise BuildFailed(f"forbidden path outside the build context: {mount.source} ()")
            return openat2(around.context.root_fd, os.fsencode(path), flags, resolve=INSIDE)
        root_fd = around.open_image(image)
        try:
            return openat2(root_fd, os.fsencode(path), flags, resolve=INSIDE)
        finally:
            os.close(root_fd)
    except OSError as exc:
        raise BuildFailed(f"stat {path}: {os.strerror(exc.errno or 0).lower()}") from exc


def _bind(path: str, target: str, *, read_only: bool) -> Mount:
    # It lies in the data root, where the engine chooses the propagation.
    return Mount(Type="bind", Source=path, Target=target, ReadOnly=read_only)


def _of_image(mount: StepMount, target: str, images: Mapping[str, Image | None]) -> Mount:
    image = images.get(mount.stage)
    if image is None:
        raise BuildFailed(f"the stage {mount.stage} has no files to mount")
    subpath = posixpath.normpath("/" + mount.source).strip("/")
    return Mount(
        Type="image",
        Source=image.id,
        Target=target,
        ImageOptions=ImageOptions(Subpath=subpath) if subpath else None,
    )


def _open_source(mount: StepMount, context: Context, *, close: bool = False) -> str:
    """Return the real path of a source in the context, which nobody but this build writes to."""
    if outside(mount.source):
        raise BuildFailed(f"forbidden path outside the build context: {mount.source} ()")
    path = posixpath.normpath("/" + mount.source).lstrip("/") or "."
    try:
        fd = openat2(context.root_fd, os.fsencode(path), os.O_PATH, resolve=INSIDE)
    except OSError as exc:
        raise BuildFailed(f"stat {path}: {os.strerror(exc.errno or 0).lower()}") from exc
    try:
        return "" if close else os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
