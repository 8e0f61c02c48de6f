"""The documents of an export: configs, manifests, statements and index, of layers that are there.

    index (several platforms, or attestations) ─▶ manifest ─▶ config
                                              │           └─▶ layers, in the form that was asked for
                                              └─▶ attestation manifest ─▶ statements

The same result with the same attributes gives the same bytes; what has a time in it (provenance,
the config of an image that was built without SOURCE_DATE_EPOCH) is the exception.
"""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pier.build.attest.statement import (
    AttestationManifest,
    Predicate,
    attestation_manifest,
    image_subjects,
    pretty,
    statement,
)
from pier.build.caches.document import INLINE_FIELD
from pier.build.export.attributes import Annotation, ImageAttributes
from pier.build.export.layers import Exported, LayerExports
from pier.build.progress import Work
from pier.build.result import BuildResult, PlatformResult
from pier.build.threads import finished
from pier.errors import InvalidParameter
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.digest import Digest, digest_of
from pier.model.oci import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from pier.model.platform import Platform, rank


class ComposedImage(Struct, frozen=True):
    """One platform's image. `descriptor` is its manifest's, with the platform where there is an index."""

    image: Image
    platform: Platform
    config: Digest
    layers: Sequence[Exported]
    descriptor: Descriptor


class Composed(Struct, frozen=True):
    """`top` is the index, or the only manifest; `documents` are all bytes but those of layers."""

    top: Descriptor
    images: Sequence[ComposedImage]
    attestations: Sequence[Descriptor]
    documents: Mapping[Digest, bytes]
    is_index: bool


class Composer:
    def __init__(self, store: ImageStore, layers: LayerExports, executor: Executor) -> None:
        self._store = store
        self._layers = layers
        self._executor = executor

    async def compose(
        self,
        result: BuildResult,
        attributes: ImageAttributes,
        predicates: Sequence[Sequence[Predicate]],
        work: Work,
        pins: Pins,
        *,
        oci: bool,
    ) -> Composed:
        """Make the documents; layers' blobs are written and pinned. `predicates` are those of each
        platform. Raises PierError, OSError.
        """
        is_index = result.is_list or len(result.platforms) > 1 or any(predicates)
        _check_annotations(attributes.annotations, result, is_index=is_index)
        # Only OCI's documents have annotations, and names for statements.
        oci = oci or any(predicates) or bool(attributes.annotations)
        documents: dict[Digest, bytes] = {}
        images = []
        statements: list[AttestationManifest] = []
        with work.part("exporting layers"):
            exported = [
                await self._layers.of(_image(one), attributes.compression, oci=oci, pins=pins)
                for one in result.platforms
            ]
        inline = result.inline_cache or [b""] * len(result.platforms)
        for one, layers, said, cache in zip(
            result.platforms, exported, predicates, inline, strict=True
        ):
            config = await finished(self._executor, partial(self._config, one, cache))
            made = self._manifest(one, config, layers, attributes, documents, oci=oci)
            if is_index:
                made = replace(made, descriptor=replace(made.descriptor, platform=one.platform))
            images.append(made)
            _tell(work, f"exporting manifest {made.descriptor.digest}")
            _tell(work, f"exporting config {made.config}")
            if said:
                subjects = image_subjects(attributes.names, one.platform, made.descriptor.digest)
                manifest = attestation_manifest(
                    made.descriptor,
                    [(predicate.type, statement(predicate, subjects)) for predicate in said],
                    oci=oci,
                    artifact=attributes.artifact,
                )
                documents.update(manifest.documents)
                statements.append(manifest)
                _tell(work, f"exporting attestation manifest {manifest.descriptor.digest}")
        if not is_index:
            return Composed(images[0].descriptor, images, [], documents, is_index=False)
        top = _index(images, statements, attributes, documents, oci=oci)
        _tell(work, f"exporting manifest list {top.digest}")
        described = [manifest.descriptor for manifest in statements]
        return Composed(top, images, described, documents, is_index=True)

    def _config(self, one: PlatformResult, cache: bytes) -> bytes:
        data = self._store.blobs.read(_image(one).id)
        if not cache:
            return data
        fields = msgspec.json.decode(data, type=dict[str, Any])
        fields[INLINE_FIELD] = base64.b64encode(cache).decode()
        return msgspec.json.encode(fields)

    def _manifest(
        self,
        one: PlatformResult,
        config: bytes,
        layers: Sequence[Exported],
        attributes: ImageAttributes,
        documents: dict[Digest, bytes],
        *,
        oci: bool,
    ) -> ComposedImage:
        digest = digest_of(config)
        documents[digest] = config
        media_type = OCI_MANIFEST if oci else DOCKER_MANIFEST
        fields: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": Descriptor(OCI_CONFIG if oci else DOCKER_CONFIG, digest, len(config)),
            "layers": [layer.descriptor for layer in layers],
        }
        own = attributes.annotations
        if said := _annotations(own, "manifest", one.platform, on_descriptor=False):
            fields["annotations"] = said
        data = pretty(fields)
        documents[digest_of(data)] = data
        descriptor = Descriptor(
            media_type,
            digest_of(data),
            len(data),
            annotations=_annotations(own, "manifest", one.platform, on_descriptor=True),
        )
        return ComposedImage(_image(one), one.platform, digest, layers, descriptor)


def _image(one: PlatformResult) -> Image:
    if one.image is None:
        raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
    return one.image


def _index(
    images: Sequence[ComposedImage],
    statements: Sequence[AttestationManifest],
    attributes: ImageAttributes,
    documents: dict[Digest, bytes],
    *,
    oci: bool,
) -> Descriptor:
    manifests = [i.descriptor for i in images] + [s.descriptor for s in statements]
    media_type = OCI_INDEX if oci else DOCKER_INDEX
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": manifests,
    }
    own = attributes.annotations
    if said := _annotations(own, "index", None, on_descriptor=False):
        fields["annotations"] = said
    data = pretty(fields)
    documents[digest_of(data)] = data
    on_descriptor = _annotations(own, "index", None, on_descriptor=True)
    return Descriptor(media_type, digest_of(data), len(data), annotations=on_descriptor)


def _annotations(
    given: Sequence[Annotation], target: str, platform: Platform | None, *, on_descriptor: bool
) -> dict[str, str]:
    """Return what was said of one document, sorted by key; of a platform counts over of any."""
    found: dict[str, str] = {}
    for exact in (False, True):
        for one in given:
            if (one.target, one.on_descriptor) != (target, on_descriptor):
                continue
            if (one.platform is not None) is not exact:
                continue
            if not exact or (
                platform is not None and rank(platform, one.platform or platform) == 0
            ):
                found[one.key] = one.value
    return dict(sorted(found.items()))


def _check_annotations(given: Sequence[Annotation], result: BuildResult, *, is_index: bool) -> None:
    for one in given:
        if one.target == "index" and not is_index:
            raise InvalidParameter("index annotations not supported for single platform export")
        if one.platform is not None and not any(
            rank(p.platform, one.platform) == 0 for p in result.platforms
        ):
            raise InvalidParameter(
                f"invalid annotation: no platform {one.platform} found in source"
            )


def _tell(work: Work, name: str) -> None:
    with work.part(name):
        pass
