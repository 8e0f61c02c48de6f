"""A step becomes an image: its config, one more entry of history, and perhaps a layer.

What a step changed is an overlay's upper directory, which becomes the layer by a rename, without
being copied. Its tar is the layer's blob, uncompressed, as with `images/commit.py`: it is hashed and
not written, since it can be assembled of the layer (`storage/recipe.py`).
"""

import contextlib
import os
import stat
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from pier.errors import NotFound
from pier.images.commit import EMPTY_LAYER, encode_config
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from pier.model.container import ContainerConfig
from pier.model.digest import Digest, finish, new_hash
from pier.model.gotime import format_ns, now
from pier.model.oci import OCI_LAYER, History, ImageConfig, RootFS, chain_ids
from pier.model.platform import Platform
from pier.storage.copy import copy_tree
from pier.storage.diff import layer_tar
from pier.storage.layers import Layer, Staged
from pier.storage.merged import MergedDirectory
from pier.storage.placeholders import DIRECTORIES, FILES, PARENTS, Placeholders
from pier.storage.recipe import RecipeWriter
from pier.storage.stacked import open_stacked
from pier.storage.tree import remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000


class Made(Struct, frozen=True):
    """What a step makes: `upper` is the directory with its changes, "" when it has none.

    `upper` is taken: it is moved into the store or thrown away. `parent` None is scratch.
    `epoch` is SOURCE_DATE_EPOCH: nothing is younger than that.
    `stubs` are where something was mounted in a container: what is there, empty, and not in the
    parent, goes, and so does what the runtime made to mount on. None: there was no container.
    `layer` is the chain ID of a layer that is there already and needs no `upper`.
    `created` (RFC 3339) is when it was made, "" for now.
    """

    parent: Image | None
    config: ContainerConfig
    created_by: str
    platform: Platform
    upper: str = ""
    author: str = ""
    epoch: int | None = None
    stubs: Sequence[str] | None = None
    layer: str = ""
    created: str = ""


def save(store: ImageStore, made: Made, held: Pins) -> Image:
    """Add the image, held by `held` from its first moment on. Blocking.

    Raises NotFound for layers that went, OSError.
    """
    parent = made.parent
    base = parent.config if parent else _scratch(made.platform)
    created = made.created or now()
    if made.epoch is not None:
        created = format_ns(made.epoch * _SECOND)
    with store.pinned() as pins:
        chain = list(parent.chain_ids) if parent else []
        pins.add(*chain)
        layers = [_known(store, chain_id) for chain_id in chain]
        diff_ids = list(base.rootfs.diff_ids)
        added = _known(store, made.layer) if made.layer else None
        if made.upper:
            added = _add_layer(store, made, diff_ids, pins)
        if added is not None:
            layers.append(added)
            diff_ids.append(added.diff_id)
        author = made.author or base.author
        step = History(
            created=created,
            created_by=made.created_by,
            author=author,
            empty_layer=added is None,
        )
        config = replace(
            base,
            created=created,
            author=author,
            comment="",
            config=made.config,
            rootfs=RootFS(diff_ids=diff_ids),
            history=[*base.history, step],
            docker_version="",
            parent="",
        )
        with store.blobs.ingest() as writer:
            writer.write(encode_config(config))
            held.add(writer.digest)
            digest = writer.digest if store.blobs.exists(writer.digest) else writer.commit()
        return store.register(digest, layers, parent=parent.id if parent else "")


def open_image(store: ImageStore, image: Image) -> int:
    """Return an image's root directory, read-only, the caller's to close. Blocking. Raises OSError.

    Its layers must be pinned, or in use.
    """
    paths = [store.root.join(store.layers.path(chain)) for chain in reversed(image.chain_ids)]
    return open_stacked(paths)


def copy_layer(store: ImageStore, chain_id: str, directory: str) -> str:
    """Copy a layer's files to be another layer's, in `directory`; return where. Blocking.

    Raises OSError.
    """
    upper = os.path.join(directory, "upper")
    os.mkdir(upper, 0o755)
    source_fd = os.open(store.root.join(store.layers.path(chain_id)), _DIRECTORY)
    try:
        target_fd = os.open(upper, _DIRECTORY)
        try:
            copy_tree(source_fd, target_fd, is_layer=True)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)
    return upper


def _scratch(platform: Platform) -> ImageConfig:
    return ImageConfig(architecture=platform.architecture, os=platform.os, variant=platform.variant)


def _known(store: ImageStore, chain_id: str) -> Layer:
    layer = store.layers.get(chain_id)
    if layer is None:
        raise NotFound(f"layer {chain_id} does not exist")
    return layer


def _add_layer(store: ImageStore, made: Made, below: list[str], pins: Pins) -> Layer | None:
    """Give the upper directory its place among the layers; None when it holds nothing."""
    parent = made.parent
    lower = (
        [store.root.join(store.layers.path(chain)) for chain in reversed(parent.chain_ids)]
        if parent
        else []
    )
    upper_fd = os.open(made.upper, _DIRECTORY)
    try:
        if made.stubs is not None:
            with MergedDirectory.open(lower) as image:
                _remove_placeholders(upper_fd, Placeholders(image))
                for path in made.stubs:
                    _remove_stub(upper_fd, os.fsencode(path.strip("/")), image)
        size = _settle(upper_fd, made.epoch, set())
        os.fchmod(upper_fd, 0o755)  # as of a layer that is unpacked: the root is no member of it
        os.fchown(upper_fd, 0, 0)
        place = store.root.staging("staging")
        os.mkdir(place, 0o711)
        try:
            diff_id = _hash_tar(upper_fd, place)
            if diff_id == EMPTY_LAYER:
                return None
            chain_id = chain_ids([*below, diff_id])[-1]
            pins.add(chain_id, diff_id)
            if (known := store.layers.get(chain_id)) is not None:
                return known
            os.rename(made.upper, os.path.join(place, "diff"))
            store.layers.adopt(Staged(place, diff_id, size, "", has_recipe=True), chain_id)
        finally:
            store.root.discard(place)  # it is not there any more when it has become the layer
    finally:
        os.close(upper_fd)
    return Layer(chain_id, diff_id, diff_id, OCI_LAYER, size)


def _hash_tar(upper_fd: int, place: str) -> Digest:
    """Return the digest of a directory's tar, and write its recipe in `place`."""
    recipe = RecipeWriter(place)
    try:
        hasher = new_hash()
        for piece in layer_tar(upper_fd, recipe=recipe):
            hasher.update(piece)
        diff_id = finish("sha256", hasher)
        recipe.finish(diff_id)
    finally:
        recipe.abort()
    return diff_id


def _remove_placeholders(upper_fd: int, placeholders: Placeholders) -> None:
    """Remove what the runtime made to mount on: here the directory itself becomes the layer.

    Parents first: they are told by what is in them.
    """
    for path in (*PARENTS, *sorted(FILES), *sorted(DIRECTORIES)):
        parent, _, name = path.rpartition(b"/")
        try:
            fd = os.open(parent or b".", _DIRECTORY, dir_fd=upper_fd)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if placeholders.holds(fd, name, path, found):
                remove_tree(fd, name)
        except FileNotFoundError:
            continue
        finally:
            os.close(fd)


def _remove_stub(upper_fd: int, path: bytes, image: MergedDirectory) -> None:
    """Remove an empty directory or file, and those above it that were made for it."""
    while path and image.find(path) is None:
        parent, _, name = path.rpartition(b"/")
        try:
            fd = openat2(
                upper_fd, parent or b".", _DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
            )
        except OSError:
            return
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=fd)
            elif stat.S_ISREG(found.st_mode) and not found.st_size:
                os.unlink(name, dir_fd=fd)
        except OSError:
            return  # it is not empty, or not there
        finally:
            os.close(fd)
        path = parent


def adopt(store: ImageStore, image: Image, made: Made, held: Pins) -> Image | None:
    """Make a step's image of what another image has, whose history begins with the parent's and
    goes on with this step; None when it does not. Blocking.
    """
    if not _goes_on_with(image, made):
        return None
    chain = made.parent.chain_ids if made.parent else ()
    step = image.config.history[len(made.parent.config.history) if made.parent else 0]
    end = len(chain) + (not step.empty_layer)
    if image.chain_ids[: len(chain)] != chain or len(image.chain_ids) < end:
        return None
    layer = image.chain_ids[end - 1] if end > len(chain) else ""
    with contextlib.suppress(NotFound):
        return save(store, replace(made, layer=layer, created=step.created), held)
    return None


def is_last_step(image: Image, made: Made) -> bool:
    """Tell whether a step is the one that made `image` of what it stands on."""
    before = made.parent.config.history if made.parent else []
    return (
        _goes_on_with(image, made)
        and len(image.config.history) == len(before) + 1
        and image.chain_ids[: len(made.parent.chain_ids) if made.parent else 0]
        == (made.parent.chain_ids if made.parent else ())
        and image.config.config == made.config
    )


def _goes_on_with(image: Image, made: Made) -> bool:
    before = made.parent.config.history if made.parent else []
    words = [step.created_by for step in image.config.history[: len(before) + 1]]
    return words == [*(step.created_by for step in before), made.created_by]


def _settle(fd: int, epoch: int | None, seen: set[int]) -> int:
    """Return the bytes of files below, each counted once; make what is younger as old as `epoch`."""
    total = 0
    for text in os.listdir(fd):
        name = os.fsencode(text)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            inner = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                total += _settle(inner, epoch, seen)
            finally:
                os.close(inner)
        elif stat.S_ISREG(found.st_mode) and found.st_ino not in seen:
            seen.add(found.st_ino)
            total += found.st_size
        if epoch is not None and found.st_mtime_ns > epoch * _SECOND:
            ns = (epoch * _SECOND, epoch * _SECOND)
            os.utime(name, ns=ns, dir_fd=fd, follow_symlinks=False)
    return total
