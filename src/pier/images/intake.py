"""Layers and a config on their way to being an image: unpacked side by side, then named."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from msgspec import Struct

from pier.errors import InvalidParameter
from pier.images.store import Image, ImageStore
from pier.model.digest import Digest
from pier.model.oci import DOCKER_LAYER, chain_ids, decode_config
from pier.model.reference import Reference
from pier.storage.blobs import BlobWriter
from pier.storage.decompress import GZIP, ZSTD
from pier.storage.layers import Layer, Staged, check_diff_id

THREADS = 2
SUFFIXES = {GZIP: ".gzip", ZSTD: ".zstd"}


class Incoming(Struct):
    """A layer as it was received: a blob that is written but has no name yet.

    `media_type` is "" when the sender did not say.
    """

    blob: BlobWriter
    media_type: str = ""


def take_in(
    store: ImageStore,
    config: bytes,
    layers: Sequence[Incoming],
    *,
    manifest: str = "",
    names: list[Reference],
) -> Image:
    """Make an image out of a config and its layers, lowest first; durable on return.

    Layers that are here already are not unpacked again. Raises InvalidParameter when the layers
    are not those of the config, TarError, OSError; then nothing of it is left.
    """
    diff_ids = decode_config(config).rootfs.diff_ids
    if len(diff_ids) != len(layers):
        raise InvalidParameter(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(layers)}"
        )
    chain = chain_ids(diff_ids)
    missing = [n for n, chain_id in enumerate(chain) if store.layers.get(chain_id) is None]
    known = [layer for c in chain if (layer := store.layers.get(c)) is not None]
    with ExitStack() as undo:
        staged = _unpack_all(store, [layers[n].blob for n in missing], undo)
        for number, one in zip(missing, staged, strict=True):
            check_diff_id(one, diff_ids[number], number)
        fresh = []
        for number, one in zip(missing, staged, strict=True):
            blob = layers[number].blob.commit()
            media_type = layers[number].media_type or DOCKER_LAYER + SUFFIXES.get(
                one.compression, ""
            )
            store.layers.adopt(one, chain[number])
            fresh.append(Layer(chain[number], Digest(diff_ids[number]), blob, media_type, one.size))
        undo.pop_all()
    ordered = sorted([*known, *fresh], key=lambda layer: chain.index(layer.chain_id))
    return store.add(config, ordered, manifest=manifest, names=names)


def _unpack_all(store: ImageStore, blobs: list[BlobWriter], undo: ExitStack) -> list[Staged]:
    """Unpack layers side by side: each is on its own until the overlay stacks them."""

    def unpack(blob: BlobWriter) -> Staged:
        with blob.reader() as source:
            staged = store.layers.unpack(source, digest=blob.digest, size=blob.size)
        undo.callback(store.layers.throw_away, staged)
        return staged

    if len(blobs) == 1:
        return [unpack(blobs[0])]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="unpack") as pool:
        return list(pool.map(unpack, blobs))
