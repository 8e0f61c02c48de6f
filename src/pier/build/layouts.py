"""An image out of an OCI image layout of the client's: `--build-context name=oci-layout://DIR`.

BuildKit's clients say `oci-layout://STORE:TAG@DIGEST` and lend the layout as a content store; other
clients send its directory, and STORE is what they call that.
"""

import os
from collections.abc import Callable
from concurrent.futures import Executor

from msgspec import Struct

from pier.build.caches.imported import layers_of
from pier.build.caches.places import DirectoryPlace, Lender, Place, is_index
from pier.build.session import ClientSession
from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.digest import digest_of, parse_digest
from pier.model.oci import CONFIGS, MAX_CONFIG, MAX_MANIFEST, decode_index, decode_manifest
from pier.model.platform import Platform
from pier.registry.choice import MAX_NESTING, suited

OCI_LAYOUT = "oci-layout://"


class Layout(Struct, frozen=True):
    """Which image of which layout; a tag or a digest is never both empty."""

    store: str
    tag: str
    digest: str


def parse_layout(value: str) -> Layout:
    """Read `oci-layout://STORE[:TAG][@DIGEST]`. Raises InvalidParameter."""
    name, _, digest = value.removeprefix(OCI_LAYOUT).partition("@")
    store, _, tag = name.partition(":")
    if not store:
        raise InvalidParameter(f"could not parse oci-layout reference {value!r}")
    return Layout(store, tag or "latest", parse_digest(digest) if digest else "")


async def layout_image(
    layout: Layout,
    platform: Platform,
    *,
    session: ClientSession,
    store: ImageStore,
    pins: Pins,
    executor: Executor,
    directory: Callable[[], str],
) -> Image:
    """Bring an image into the store, without a name. Raises PierError, OSError.

    `directory` makes an empty directory that goes with the build.
    """
    place: Place
    if isinstance(session, Lender):
        if not layout.digest:
            raise InvalidParameter(f"oci-layout reference {layout.store!r} has no digest")
        place = session.image_place(layout.store, layout.digest, store.blobs)
    else:
        into = os.path.join(directory(), "layout")
        os.mkdir(into, 0o755)
        await session.local(layout.store, into)
        place = DirectoryPlace(into, layout.tag, store.blobs)
    data = await _manifest(place, layout.digest, platform)
    manifest = decode_manifest(data)
    if manifest.config.mediaType not in CONFIGS:
        raise InvalidParameter(f"{manifest.config.mediaType} is no image's configuration")
    config = await place.small(manifest.config.digest, MAX_CONFIG)
    _verify(config, manifest.config.digest)
    image = await layers_of(place, store, executor, config, manifest).take(config, None, pins)
    if image is None:
        raise InvalidParameter("layers from manifest don't match image configuration")
    return image


async def _manifest(place: Place, digest: str, platform: Platform) -> bytes:
    """Return the manifest of a platform's image."""
    media_type, data = await place.manifest(digest)
    for _ in range(MAX_NESTING):
        if digest:
            _verify(data, digest)
        if len(data) > MAX_MANIFEST:
            raise InvalidParameter(f"a manifest is larger than {MAX_MANIFEST} bytes")
        if not is_index(media_type, data):
            return data
        digest = suited(decode_index(data), platform).digest
        media_type, data = await place.manifest(digest)
    raise NotFound(f"image index is nested deeper than {MAX_NESTING}")


def _verify(data: bytes, digest: str) -> None:
    if digest_of(data) != parse_digest(digest):
        raise InvalidParameter(f"content verification failed for digest {digest}")
