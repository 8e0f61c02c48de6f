"""In-toto statements that an image's index has beside it, as BuildKit attaches them.

An attestation is a manifest of the same index whose annotations name the manifest it speaks of; its
layers are the statements, each with the type of its predicate as an annotation.
"""

from collections.abc import Iterator, Sequence

from msgspec import UNSET, Raw

from pier.errors import NotFound
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.api_images import AttestationStatement
from pier.model.digest import Digest
from pier.model.oci import Descriptor, decode_index, decode_manifest

KIND = "vnd.docker.reference.type"
SUBJECT = "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
PREDICATE = "in-toto.io/predicate-type"


def statements(
    store: ImageStore, image: Image, *, kinds: Sequence[str], whole: bool
) -> list[AttestationStatement]:
    """Return the statements on an image, of the predicate types `kinds` or of all.

    With `whole` each has its text. What the index names and is not here is passed over.
    """
    found = []
    for layer in _layers(store, image):
        kind = layer.annotations.get(PREDICATE, "")
        blob = Digest(layer.digest)
        if (kinds and kind not in kinds) or not store.blobs.exists(blob):
            continue
        text = Raw(store.blobs.read(blob)) if whole else UNSET
        found.append(AttestationStatement(layer, kind, text))
    return found


def _layers(store: ImageStore, image: Image) -> Iterator[Descriptor]:
    if not image.index:
        return
    index = decode_index(store.blobs.read(Digest(image.index)))
    if all(entry.digest != image.manifest for entry in index.manifests):
        raise NotFound(f"no manifest of image {image.id} in its index")
    for entry in index.manifests:
        is_ours = entry.annotations.get(SUBJECT) == image.manifest
        if not is_ours or entry.annotations.get(KIND) != ATTESTATION:
            continue
        digest = Digest(entry.digest)
        if store.blobs.exists(digest):
            yield from decode_manifest(store.blobs.read(digest)).layers
