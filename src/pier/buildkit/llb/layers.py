"""MergeOp and DiffOp: layers put on others, and taken from below them (buildkit docs/dev/merge-diff.md)."""

from collections.abc import Sequence
from functools import partial

from pier.build.cache import key_of
from pier.build.snapshot import copy_layer
from pier.build.threads import finished
from pier.buildkit.llb.files import SCRATCH, Files, Solving, as_image, save_layer
from pier.errors import Unsupported
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
    """Return the layers that `upper` has on top of `lower`. Raises PierError, OSError."""
    below = await as_image(solving, lower, name)
    above = await as_image(solving, upper, name)
    if above is None or not above.chain_ids:
        if below is None or not below.chain_ids:
            return SCRATCH
        raise Unsupported("a diff from files to nothing is not supported by pierd")
    chain = below.chain_ids if below else ()
    if above.chain_ids[: len(chain)] != chain:
        raise Unsupported(
            "a diff of files that do not stand on each other is not supported by pierd"
        )
    if not chain:
        return Files(above)
    return Files(await _stack(solving, None, above, len(chain), name))


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
