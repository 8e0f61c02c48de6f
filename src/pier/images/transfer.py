"""An archive of one image for an engine that has its lower layers: a docker-archive without them.

    <hex of the image ID>.json     the config
    <hex of the diff ID>.tar       each layer that is not skipped, as it was received
    manifest.json                  names all layers, also those that are not there

Loading it gives the same image ID: `load` here, as dockerd's, asks for a layer's file only when the
layer is not known.
"""

from collections.abc import Generator

import msgspec

from pier.errors import InvalidParameter
from pier.images.store import ImageStore
from pier.model.digest import Digest, hex_of
from pier.model.reference import parse_any
from pier.storage.tar.header import Entry
from pier.storage.tar.writer import END, encode, padding

_READ_BYTES = 1 << 20


def archive(store: ImageStore, ref: str, *, skip: int) -> Generator[bytes, None, None]:
    """Yield the archive of an image without its `skip` lowest layers; content is kept meanwhile.

    What is wrong is raised before the first piece: NotFound, InvalidParameter.
    """
    image = store.get(ref)
    diff_ids = image.config.rootfs.diff_ids
    if not 0 <= skip <= len(diff_ids):
        raise InvalidParameter(f"invalid number of layers to skip: {skip} of {len(diff_ids)}")
    with store.pinned() as pins:
        pins.add(image.id, *image.chain_ids)
        blobs: dict[str, Digest] = {}
        for layer in store.hold_layers(pins, image)[skip:]:
            blobs[_layer_name(layer.diff_id)] = layer.blob
        sizes = {name: store.blobs.size(blob) for name, blob in blobs.items()}
        config_name = f"{hex_of(image.id)}.json"
        config = store.blobs.read(image.id)
        # From here on the answer's status is said.
        yield _header(config_name, len(config)) + config + padding(len(config))
        for name, blob in blobs.items():
            yield _header(name, sizes[name])
            with store.blobs.open(blob) as file:
                while piece := file.read(_READ_BYTES):
                    yield piece
            yield padding(sizes[name])
        item = {
            "Config": config_name,
            "RepoTags": _names(ref),
            "Layers": [_layer_name(diff_id) for diff_id in diff_ids],
        }
        manifest = msgspec.json.encode([item])
        yield _header("manifest.json", len(manifest)) + manifest + padding(len(manifest))
        yield END


def _names(ref: str) -> list[str]:
    """The name the image was asked for by; none for an ID or a digest."""
    reference = parse_any(ref)
    if isinstance(reference, str) or reference.digest:
        return []
    return [reference.tagged().familiar]


def _layer_name(diff_id: str) -> str:
    return f"{hex_of(Digest(diff_id))}.tar"


def _header(name: str, size: int) -> bytes:
    entry = Entry()
    entry.name, entry.mode = name.encode(), 0o644
    entry.size = entry.stored = size
    return encode(entry)
