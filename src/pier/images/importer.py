"""`docker import`: the tar of a root file system becomes an image of one layer."""

from typing import BinaryIO

import msgspec

from pier.images.changes import apply_changes
from pier.images.store import Image, ImageStore
from pier.model.container import ContainerConfig
from pier.model.gotime import now
from pier.model.oci import DOCKER_LAYER, History, ImageConfig, RootFS, chain_ids
from pier.model.platform import host_platform, parse_platform
from pier.model.reference import parse_repo_tag
from pier.storage.layers import Layer

READ_BYTES = 1 << 20
SUFFIXES = {"gzip": ".gzip", "zstd": ".zstd"}


def import_image(
    store: ImageStore,
    source: BinaryIO,
    *,
    repo: str = "",
    tag: str = "",
    message: str = "",
    changes: list[str],
    platform: str = "",
) -> Image:
    """Make an image of a root file system, tar of any compression; durable on return.

    Raises InvalidParameter (also TarError) for bad input, before anything is read where it can be
    told before, and OSError; then nothing is left.
    """
    names = [parse_repo_tag(repo, tag)] if repo else []
    made_for = parse_platform(platform) if platform else host_platform()
    container = ContainerConfig()
    apply_changes(container, changes)
    created = now()
    with store.blobs.ingest() as blob:
        while chunk := source.read(READ_BYTES):
            blob.write(chunk)
        with blob.reader() as received:
            staged = store.layers.unpack(received, digest=blob.digest, size=blob.size)
        config = ImageConfig(
            architecture=made_for.architecture,
            os=made_for.os or "linux",
            variant=made_for.variant,
            created=created,
            config=container,
            rootfs=RootFS(diff_ids=[staged.diff_id]),
            history=[History(created=created, comment=message or "Imported from -")],
            comment=message or "Imported from -",
        )
        chain_id = chain_ids([staged.diff_id])[0]
        try:
            digest = blob.commit()
        except BaseException:
            store.layers.throw_away(staged)
            raise
        store.layers.adopt(staged, chain_id)
        media_type = DOCKER_LAYER + SUFFIXES.get(staged.compression, "")
        layer = store.layers.get(chain_id) or Layer(
            chain_id, staged.diff_id, digest, media_type, staged.size
        )
        return store.add(msgspec.json.encode(config), [layer], names=names)
