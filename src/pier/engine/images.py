"""Images as the API speaks of them: `pier.images`, from a thread where it blocks, and its events."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from pier.engine.produce import produce
from pier.engine.progress import Tell, stream_progress
from pier.engine.services import Services
from pier.engine.states import RUNNING
from pier.errors import Conflict, NotFound
from pier.images import attestations, transfer, views
from pier.images.image import Image
from pier.images.importer import import_image
from pier.images.load import load
from pier.images.removal import ContainerUse, Removal
from pier.images.save import start_saving
from pier.images.store import ImageStore
from pier.model.api_images import (
    AttestationStatement,
    ImageChange,
    ImageDelete,
    ImageHistory,
    ImageInspect,
    ImagePruneResponse,
    ImageSummary,
)
from pier.model.digest import Digest
from pier.model.filters import Filters
from pier.model.platform import Platform
from pier.model.reference import Reference

THREADS = 4

Users = list[ContainerUse]
Differences = list[ImageChange]
Summaries = list[ImageSummary]
Steps = list[ImageHistory]
Statements = list[AttestationStatement]
Deleted = list[ImageDelete]


class Images:
    """What only looks at memory and commits a row runs on the loop: then no container can be made
    of an image between the look at its users and its removal. Archives are read in threads of
    their own: clients as slow as they like hold up only each other.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.images
        self._loop = asyncio.get_running_loop()
        self._pruning = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="images")

    @property
    def store(self) -> ImageStore:
        return self._store

    def close(self) -> None:
        """Wait for the archives under way; those not begun are dropped."""
        self._threads.shutdown(cancel_futures=True)

    async def list(
        self,
        *,
        all: bool,  # noqa: A002 - the API's word
        shared_size: bool,
        filters: Filters,
        manifests: bool = False,
        identity: bool = False,
        containers: bool = True,
    ) -> Summaries:
        """Return the rows wanted, newest first. Raises InvalidParameter, NotFound for `before`.

        `containers` counts those of each image, `manifests` adds what is known of its platforms.
        """
        rows = views.summaries(self._store, all_=all, shared_size=shared_size, filters=filters)
        users = self._users() if containers or manifests else []
        counts = Counter(user.image for user in users)
        for row in rows:
            if containers:
                row.Containers = counts[row.Id]
            if manifests:
                image = self._store.get(row.Id)
                row.Manifests = views.manifests(self._store, image, users, identities=identity)
        return rows

    async def inspect(
        self, ref: str, *, manifests: bool = False, platform: Platform | None = None
    ) -> ImageInspect:
        """`manifests` adds what is known of all platforms. Raises NotFound, InvalidParameter."""
        image = self._store.get(ref, platform)
        answer = views.inspect(self._store, image, self._services.settings.data_root)
        if manifests:
            answer.Manifests = views.manifests(self._store, image, self._users())
        return answer

    async def attestations(
        self, ref: str, platform: Platform | None, *, kinds: Sequence[str], whole: bool
    ) -> Statements:
        """Return the statements on an image, `whole` or what they are. Raises NotFound."""
        return attestations.statements(
            self._store, self._store.get(ref, platform), kinds=kinds, whole=whole
        )

    async def history(
        self, ref: str, platform: Platform | None = None, *, layers: bool = False
    ) -> Steps:
        """Raises NotFound, InvalidParameter."""
        return views.history(self._store, self._store.get(ref, platform), layers=layers)

    async def difference(self, old: str, new: str) -> Differences:
        """Return what turns the files of one image into another's. Raises NotFound."""
        images = self._store.get(old), self._store.get(new)
        with self._store.pinned() as pins:
            pins.add(*images[0].chain_ids, *images[1].chain_ids)
            return await self._loop.run_in_executor(
                self._threads, views.difference, self._store, *images
            )

    def save(self, refs: Sequence[str], platforms: Sequence[Platform] = ()) -> AsyncIterator[bytes]:
        """Return the archive of all that the names mean, in pieces. Raises NotFound."""
        saving = start_saving(self._store, refs, platforms)

        def done() -> None:
            saving.close()
            for image in saving.images:
                self._tell(image.id, "save", image.id)

        return produce(saving.chunks(), self._threads, done=done)

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        """Give an image another name. Raises NotFound, InvalidParameter."""
        image, reference = self._store.tag(ref, repo, tag)
        self._tell(image.id, "tag", reference.familiar)

    async def remove(
        self, ref: str, *, force: bool, noprune: bool, platforms: Sequence[Platform] = ()
    ) -> Deleted:
        """Take away a name, or the image. Raises NotFound, Conflict.

        `noprune` keeps untagged parents; `platforms` removes these images of its index only.
        """
        done = self._store.remove(
            ref, force=force, prune=not noprune, users=self._users(), platforms=platforms
        )
        return self._tell_removed(done)

    async def prune(self, filters: Filters) -> ImagePruneResponse:
        """Remove images without a name, with `dangling=false` all that no container uses.

        Raises Conflict while another prune is under way, InvalidParameter.
        """
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        try:
            deleted: Deleted = []
            reclaimed = 0
            for refs in views.prunable(self._store, filters):
                sizes = {layer.chain_id: layer.size for layer in self._store.layers.all()}
                with contextlib.suppress(Conflict, NotFound):  # in use, or gone with another
                    for ref in refs:
                        deleted += await self.remove(ref, force=False, noprune=False)
                reclaimed += sum(sizes.get(Digest(item.Deleted), 0) for item in deleted)
                await asyncio.sleep(0)
        finally:
            self._pruning = False
        self._services.events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return ImagePruneResponse(ImagesDeleted=deleted or None, SpaceReclaimed=reclaimed)

    def _tell_removed(self, done: Sequence[Removal]) -> Deleted:
        for removal in done:
            if removal.untagged:
                self._tell(removal.image, "untag", removal.image)
            elif removal.deleted == removal.image:
                self._tell(removal.image, "delete", removal.image)
        return [ImageDelete(Untagged=item.untagged, Deleted=item.deleted) for item in done]

    def load(
        self, reader: BinaryIO, *, quiet: bool, platforms: Sequence[Platform] = ()
    ) -> AsyncIterator[bytes]:
        """Load an archive's images; yields lines of JSON: progress unless `quiet`, and the names."""

        def work(tell: Tell) -> None:
            for image in load(self._store, reader, tell, quiet=quiet, platforms=platforms):
                self._tell_later(image, "load")

        return stream_progress(work, self._threads)

    def import_(
        self,
        opened: Callable[[Tell], BinaryIO],
        *,
        repo: str,
        tag: str,
        message: str,
        changes: Sequence[str],
        platform: str,
    ) -> AsyncIterator[bytes]:
        """Make an image of a root file system's tar; yields lines of JSON, the last with its ID.

        `opened(tell)` gives the tar, and may tell of its being read.
        """

        def work(tell: Tell) -> None:
            image = import_image(
                self._store,
                opened(tell),
                repo=repo,
                tag=tag,
                message=message,
                changes=[*changes],
                platform=platform,
            )
            tell({"status": image.id})
            self._tell_later(image, "import")

        return stream_progress(work, self._threads)

    async def transfer(self, ref: str, *, skip: int) -> AsyncIterator[bytes]:
        """Archive an image without its `skip` lowest layers, for an engine that has these.

        Raises NotFound, InvalidParameter before anything is yielded.
        """
        pieces = transfer.archive(self._store, ref, skip=skip)
        run = self._loop.run_in_executor
        first = await run(self._threads, next, pieces)

        async def rest() -> AsyncIterator[bytes]:
            piece: bytes | None = first
            try:
                while piece is not None:
                    yield piece
                    piece = await run(self._threads, next, pieces, None)
            finally:
                pieces.close()

        return rest()

    def _users(self) -> Users:
        """What containers need of images."""
        return [
            ContainerUse(
                id=container.id,
                image=container.record.Image,
                layers=container.record.kept_layers,
                running=container.record.State.Status in RUNNING,
                mounted=tuple(m.image for m in container.record.mounts if m.image),
            )
            for container in self._services.store
        ]

    def tell_transfer(self, image_id: str, action: str, reference: Reference) -> None:
        """Publish a pull or push, whose subject is a name and not an ID, as in Docker."""
        labels: dict[str, str] = {}
        with contextlib.suppress(NotFound):
            labels = self._store.get(image_id).config.config.Labels
        attributes = {**labels, "name": reference.familiar_name}
        self._services.events.publish("image", action, reference.familiar, attributes)

    def tell_pushed(self, image: Image, reference: Reference) -> None:
        """Publish, from a thread, that an image was pushed to the engine's own registry."""
        self._loop.call_soon_threadsafe(self.tell_transfer, image.id, "pull", reference)

    def remove_name(self, name: str) -> None:
        """As `remove`, from a thread: a client of the engine's own registry wants it."""
        work = self.remove(name, force=False, noprune=False)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _tell_later(self, image: Image, action: str) -> None:
        """As `_tell`, from a thread."""
        name = image.references[0].familiar if image.references else image.id
        self._loop.call_soon_threadsafe(self._tell, image.id, action, name)

    def _tell(self, image_id: str, action: str, name: str) -> None:
        """Publish an event, with the image's labels as long as it is there."""
        labels: dict[str, str] = {}
        with contextlib.suppress(NotFound):
            labels = self._store.get(image_id).config.config.Labels
        self._services.events.publish("image", action, image_id, {**labels, "name": name})
