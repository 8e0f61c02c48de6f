"""An engine's images as a registry to push to: what is an image becomes one of the engine's.

    <data-root>/registry/    a store (store.py): uploads, and what no engine keeps, such as artifacts,
                             referrers, manifests without a tag, images of other systems

A manifest with a tag is handed to the engine (`adoption.py`): its blobs get a second name in the
engine's store, nothing is copied, and then lose the first one. From there on the image is the
engine's and the tag its name: whoever removes it there, or here, removes it. What is pushed again,
mounted, or named by an artifact gets its first name back.
"""

from collections.abc import Callable, Sequence

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
from pier.registry.server.store import Store
from pier.registry.server.uploads import Upload

# Both are called in threads of the registry's. The first one tells of an image and its new name, the
# second one removes a name; it raises NotFound, Conflict.
Arrived = Callable[[Image, Reference], object]
Remove = Callable[[str], object]


class EngineStore:
    """`service.Writable`. The caller closes `pushed`."""

    def __init__(
        self, images: ImageStore, pushed: Store, *, arrived: Arrived, remove: Remove
    ) -> None:
        self.pushed = pushed
        self.uploads = pushed.uploads
        self._images = images
        self._shelf = EngineShelf(images)
        self._arrived = arrived
        self._remove = remove

    @property
    def catalog(self) -> "EngineStore":
        return self

    # What is there: the engine's word counts for its names

    def has_repository(self, name: str) -> bool:
        return self.pushed.catalog.has_repository(name) or self._shelf.has_repository(name)

    def repositories(self, after: str, limit: int) -> list[str]:
        both = (self.pushed.catalog, self._shelf)
        return page([n for one in both for n in one.repositories(after, limit)], after, limit)

    def tags(self, name: str, after: str, limit: int) -> list[str]:
        both = (self.pushed.catalog, self._shelf)
        return page([t for one in both for t in one.tags(name, after, limit)], after, limit)

    def by_tag(self, name: str, tag: str) -> Entry | None:
        return self._shelf.by_tag(name, tag) or self.pushed.catalog.by_tag(name, tag)

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
        return (self.pushed if self.pushed.has_bytes(digest) else self._shelf).blob_path(digest)

    def read(self, digest: Digest) -> bytes:
        """Return a manifest. Raises FileNotFoundError when its image went."""
        try:
            return self._shelf.read(digest)
        except FileNotFoundError:
            return self.pushed.read(digest)

    # Pushing

    def finish(self, upload: Upload, repository: str, digest: Digest) -> None:
        self.pushed.finish(upload, repository, digest)

    def mount(self, repository: str, digest: Digest) -> bool:
        """Link a blob that another repository has, or an image."""
        return self.pushed.mount(repository, digest) or self._take_back(repository, digest)

    def put_manifest(
        self, repository: str, digest: Digest, data: bytes, document: Document, tags: Sequence[str]
    ) -> None:
        """Make an image of it, or keep it. Raises Refusal, OSError for a full disk."""
        name = familiar(repository)
        references = [parse_reference(f"{name}:{tag}") for tag in tags] if name else []
        if references and self._adopt(repository, digest, data, document, references):
            return
        self._keep(repository, digest, data, document, tags)
        for tag in tags:
            # The name is something else's from now on.
            if self._shelf.by_tag(repository, tag) is not None:
                self._remove_name(f"{name}:{tag}")

    def _adopt(
        self,
        repository: str,
        digest: Digest,
        data: bytes,
        document: Document,
        references: Sequence[Reference],
    ) -> bool:
        try:
            adopted = adopt(
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
        if adopted is None:
            return False
        tags = [reference.tag for reference in references]
        self.pushed.catalog.give_up(repository, tags, adopted.manifests, adopted.blobs)
        for given_up in (*adopted.manifests, *adopted.blobs):
            if self.pushed.has_bytes(given_up):
                self.pushed.drop_bytes(given_up)
        for image in adopted.images[:1]:
            for reference in references:
                self._arrived(image, reference)
        return True

    def _find(self, digest: Digest) -> str:
        if not self.has_bytes(digest):
            raise NotFound(f"content {digest}: not found")
        return self.blob_path(digest)

    def _keep(
        self, repository: str, digest: Digest, data: bytes, document: Document, tags: Sequence[str]
    ) -> None:
        """Store it here, with what it names of the engine's: images may go, it stays whole."""
        lacking = self.pushed.catalog.lacks(repository, (*document.blobs, *document.children))
        for item in lacking:
            offer = self._shelf.offer(repository, item) if item in document.children else None
            if offer is not None:
                self._keep_offer(repository, offer)
            else:
                self._take_back(repository, item)
        self.pushed.put_manifest(repository, digest, data, document, tags)

    def _keep_offer(self, repository: str, offer: Offer) -> None:
        document = read_document(offer.data, offer.entry.media_type)
        self._keep(repository, offer.entry.digest, offer.data, document, ())

    def _take_back(self, repository: str, digest: Digest) -> bool:
        try:
            self.pushed.take_in(self._shelf.blob_path(digest), repository, digest)
        except FileNotFoundError:
            return False
        return True

    # Deleting

    def unlink(self, name: str, digest: Digest) -> bool:
        """Let a repository give a blob out no more. Raises Refusal for an image's."""
        if self._shelf.has_blob(name, digest):
            raise Refusal("DENIED", {"digest": digest}, message="the blob belongs to an image")
        return self.pushed.catalog.unlink(name, digest)

    def delete_manifest(self, name: str, digest: Digest) -> bool:
        """Delete a manifest and its tags; an image loses its names. Raises Refusal."""
        tags = self._shelf.tags_of(name, digest)
        for tag in tags:
            self._remove_name(f"{familiar(name)}:{tag}")
        return self.pushed.catalog.delete_manifest(name, digest) or bool(tags)

    def delete_tag(self, name: str, tag: str) -> bool:
        there = self._shelf.by_tag(name, tag) is not None
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
