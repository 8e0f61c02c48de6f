"""MergeOp and DiffOp: layers put on others, and taken from below them (buildkit docs/dev/merge-diff.md)."""

import contextlib
import os
from collections.abc import Sequence
from functools import partial

from pier.build.cache import key_of
from pier.build.snapshot import copy_layer
from pier.build.threads import finished
from pier.buildkit.llb.difference import write_difference
from pier.buildkit.llb.files import (
    DIRECTORY,
    SCRATCH,
    Files,
    Solving,
    as_image,
    open_files,
    save_layer,
)
from pier.images.image import Image


async def merge(solving: Solving, inputs: Sequence[Files], name: str) -> Files:
    """Put the layers of each on those before it. Raises PierError, OSError."""
    images = [image for f in inputs if (image := await as_image(solving, f, name)) is not None]
    images = [image for image in images if image.chain_ids]
    if not images:
        return SCRATCH
    result = images[0]
    for image in images[1:]:
        result = await _stack(solving, result, image, 0, name) or result
    return Files(result)


async def diff(solving: Solving, lower: Files, upper: Files, name: str) -> Files:
    """Return what makes `upper` of `lower`: the layers on top of it, or what differs.

    Raises PierError, OSError.
    """
    below = await as_image(solving, lower, name)
    above = await as_image(solving, upper, name)
    chain = below.chain_ids if below else ()
    other = above.chain_ids if above else ()
    if not chain:
        return SCRATCH if above is None or not other else Files(above)
    if above is not None and len(other) >= len(chain) and other[: len(chain)] == chain:
        return Files(await _stack(solving, None, above, len(chain), name))
    made = await finished(solving.shop.executor, partial(_difference, solving, lower, upper))
    return Files(await save_layer(solving, None, made, name))


def _difference(solving: Solving, lower: Files, upper: Files) -> str:
    """Write what differs into a directory; return it. Blocking."""
    place = solving.scratch.directory()
    with contextlib.ExitStack() as stack:
        fds = [open_files(solving, lower), open_files(solving, upper)]
        fds.append(os.open(place, DIRECTORY))
        for fd in fds:
            stack.callback(os.close, fd)
        write_difference(*fds)
    return place


async def _stack(
    solving: Solving, below: Image | None, image: Image, start: int, name: str
) -> Image | None:
    """Put an image's layers from number `start` on onto another image, one after another."""
    shop = solving.shop
    result = below
    for chain_id, diff_id in zip(
        image.chain_ids[start:], image.config.rootfs.diff_ids[start:], strict=True
    ):
        on = result.chain_ids[-1] if result is not None and result.chain_ids else ""
        key = key_of(None, ["LLB layer", on, diff_id, str(solving.platform)])
        async with shop.cache.building(key):
            found = shop.cache.find(key)
            if found is not None and result is not None and found.parent != result.id:
                found = None  # the same layers under another history
            if found is None:
                copy = partial(copy_layer, shop.store, chain_id, solving.scratch.directory())
                upper = await finished(shop.executor, copy)
                found = await save_layer(solving, result, upper, name)
                shop.cache.add(key, found, result, name)
            result = solving.held(found)
    return result
