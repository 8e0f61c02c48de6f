"""`docker import`: a root file system's tar becomes an image of one layer."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pier.errors import InvalidParameter
from pier.images.changes import apply_changes
from pier.images.commit import encode_config
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource
from pier.images.store import ImageStore
from pier.model.container import ContainerConfig
from pier.model.gotime import now
from pier.model.oci import History, ImageConfig, RootFS
from pier.model.platform import host_platform, parse_platform
from pier.model.reference import parse_repo_tag
from pier.storage.decompress import CHUNK


def import_image(
    store: ImageStore,
    stream: BinaryIO,
    *,
    repo: str = "",
    tag: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    platform: str = "",
) -> Image:
    """Read a tar, of any compression, and add it as an image; to be run in a worker thread.

    `repo` is "" for an image without a name; `changes` are Dockerfile instructions. `stream` stays
    the caller's. Raises InvalidParameter, before anything is read where the parameters are wrong,
    and Internal for a full disk; then nothing was added.
    """
    reference = parse_repo_tag(repo, tag) if repo else None
    wanted = parse_platform(platform) if platform else host_platform()
    if wanted.os != host_platform().os:
        raise InvalidParameter("operating system is not supported")
    config = ContainerConfig()
    apply_changes(config, changes)
    with Intake(store) as intake:
        blob = intake.add(_pieces(stream))
        created = now()
        comment = message or "Imported from -"
        described = ImageConfig(
            architecture=wanted.architecture,
            os=wanted.os,
            variant=wanted.variant,
            created=created,
            config=config,
            rootfs=RootFS(diff_ids=[intake.diff_id(blob)]),
            history=[History(created=created, comment=comment)],
            comment=comment,
        )
        return intake.register(
            intake.add([encode_config(described)]),
            [LayerSource(blob)],
            references=[reference] if reference else [],
        )


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(CHUNK):
        yield piece
