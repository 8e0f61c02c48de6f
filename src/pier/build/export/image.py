"""The exporters `moby` and `image`: into the store under names, and straight to registries.

An image alone, without attestations and not pushed, is kept as its steps left it: a manifest is made
when somebody wants one, as with every image that is built here. Otherwise its manifest (and index)
are written now and kept, so that what is pushed later is what the answer says.
"""

import asyncio
import base64
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec

from pier.build.attest.predicates import Attester
from pier.build.export.attributes import ImageAttributes, image_attributes
from pier.build.export.compose import Composed, Composer
from pier.build.export.epoch import at_epoch
from pier.build.export.exporter import Receiver, credentials_of
from pier.build.progress import Work
from pier.build.result import BuildResult, Order
from pier.build.threads import finished
from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.digest import Digest
from pier.model.oci import Descriptor, chain_ids, decode_config
from pier.model.reference import Reference, parse_reference
from pier.registry.progress import Progress
from pier.registry.push_contents import ContentPusher, Contents

DIGEST = "containerimage.digest"
CONFIG_DIGEST = "containerimage.config.digest"
DESCRIPTOR = "containerimage.descriptor"
NAME = "image.name"

Named = Callable[[Image, Reference], None]


class ImageExporter:
    """`named` hears of each name that an image got."""

    def __init__(
        self,
        store: ImageStore,
        composer: Composer,
        attester: Attester,
        pusher: ContentPusher,
        executor: Executor,
        named: Named,
    ) -> None:
        self._store = store
        self._composer = composer
        self._attester = attester
        self._pusher = pusher
        self._executor = executor
        self._named = named

    async def export(
        self, result: BuildResult, order: Order, receiver: Receiver | None, work: Work
    ) -> dict[str, str]:
        attributes = image_attributes(order.attributes)
        references = _references(attributes)
        with self._store.pinned() as pins:
            result = await at_epoch(result, attributes, self._store, self._executor, pins)
            predicates = await self._attester.predicates(result, inline=True)
            if self._is_plain(result, attributes, predicates):
                return self._keep(result, attributes, references, work)
            composed = await self._composer.compose(
                *(result, attributes, predicates, work, pins),
                oci=attributes.oci is not False,
            )
            pins.add_loose(*composed.documents)
            answer = answer_of(composed, attributes.names)
            try:
                if attributes.push:
                    await self._push(composed, attributes, references, receiver, work)
                if attributes.store:
                    kept = [
                        *references,
                        *_by_digest(Digest(composed.top.digest), attributes, references),
                    ]
                    main = await self._store_all(composed, kept, work)
                    answer[CONFIG_DIGEST] = main.id
            finally:
                # Here, for that deletes files.
                await finished(self._executor, pins.release)
        return answer

    def _is_plain(
        self,
        result: BuildResult,
        attributes: ImageAttributes,
        predicates: Sequence[Sequence[object]],
    ) -> bool:
        return (
            len(result.platforms) == 1
            and not result.is_list
            and not any(predicates)
            and not attributes.push
            and not attributes.is_compressed
            and not attributes.annotations
            and attributes.oci is None
            and attributes.store
            and not attributes.name_canonical
            and not attributes.dangling_prefix
            and not result.inline_cache
        )

    def _keep(
        self,
        result: BuildResult,
        attributes: ImageAttributes,
        references: Sequence[Reference],
        work: Work,
    ) -> dict[str, str]:
        image = result.platforms[0].image
        if image is None:
            raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
        with work.part("exporting layers"):
            pass
        with work.part(f"writing image {image.id}"):
            pass
        for reference in references:
            with work.part(f"naming to {reference}"):
                image, _ = self._store.tag(image.id, reference.familiar_name, reference.tag)
                self._named(image, reference)
        answer: dict[str, str] = {DIGEST: image.id, CONFIG_DIGEST: image.id}
        if attributes.names:
            answer[NAME] = ",".join(attributes.names)
        return answer

    async def _store_all(
        self, composed: Composed, references: Sequence[Reference], work: Work
    ) -> Image:
        """Register every platform's image; return the one that the names stand for, or the first."""
        tagged = [r for r in references if r.tag and not r.digest]
        names = [*tagged, *(r for r in references if r.digest)]
        # At once: the disk is waited for about as long as for one of them.
        puts = [partial(self._store.blobs.put, data) for data in composed.documents.values()]
        await asyncio.gather(*(finished(self._executor, put) for put in puts))

        def register() -> list[Image]:
            return [
                register_composed(self._store, composed, number, names)
                for number in range(len(composed.images))
            ]

        images = await finished(self._executor, register)
        main = images[0]
        for reference in tagged:
            with work.part(f"naming to {reference}"):
                main = self._store.get(str(reference))
                self._named(main, reference)
        return main

    async def _push(
        self,
        composed: Composed,
        attributes: ImageAttributes,
        references: Sequence[Reference],
        receiver: Receiver | None,
        work: Work,
    ) -> None:
        contents = contents_of(composed)
        for reference in references:
            who = await credentials_of(receiver, reference.domain)
            with work.part(f"pushing {reference} with {attributes.compression.kind} layers"):
                await self._pusher.push(
                    *(reference, contents, who, Progress(lambda _: None)),
                    by_digest=attributes.push_by_digest,
                    insecure=attributes.insecure,
                )


def register_composed(
    store: ImageStore, composed: Composed, number: int, references: Sequence[Reference]
) -> Image:
    """Add one of the images to the store, whose documents and layers are there. Blocking."""
    one = composed.images[number]
    config = decode_config(store.blobs.read(one.config))
    layers = []
    for chain_id in chain_ids(config.rootfs.diff_ids):
        layer = store.layers.get(chain_id)
        if layer is None:
            raise NotFound(f"layer {chain_id} does not exist")
        layers.append(layer)
    return store.register(
        one.config,
        layers,
        references=references,
        manifest=one.descriptor.digest,
        # What carries its cache is another image, made of the one that the last step came to.
        parent=one.image.id if one.config != one.image.id else "",
        index=composed.top.digest if composed.is_index else "",
    )


def contents_of(composed: Composed) -> Contents:
    diff_ids = {x.descriptor.digest: x.diff_id for i in composed.images for x in i.layers}
    return Contents(composed.top, composed.documents, diff_ids)


def answer_of(composed: Composed, names: Sequence[str]) -> dict[str, str]:
    """Return the answer's keys that speak of the image."""
    top = composed.top
    answer = {DIGEST: top.digest, DESCRIPTOR: encode_descriptor(top)}
    if not composed.is_index:
        answer[CONFIG_DIGEST] = composed.images[0].config
    if names:
        answer[NAME] = ",".join(names)
    return answer


def encode_descriptor(descriptor: Descriptor) -> str:
    return base64.b64encode(msgspec.json.encode(descriptor)).decode()


def _references(attributes: ImageAttributes) -> list[Reference]:
    """Return the names, each once. Raises InvalidParameter."""
    found: dict[str, Reference] = {}
    for name in attributes.names:
        reference = parse_reference(name)
        if attributes.push_by_digest and reference.tag:
            raise InvalidParameter(f"can't push tagged ref {reference} by digest")
        if not attributes.push_by_digest:
            reference = reference.tagged()
        found[str(reference)] = reference
    if attributes.push and not found:
        raise InvalidParameter("tag is needed when pushing to registry")
    return list(found.values())


def _by_digest(
    digest: Digest, attributes: ImageAttributes, references: Sequence[Reference]
) -> Iterator[Reference]:
    """Yield the names of an image by what it is, `name@digest`, that were asked for.

    Raises InvalidParameter for a prefix that is no name.
    """
    if attributes.name_canonical:
        for reference in references:
            yield Reference(reference.domain, reference.path, "", digest)
    if attributes.dangling_prefix and not references:
        yield parse_reference(f"{attributes.dangling_prefix}@{digest}")
