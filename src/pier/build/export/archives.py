"""The exporters `oci` and `docker`: an archive of an OCI image layout, or of both formats at once.

blobs/sha256/<hex>   documents and layers, each once, sorted
index.json           the top's descriptor, for each name with its annotations
manifest.json        of `docker` only: as `docker save` has it
oci-layout
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import msgspec
from msgspec.structs import replace

from pier.build.attest.predicates import Attester
from pier.build.caches.places import Lender, Place
from pier.build.export.attributes import image_attributes
from pier.build.export.compose import Composed, Composer
from pier.build.export.epoch import at_epoch
from pier.build.export.exporter import Receiver
from pier.build.export.image import answer_of
from pier.build.export.sending import receiver_for, send_pieces
from pier.build.progress import Work
from pier.build.result import BuildResult, Order
from pier.build.threads import finished
from pier.errors import InvalidParameter, Unsupported
from pier.images.save import CONTAINERD_NAME, OCI_REF_NAME
from pier.images.store import ImageStore
from pier.model.digest import Digest
from pier.model.gotime import format_ns, now_ns
from pier.model.oci import OCI_INDEX, Descriptor
from pier.model.reference import Reference, parse_reference
from pier.storage.blobs import Blobs
from pier.storage.pack import CHUNK, joined
from pier.storage.tar.members import directory_member, file_head, file_member
from pier.storage.tar.writer import END, padding

CREATED = "org.opencontainers.image.created"
_SECOND = 1_000_000_000


class ArchiveExporter:
    """`docker` tells which of the two it is."""

    def __init__(
        self,
        store: ImageStore,
        composer: Composer,
        attester: Attester,
        executor: Executor,
        *,
        docker: bool,
    ) -> None:
        self._store = store
        self._composer = composer
        self._attester = attester
        self._executor = executor
        self._docker = docker

    async def export(
        self, result: BuildResult, order: Order, receiver: Receiver | None, work: Work
    ) -> dict[str, str]:
        attributes = image_attributes(order.attributes)
        client = receiver_for(receiver, order.type)
        lender: object = client
        if not attributes.tar and not isinstance(lender, Lender):
            raise Unsupported(
                f"{order.type} exports with tar=false need a client that lends a place"
            )
        names = [parse_reference(name).tagged() for name in attributes.names]
        is_list = result.is_list or len(result.platforms) > 1
        if self._docker and is_list:
            raise InvalidParameter(
                "docker exporter does not currently support exporting manifest lists"
            )
        with self._store.pinned() as pins:
            result = await at_epoch(result, attributes, self._store, self._executor, pins)
            inline = not self._docker and (is_list or attributes.inline_attestations)
            predicates = await self._attester.predicates(result, inline=inline)
            if self._docker and any(predicates):
                raise InvalidParameter(
                    "docker exporter does not currently support exporting manifest lists"
                )
            oci = not self._docker if attributes.oci is None else attributes.oci
            composed = await self._composer.compose(
                result, attributes, predicates, work, pins, oci=oci
            )
            answer = answer_of(composed, attributes.names)
            try:
                if not attributes.tar and isinstance(lender, Lender):
                    await _unpacked(lender.layout_place(self._store.blobs), composed, work)
                    return answer
                with work.part("sending tarball"):
                    members = _members(
                        self._store.blobs, composed, names, result.epoch, docker=self._docker
                    )
                    await send_pieces(client, order.id, answer, joined(members), self._executor)
            finally:
                # Here, for that deletes files.
                await finished(self._executor, pins.release)
        return answer


async def _unpacked(place: Place, composed: Composed, work: Work) -> None:
    """Send an image in pieces, what names others last."""
    layers = {x.descriptor.digest: x for image in composed.images for x in image.layers}
    with work.part("copying files"):
        for layer in layers.values():
            await place.put_layer(layer.diff_id, layer.descriptor)
        for data in composed.documents.values():
            await place.put_small(data)


def _members(
    blobs: Blobs,
    composed: Composed,
    names: Sequence[Reference],
    epoch: int | None,
    *,
    docker: bool,
) -> Iterator[bytes]:
    layers = {
        Digest(layer.descriptor.digest): layer.descriptor.size
        for image in composed.images
        for layer in image.layers
    }
    yield directory_member(b"blobs/")
    yield directory_member(b"blobs/sha256/")
    for digest in sorted({*composed.documents, *layers}):
        path = _path(digest).encode()
        if digest in composed.documents:
            yield from file_member(path, composed.documents[digest], mode=0o444)
        else:
            yield from _blob(blobs, path, digest, layers[digest])
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": _tops(composed, names, epoch),
    }
    yield from file_member(b"index.json", msgspec.json.encode(index))
    if docker:
        items = msgspec.json.encode([_item(composed, names)])
        yield from file_member(b"manifest.json", items, mode=0o444)
    yield from file_member(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}', mode=0o444)
    yield END


def _blob(blobs: Blobs, path: bytes, digest: Digest, size: int) -> Iterator[bytes]:
    yield file_head(path, size, mode=0o444)
    left = size
    with blobs.open(digest) as file:
        while data := file.read(CHUNK):
            left -= len(data)
            yield data
    if left:
        raise OSError(f"content {digest}: {left} bytes are missing")
    yield padding(size)


def _tops(composed: Composed, names: Sequence[Reference], epoch: int | None) -> list[Descriptor]:
    """Return index.json's descriptors: one a name, one where there is none."""
    created = format_ns((now_ns() // _SECOND if epoch is None else epoch) * _SECOND)
    own = {**composed.top.annotations, CREATED: created}
    top = composed.top
    if not composed.is_index:
        top = replace(top, platform=composed.images[0].platform)
    if not names:
        return [replace(top, annotations=dict(sorted(own.items())))]
    tops = []
    for name in names:
        said = {**own, CONTAINERD_NAME: str(name), OCI_REF_NAME: name.tag}
        tops.append(replace(top, annotations=dict(sorted(said.items()))))
    return tops


def _item(composed: Composed, names: Sequence[Reference]) -> dict[str, Any]:
    image = composed.images[0]
    return {
        "Config": _path(image.config),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [_path(layer.descriptor.digest) for layer in image.layers],
    }


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)
