"""What an image's index says about the image beside it: manifests of statements (SBOM, provenance).

BuildKit's docs/attestations/attestation-storage.md: an entry of the index for platform
unknown/unknown, whose annotation names the manifest that it is about.
"""

from pier.errors import InvalidParameter, NotFound
from pier.model.digest import Digest
from pier.model.oci import Descriptor, decode_index, decode_manifest
from pier.storage.blobs import Blobs

REFERENCE_DIGEST = "vnd.docker.reference.digest"


def is_attestation(descriptor: Descriptor) -> bool:
    """Tell whether an entry of an index is no image, but says something about one."""
    return REFERENCE_DIGEST in descriptor.annotations


def attestation_blobs(blobs: Blobs, index: Digest, manifest: str) -> set[Digest]:
    """Return the blobs of all that an index says about one of its manifests, as far as it is here."""
    found: set[Digest] = set()
    try:
        entries = decode_index(blobs.read(index)).manifests
    except (NotFound, InvalidParameter):
        return found
    for entry in entries:
        if entry.annotations.get(REFERENCE_DIGEST) != manifest:
            continue
        digest = Digest(entry.digest)
        try:
            said = decode_manifest(blobs.read(digest))
        except (NotFound, InvalidParameter):
            continue  # it was pulled without
        parts = {digest, *(Digest(part.digest) for part in (said.config, *said.layers))}
        found |= {part for part in parts if blobs.exists(part)}
    return found
