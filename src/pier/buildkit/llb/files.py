"""What an operation has come to: an image's files, or a directory's; and from one to the other."""

import os
from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from pier.build.cache import key_of
from pier.build.context import Context
from pier.build.ignore import Ignore
from pier.build.progress import Progress
from pier.build.session import ClientSession
from pier.build.snapshot import Made, open_image, save
from pier.build.sources import Item, total
from pier.build.stage import Shop
from pier.build.threads import finished
from pier.images.image import Image
from pier.images.store import Pins
from pier.model.container import ContainerConfig
from pier.model.platform import Platform
from pier.storage.copy import copy_tree

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Files(Struct, frozen=True):
    """Those of an image, or of a directory that lives as long as the solve; neither is scratch.

    `identity` says what a directory holds, "" where only its content does.
    """

    image: Image | None = None
    directory: str = ""
    identity: str = ""

    @property
    def is_scratch(self) -> bool:
        return not self.directory and (self.image is None or not self.image.chain_ids)


SCRATCH = Files()


class Solving(Struct, frozen=True):
    """What the operations of one solve share. `scratch` holds their directories; `pins` what they
    stand on; `allowed` are entitlements.
    """

    shop: Shop
    scratch: Context
    pins: Pins
    progress: Progress
    session: ClientSession | None
    platform: Platform
    allowed: Sequence[str] = ()

    def held(self, image: Image) -> Image:
        self.pins.add(image.id, *image.chain_ids, *image.blobs)
        return image


def open_files(solving: Solving, files: Files) -> int:
    """Return the root directory, the caller's to close. Blocking. Raises OSError."""
    if files.directory:
        return os.open(files.directory, DIRECTORY)
    if files.image is None or not files.image.chain_ids:
        return os.open(solving.scratch.directory(), DIRECTORY)
    mount_fd = open_image(solving.shop.store, files.image)
    try:
        return os.open(".", DIRECTORY, dir_fd=mount_fd)  # a mount's own cannot be listed
    finally:
        os.close(mount_fd)


def identity_of(files: Files) -> str:
    """Return what tells the files from others; times do not count in a directory. Blocking."""
    if files.directory:
        if files.identity:
            return files.identity
        fd = os.open(files.directory, DIRECTORY)
        try:
            return total([Item(fd, b"", Ignore(()), keep_owner=True)])
        finally:
            os.close(fd)
    return "" if files.image is None or files.is_scratch else str(files.image.chain_ids[-1])


async def as_image(solving: Solving, files: Files, name: str) -> Image | None:
    """Return the files as an image, made of a directory when it has to be; None for scratch.

    Raises PierError, OSError.
    """
    if not files.directory:
        return files.image
    shop = solving.shop
    identity = await finished(shop.executor, partial(identity_of, files))
    key = key_of(None, ["LLB files", identity, str(solving.platform)])
    async with shop.cache.building(key):
        if (found := shop.cache.find(key)) is not None:
            return solving.held(found)
        upper = await finished(shop.executor, partial(_copy, files.directory, solving.scratch))
        image = await save_layer(solving, None, upper, name)
        shop.cache.add(key, image, None, name)
        return image


async def save_layer(
    solving: Solving,
    parent: Image | None,
    upper: str,
    name: str,
    stubs: Sequence[str] | None = None,
) -> Image:
    """Make an image of `parent` and a directory of changes, which is taken. Raises PierError."""
    made = Made(
        parent=parent,
        config=ContainerConfig(),
        created_by=name,
        platform=parent.config.platform if parent else solving.platform,
        upper=upper,
        stubs=stubs,
    )
    shop = solving.shop
    image = await finished(shop.executor, partial(save, shop.store, made, solving.pins))
    return solving.held(image)


def _copy(directory: str, scratch: Context) -> str:
    place = scratch.directory()
    source_fd, target_fd = os.open(directory, DIRECTORY), os.open(place, DIRECTORY)
    try:
        copy_tree(source_fd, target_fd)
    finally:
        os.close(source_fd)
        os.close(target_fd)
    return place
