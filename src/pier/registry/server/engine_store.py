"""An engine's images as a registry to push to: what is an image becomes one of the engine's.

    <data-root>/registry/    a store (store.py) of all that was pushed

A manifest with a tag is handed to the engine (`adoption.py`): its blobs get a second name in the
engine's store, so that nothing is copied (a plain tar is in its layer there), and its tag is a name
of the image. The store remembers which manifest it was, since the engine knows one for each image and
others may follow. A tag that
the engine does not know any more, or that means another image there, is none, and is forgotten with
what was pushed for it (`settle`). What is no image stays what it is in any registry.
"""

import asyncio
import logging
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

from pier.errors import Conflict, Internal, NotFound
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.digest import Digest
from pier.model.oci import Descriptor
from pier.model.reference import Reference, parse_reference
from pier.registry.server.adoption import adopt
from pier.registry.server.catalog import Entry
from pier.registry.server.documents import Document, read_document
from pier.registry.server.engine_shelf import EngineShelf, Offer, familiar, page
from pier.registry.server.refusal import Refusal
from pier.registry.server.service import Service
from pier.registry.server.store import Store
from pier.registry.server.uploads import Upload

log = logging.getLogger(__name__)

# Both are called in threads of the registry's. The first one tells of an image and its new name, the
# second one removes a name; it raises NotFound, Conflict.
Arrived = Callable[[Image, Reference], object]
Remove = Callable[[str], object]


class EngineStore:
    """`service.Writable`, made and read by the loop. The caller closes it, and `pushed`."""

    def __init__(
        self, images: ImageStore, pushed: Store, *, arrived: Arrived, remove: Remove
    ) -> None:
        self.pushed = pushed
        self.uploads = pushed.uploads
        self._images = images
        self._shelf = EngineShelf(images)
        self._arrived = arrived
        self._remove = remove
        # Between what is kept here and what is forgotten.
        self._lock = threading.Lock()
        loop = asyncio.get_running_loop()
        # Set when the engine took a name away; at first, as it may have before.
        self._unsettled = asyncio.Event()
        self._unsettled.set()
        images.when_unnamed = lambda: loop.call_soon_threadsafe(self._unsettled.set)

    def close(self) -> None:
        """Listen to the engine no more."""
        self._images.when_unnamed = lambda: None

    @property
    def catalog(self) -> "EngineStore":
        return self

    # What is there: of names the engine's word counts

    def has_repository(self, name: str) -> bool:
        return self.pushed.catalog.has_repository(name) or self._shelf.has_repository(name)

    def repositories(self, after: str, limit: int) -> list[str]:
        both = (self.pushed.catalog, self._shelf)
        return page([n for one in both for n in one.repositories(after, limit)], after, limit)

    def tags(self, name: str, after: str, limit: int) -> list[str]:
        pushed = self.pushed.catalog.tags(name, after, -1)
        there = [tag for tag in pushed if self.by_tag(name, tag) is not None]
        return page([*there, *self._shelf.tags(name, after, limit)], after, limit)

    def by_tag(self, name: str, tag: str) -> Entry | None:
        entry = self.pushed.catalog.by_tag(name, tag)
        adopted = self.pushed.catalog.adopted_as(name, entry.digest) if entry else frozenset()
        image = self._shelf.image(name, tag)
        if image is None:
            return None if adopted else entry
        return entry if image.id in adopted else self._shelf.by_tag(name, tag)

    def by_digest(self, name: str, digest: Digest) -> Entry | None:
        return self.pushed.catalog.by_digest(name, digest) or self._shelf.by_digest(name, digest)

    def has_blob(self, name: str, digest: Digest) -> bool:
        return self.pushed.catalog.has_blob(name, digest) or self._shelf.has_blob(name, digest)

    def any_has_blob(self, digest: Digest) -> bool:
        return self.pushed.catalog.any_has_blob(digest) or self._shelf.any_has_blob(digest)

    def referrers(self, name: str, subject: Digest, artifact_type: str) -> list[Descriptor]:
        return self.pushed.catalog.referrers(name, subject, artifact_type)

    # Bytes

    def has_bytes(self, digest: Digest) -> bool:
        return self.pushed.has_bytes(digest) or self._shelf.has_bytes(digest)

    def blob_path(self, digest: Digest) -> str:
        return self._where(digest).blob_path(digest)

    def reading(self, digest: Digest) -> AbstractContextManager[tuple[BinaryIO, int]]:
        return self._where(digest).reading(digest)

    def _where(self, digest: Digest) -> Store | EngineShelf:
        return self.pushed if self.pushed.has_bytes(digest) else self._shelf

    def read(self, digest: Digest) -> bytes:
        """Return a manifest. Raises FileNotFoundError when its image went."""
        try:
            return self.pushed.read(digest)
        except FileNotFoundError:
            return self._shelf.read(digest)

    # Pushing

    def finish(self, upload: Upload, repository: str, digest: Digest) -> None:
        self.pushed.finish(upload, repository, digest)

    def mount(self, repository: str, digest: Digest) -> bool:
        """Link a blob that another repository has, or an image."""
        return self.pushed.mount(repository, digest) or self._take_in(repository, digest)

    def put_manifest(
        self, repository: str, digest: Digest, data: bytes, document: Document, tags: Sequence[str]
    ) -> None:
        """Keep it, and make an image of it. Raises Refusal, OSError for a full disk."""
        name = familiar(repository)
        references = [parse_reference(f"{name}:{tag}") for tag in tags] if name else []
        images = self._adopt(data, digest, document, references) if references else []
        with self._lock:
            self._keep(repository, digest, data, document, tags)
            if images:
                self.pushed.catalog.note_adopted(repository, digest, [i.id for i in images])
        for reference in references:
            if images:
                self._arrived(images[0], reference)
            elif self._shelf.image(repository, reference.tag) is not None:
                # The name is something else's from now on.
                self._remove_name(reference.familiar)

    def _adopt(
        self, data: bytes, digest: Digest, document: Document, references: Sequence[Reference]
    ) -> list[Image]:
        try:
            return adopt(
                self._images,
                self._find,
                data,
                digest=digest,
                media_type=document.media_type,
                references=references,
            )
        except Internal as exc:
            if isinstance(exc.__cause__, OSError):
                raise exc.__cause__ from exc
            raise

    def _find(self, digest: Digest) -> str:
        """Return a file. A layer of the engine's that has none need not be found here."""
        if not self.has_bytes(digest) or not (path := self.blob_path(digest)):
            raise NotFound(f"content {digest}: not found")
        return path

    def _keep(
        self, repository: str, digest: Digest, data: bytes, document: Document, tags: Sequence[str]
    ) -> None:
        """Store it, with what it names of the engine's: images may go, it stays whole."""
        for item in self.pushed.catalog.lacks(repository, (*document.blobs, *document.children)):
            offer = self._shelf.offer(repository, item) if item in document.children else None
            if offer is not None:
                self._keep_offer(repository, offer)
            else:
                self._take_in(repository, item)
        self.pushed.put_manifest(repository, digest, data, document, tags)

    def _keep_offer(self, repository: str, offer: Offer) -> None:
        document = read_document(offer.data, offer.entry.media_type)
        self._keep(repository, offer.entry.digest, offer.data, document, ())

    def _take_in(self, repository: str, digest: Digest) -> bool:
        """Link a blob of the engine's, or write one that has no file; False when it is not there."""
        try:
            if path := self._shelf.blob_path(digest):
                self.pushed.take_in(path, repository, digest)
            else:
                with self._shelf.reading(digest) as (file, _):
                    self.pushed.copy_in(file, repository, digest)
        except (FileNotFoundError, NotFound):
            return False
        return True

    # Deleting

    async def keep_settled(self, service: Service) -> None:
        """Settle whenever the engine took a name away, until cancelled."""
        while True:
            await self._unsettled.wait()
            self._unsettled.clear()
            try:
                await service.start(self.settle)
            except (OSError, sqlite3.Error) as exc:
                log.warning("what was pushed for images that are gone stays: %s", exc)

    def settle(self) -> None:
        """Forget what was pushed for names that the engine has no more. Blocks; for any thread."""
        with self._lock:
            over: defaultdict[tuple[str, Digest], list[str]] = defaultdict(list)
            for repository, digest, images, tag in self.pushed.catalog.adopted():
                image = self._shelf.image(repository, tag) if tag else None
                if image is None or image.id not in images:
                    over[repository, digest].append(tag)
            for (repository, digest), tags in over.items():
                for gone in self.pushed.catalog.forget(repository, digest, tags):
                    if self.pushed.has_bytes(gone):
                        self.pushed.drop_bytes(gone)

    def unlink(self, name: str, digest: Digest) -> bool:
        """Let a repository give a blob out no more. Raises Refusal for an image's."""
        if self._shelf.has_blob(name, digest):
            raise Refusal("DENIED", {"digest": digest}, message="the blob belongs to an image")
        return self.pushed.catalog.unlink(name, digest)

    def delete_manifest(self, name: str, digest: Digest) -> bool:
        """Delete a manifest and its tags; an image loses its names. Raises Refusal."""
        pushed = [
            tag
            for repository, other, images, tag in self.pushed.catalog.adopted()
            if (repository, other) == (name, digest) and tag
            if (image := self._shelf.image(name, tag)) is not None and image.id in images
        ]
        tags = {*pushed, *self._shelf.tags_of(name, digest)}
        for tag in tags:
            self._remove_name(f"{familiar(name)}:{tag}")
        self.settle()  # with its blobs, which no record would lead to afterwards
        return self.pushed.catalog.delete_manifest(name, digest) or bool(tags)

    def delete_tag(self, name: str, tag: str) -> bool:
        there = self._shelf.image(name, tag) is not None
        if there:
            self._remove_name(f"{familiar(name)}:{tag}")
        return self.pushed.catalog.delete_tag(name, tag) or there

    def _remove_name(self, name: str) -> None:
        try:
            self._remove(name)
        except NotFound:
            return
        except Conflict as exc:
            raise Refusal("DENIED", message=exc.message) from exc
