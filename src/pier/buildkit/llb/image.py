"""Files that were solved, as an image to be exported: what its configuration says is the client's."""

import msgspec
from msgspec.structs import replace

from pier.build.words import DEFAULT_PATH
from pier.errors import InvalidParameter
from pier.images.commit import encode_config
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.container import ContainerConfig
from pier.model.gotime import now
from pier.model.oci import History, ImageConfig, RootFS
from pier.model.platform import Platform


def dress(
    store: ImageStore, image: Image | None, given: bytes, platform: Platform, pins: Pins
) -> Image:
    """Return an image of the same layers with a configuration, a plain one where none is given.

    Blocking. Raises InvalidParameter, OSError.
    """
    diff_ids = image.config.rootfs.diff_ids if image else []
    if given:
        try:
            config = msgspec.json.decode(given, type=ImageConfig)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise InvalidParameter(f"failed to unmarshal image config: {exc}") from exc
        said = sum(not step.empty_layer for step in config.history)
        history = config.history if said == len(diff_ids) else _history(image)
    else:
        plain = ContainerConfig(Env=[DEFAULT_PATH], WorkingDir="/")
        config = ImageConfig(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            config=plain,
        )
        history = _history(image)
    created = config.created or (image.config.created if image else now())
    made = replace(config, created=created, rootfs=RootFS(diff_ids=list(diff_ids)), history=history)
    layers = [store.hold_layer(pins, chain_id) for chain_id in (image.chain_ids if image else ())]
    with store.blobs.ingest() as writer:
        writer.write(encode_config(made))
        pins.add(writer.digest)
        digest = writer.digest if store.blobs.exists(writer.digest) else writer.commit()
    return store.register(digest, layers, parent=image.id if image else "")


def _history(image: Image | None) -> list[History]:
    return list(image.config.history) if image else []
