"""What a new container's mounts come to: volumes made and filled, images found, mounts inherited.

Order is dockerd's: `--volumes-from`, then what the user wrote, which wins at the same place, then
the paths that the image or `-v /path` declare as volumes, where nothing is yet.
"""

import os
import stat
from collections.abc import Sequence

import msgspec

from pier.engine.idmaps import settle_idmap
from pier.engine.services import Services
from pier.engine.user_mounts import (
    in_order,
    parse_all,
    parse_volume_path,
    settle_propagation,
    valid_inherited_mode,
)
from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pier.model.container import CreateRequest, HostConfig
from pier.model.mounts import MountRecord
from pier.storage.stacked import open_stacked


async def settle(
    services: Services,
    request: CreateRequest,
    image: Image,
    container_id: str,
    *,
    readonly_recursive: bool,
) -> list[MountRecord]:
    """Return the container's mounts, those nearer to the root first; its volumes exist and are its.

    `readonly_recursive` is what `ro` means in `Binds`, which have no word for it.

    On failure its new anonymous volumes are gone again; named ones stay, as with dockerd. Raises
    NotFound, InvalidParameter, Conflict, Internal.
    """
    host, declared = request.HostConfig, request.Volumes or {}
    if not (declared or host.VolumesFrom or host.Binds or host.Mounts or host.Tmpfs):
        return []
    mounts = {mount.Destination: mount for mount in _inherited(services, host)}
    mounts |= {mount.Destination: mount for mount in _wanted(services, host, readonly_recursive)}
    for path in declared:
        mount = parse_volume_path(path)
        if mount.Destination not in mounts:
            mount.is_declared = True
            mounts[mount.Destination] = mount
    settled: list[MountRecord] = []
    try:
        for mount in mounts.values():
            settled.append(mount)
            if mount.Type == "volume":
                await _settle_volume(services, mount, host, container_id)
                if mount.copies:
                    await _fill(services, mount, image, container_id)
            elif mount.Type == "image":
                mounted = services.images.get(mount.Source)
                mount.layers, mount.image = [*mounted.chain_ids], mounted.id
            elif mount.idmap:
                mount.idmap = settle_idmap(mount.idmap, request.User)
            mount.labels, mount.driver_options = {}, {}
    except BaseException:
        services.volumes.release(container_id, settled, remove=True)
        raise
    return in_order([*mounts.values()])


def _wanted(services: Services, host: HostConfig, readonly_recursive: bool) -> list[MountRecord]:
    found = parse_all(host, readonly_recursive=readonly_recursive)
    for mount in found:
        settle_propagation(mount, services.settings.data_root)
    return found


def image_mount_warnings(host: HostConfig) -> list[str]:
    """Dockerd 28 says of mounts of images that they are an experiment."""
    return ["Image mount is an experimental feature"] * any(m.Type == "image" for m in host.Mounts)


def _inherited(services: Services, host: HostConfig) -> list[MountRecord]:
    """Copies of what `--volumes-from CONTAINER[:MODE]` names."""
    found = []
    for entry in host.VolumesFrom or ():
        ref, _, mode = entry.partition(":")
        if not ref:
            raise InvalidParameter("volumes-from specification cannot be an empty string")
        if not valid_inherited_mode(mode):
            raise InvalidParameter(f"invalid mode: {mode}")
        try:
            giver = services.store.get(ref)
        except NotFound as exc:
            # To clients a 404 of the creation means that the image is missing.
            raise InvalidParameter(exc.message) from exc
        for mount in giver.record.mounts:
            if mount.is_shown:
                copied = msgspec.structs.replace(mount, copies=False)
                if mount.Type == "volume":
                    copied.Mode, copied.is_declared = "", True
                copied.RW = mount.RW and "ro" not in mode.split(",")
                found.append(copied)
    return found


async def _settle_volume(
    services: Services, mount: MountRecord, host: HostConfig, container_id: str
) -> None:
    driver = mount.Driver or host.VolumeDriver
    try:
        record = await services.volumes.ensure(
            mount.Name, driver, mount.driver_options, mount.labels
        )
    except NotFound as exc:
        # Of the driver: to clients a 404 of the creation means that the image is missing.
        raise InvalidParameter(exc.message) from exc
    mount.Name = record.Name
    mount.Driver = record.Driver
    mount.Source = services.volumes.mountpoint(record.Name)
    if not mount.Mode and not mount.is_declared:
        mount.Mode = "z"
    services.volumes.use(record.Name, container_id)


async def _fill(services: Services, mount: MountRecord, image: Image, container_id: str) -> None:
    """Copy what the image has at the mount's place into a volume that is empty."""
    layers = [services.directories.layer(chain_id) for chain_id in reversed(image.chain_ids)]
    if not layers:
        return
    with services.images.pinned() as pins:
        pins.add(*image.chain_ids)
        await services.volumes.populate(
            mount.Name,
            lambda: _open_in_image(layers, mount),
            holder=container_id,
            part=mount.subpath,
        )


def _open_in_image(layers: Sequence[str], mount: MountRecord) -> int:
    """Return the directory at a mount's place in an image, -1 for none; the caller closes it.

    Raises InvalidParameter for a declared volume where the image has a file.
    """
    root_fd = open_stacked(layers)
    try:
        fd = openat2(
            root_fd,
            os.fsencode(mount.Destination),
            os.O_RDONLY | os.O_NONBLOCK,
            resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        )
    except (FileNotFoundError, NotADirectoryError):
        return -1
    finally:
        os.close(root_fd)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        if not mount.is_declared:
            return -1
        raise InvalidParameter(
            f"cannot mount volume over existing file, file exists {mount.Destination}"
        )
    return fd
