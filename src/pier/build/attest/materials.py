"""What a build has read, as provenance names it."""

from pier.build.attest.statement import image_purl
from pier.build.result import Material
from pier.errors import InvalidParameter
from pier.images.image import Image
from pier.model.digest import Digest, algorithm_of, hex_of


def image_material(name: str, image: Image) -> Material:
    """Return an image by the name that a Dockerfile calls it, with the digest that it resolves to:
    the index's, the manifest's, or its ID where it never had either.
    """
    digest = Digest(image.index or image.manifest or image.id)
    try:
        uri = image_purl(name, image.config.platform)
    except InvalidParameter:
        uri = f"pkg:docker/{image.id}"  # an ID
    return Material(uri, {algorithm_of(digest): hex_of(digest)})
