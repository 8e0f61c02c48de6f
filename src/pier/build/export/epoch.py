"""`source-date-epoch` and `rewrite-timestamp` of an output: nothing of the build is younger than that.

With the build argument SOURCE_DATE_EPOCH the steps themselves make it so (`snapshot.py`). What an
output asks for on its own is done to the finished image: its config, and with `rewrite-timestamp`
the layers above its base, which become other layers by that.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial

from msgspec.structs import replace

from pier.build.export.attributes import ImageAttributes
from pier.build.result import BuildResult, PlatformResult
from pier.build.threads import finished
from pier.errors import NotFound
from pier.images.commit import encode_config
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource
from pier.images.store import ImageStore, Pins
from pier.model.gotime import format_ns, parse_rfc3339
from pier.model.oci import History, RootFS
from pier.storage.diff import layer_tar

_SECOND = 1_000_000_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


async def at_epoch(
    result: BuildResult,
    attributes: ImageAttributes,
    store: ImageStore,
    executor: Executor,
    pins: Pins,
) -> BuildResult:
    """Return the result with what the attributes ask for done to its images. Raises OSError."""
    epoch = attributes.epoch
    if epoch is None or epoch == result.epoch:
        return result
    platforms = []
    for one in result.platforms:
        if one.image is None:
            platforms.append(one)
            continue
        work = partial(_rewrite, store, one, epoch, layers=attributes.rewrite_timestamp)
        image = await finished(executor, work)
        pins.add(image.id, *image.chain_ids, *image.blobs)
        platforms.append(replace(one, image=image))
    return replace(result, platforms=platforms, epoch=epoch)


def _rewrite(store: ImageStore, one: PlatformResult, epoch: int, *, layers: bool) -> Image:
    """Make the image anew, on the same parent."""
    image = one.image
    assert image is not None
    below = len(one.base.chain_ids) if one.base else 0
    history = len(one.base.config.history) if one.base else 0
    config = image.config
    with Intake(store) as intake:
        sources = []
        diff_ids = list(config.rootfs.diff_ids)
        for number, chain_id in enumerate(image.chain_ids):
            layer = store.layers.get(chain_id)
            if layer is None:
                raise NotFound(f"layer {chain_id} does not exist")
            source = LayerSource(layer.blob, layer.media_type)
            if layers and number >= below:
                blob = intake.add(_aged(store, chain_id, epoch))
                diff_ids[number] = intake.diff_id(blob)
                source = LayerSource(blob)
            sources.append(source)
        aged = replace(
            config,
            created=_not_after(config.created, epoch),
            rootfs=RootFS(diff_ids=diff_ids),
            history=[
                step if number < history else _older(step, epoch)
                for number, step in enumerate(config.history)
            ],
        )
        return intake.register(intake.add([encode_config(aged)]), sources, parent=image.parent)


def _aged(store: ImageStore, chain_id: str, epoch: int) -> Iterator[bytes]:
    fd = os.open(store.root.join(store.layers.path(chain_id)), _DIRECTORY)
    try:
        yield from layer_tar(fd, not_after_ns=epoch * _SECOND)
    finally:
        os.close(fd)


def _older(step: History, epoch: int) -> History:
    return replace(step, created=_not_after(step.created, epoch))


def _not_after(created: str, epoch: int) -> str:
    limit = format_ns(epoch * _SECOND)
    return limit if not created or parse_rfc3339(created) > epoch * _SECOND else created
