"""`docker commit`: what a container changed becomes one more layer on top of its image.

The layer's tar stays uncompressed: then its blob is its diff ID, nothing has to be compressed to run
or save the image, the digest cannot depend on the version of a compressor, and the files are there
once (`storage/recipe.py`). Who pushes compresses.
"""

import os
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pier.errors import NotFound
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource
from pier.images.store import ImageStore
from pier.model.container import ContainerConfig
from pier.model.digest import digest_of
from pier.model.gotime import now
from pier.model.oci import History, ImageConfig, RootFS
from pier.model.reference import Reference
from pier.storage.diff import layer_tar
from pier.storage.merged import MergedDirectory
from pier.storage.placeholders import Placeholders
from pier.storage.tar.writer import END

# A layer in which nothing is: history tells of the step, and no layer is added (config.md).
EMPTY_LAYER = digest_of(END)

# What an image says of the containers to be made of it (config.md); the rest of a container's
# configuration, such as its host name, is its own.
_OF_IMAGES = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
    *("StopSignal", "StopTimeout", "ArgsEscaped", "Healthcheck", "OnBuild", "Shell"),
)


class Committed(Struct, frozen=True):
    """What is made an image of: `own` are the container's directories, `layers` those below them.

    `layers` are the directories of `parent`'s layers; both are uppermost first. `command` is what the
    container ran, for the history.
    """

    parent: Image
    own: Sequence[str]
    layers: Sequence[str]
    config: ContainerConfig
    command: str
    author: str = ""
    comment: str = ""


def commit_image(store: ImageStore, what: Committed, reference: Reference | None) -> Image:
    """Add the image; to be run in a worker thread. Raises NotFound, Internal for a full disk."""
    with Intake(store) as intake:
        created = now()
        history = [*what.parent.config.history]
        layers = [_source(store, chain_id) for chain_id in what.parent.chain_ids]
        diff_ids = list(what.parent.config.rootfs.diff_ids)
        for number in reversed(range(len(what.own))):
            blob = intake.add(_changes(what.own[number], [*what.own[number + 1 :], *what.layers]))
            if blob == EMPTY_LAYER and number:
                continue
            step = History(
                created=created,
                created_by=what.command,
                author=what.author,
                comment=what.comment,
                empty_layer=blob == EMPTY_LAYER,
            )
            history.append(step)
            if blob != EMPTY_LAYER:
                layers.append(LayerSource(blob))
                diff_ids.append(intake.diff_id(blob))
        config = replace(
            what.parent.config,
            created=created,
            author=what.author,
            comment=what.comment,
            config=_of_images(what.config),
            rootfs=RootFS(diff_ids=diff_ids),
            history=history,
            docker_version="",
            parent="",
        )
        return intake.register(
            intake.add([encode_config(config)]),
            layers,
            references=[reference] if reference else [],
            parent=what.parent.id,
        )


def encode_config(config: ImageConfig) -> bytes:
    """Encode a config of our own making: OCI leaves out what is empty, but not the root fs."""
    tree = msgspec.to_builtins(config)
    tree["rootfs"] = msgspec.to_builtins(config.rootfs)
    tree["config"] = {key: value for key, value in tree.get("config", {}).items() if value}
    return msgspec.json.encode(tree)


def _changes(upper: str, below: Sequence[str]) -> Iterator[bytes]:
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with MergedDirectory.open(below) as image:
            yield from layer_tar(fd, Placeholders(image))
    finally:
        os.close(fd)


def _source(store: ImageStore, chain_id: str) -> LayerSource:
    layer = store.layers.get(chain_id)
    if layer is None:
        raise NotFound(f"layer {chain_id} does not exist")
    return LayerSource(layer.blob, layer.media_type)


def _of_images(config: ContainerConfig) -> ContainerConfig:
    return ContainerConfig(**{name: getattr(config, name) for name in _OF_IMAGES})
