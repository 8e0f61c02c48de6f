"""One layer to a registry: there already, mounted from a neighbour, or sent.

What was received compressed is sent as it is, byte for byte. What came as a plain tar (a load, an
import, a commit) is compressed on the way, always to the same bytes.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from typing import Any

from msgspec import Struct

from pier.errors import Internal, NotFound
from pier.model.digest import Digest, short
from pier.model.oci import DOCKER_LAYER, OCI_LAYER
from pier.model.reference import parse_reference
from pier.registry.download import wait_to_retry
from pier.registry.errors import Refused, RegistryError, Unreachable
from pier.registry.progress import Progress
from pier.registry.repository import Repository
from pier.registry.sources import Source, Sources
from pier.storage.assembled import compared
from pier.storage.blobs import Blobs, BlobWriter
from pier.storage.compress import MEMBER, member
from pier.storage.decompress import Decompressed

log = logging.getLogger(__name__)

PIECE = 1 << 20
# How many members of one layer are compressed at once.
AHEAD = 3
MAX_MOUNT_TRIES = 4


class LocalLayer(Struct, frozen=True):
    """A layer to be pushed: `blob` is how it is kept, of `media_type`; `size` is unpacked bytes."""

    diff_id: str
    blob: Digest
    media_type: str
    size: int


class Sent(Struct, frozen=True):
    """A blob that the registry has now."""

    digest: Digest
    size: int
    media_type: str


class Kept(Struct, frozen=True):
    """What a push made of the blob `plain`, written beside it and not yet in its place."""

    plain: Digest
    writer: BlobWriter
    media_type: str


class Uploader:
    """Sends blobs to one repository, whose full name is `name`.

    What had to be compressed is in `kept`, for the store: the caller's, with its writers.
    """

    def __init__(
        self,
        repository: Repository,
        name: str,
        blobs: Blobs,
        sources: Sources,
        progress: Progress,
    ) -> None:
        self._repository = repository
        self._name = name
        self._domain = parse_reference(name).domain
        self._blobs = blobs
        self._sources = sources
        self._progress = progress
        self.kept: list[Kept] = []
        self._threads = repository.link.registries.threads
        self._attempts = repository.link.registries.settings.max_attempts

    async def layer(self, layer: LocalLayer) -> Sent:
        """Bring a layer there, compressed, and tell of it. Raises RegistryError."""
        return await self._try(layer, exact=_is_compressed(layer))

    async def exact(self, layer: LocalLayer) -> Sent:
        """Bring a layer there as it is kept, since a manifest names it so. Raises RegistryError."""
        return await self._try(layer, exact=True)

    async def _try(self, layer: LocalLayer, *, exact: bool) -> Sent:
        id_ = short(layer.diff_id)
        failed = 0
        while True:
            try:
                sent, how = await self._bring(layer, id_, exact=exact)
            except (Unreachable, Refused) as exc:
                failed += 1
                lasting = isinstance(exc, Refused) and exc.status < 500 and exc.status != 429
                if lasting or failed >= self._attempts:
                    raise
                log.info("upload of %s: %s", layer.diff_id, exc.message)
                asked = exc.retry_after_s if isinstance(exc, Refused) else 0
                await wait_to_retry(failed, asked, lambda text: self._progress.update(id_, text))
            else:
                self._progress.update(id_, how)
                return sent

    async def small(self, digest: Digest, data: bytes) -> None:
        """Bring a config there."""
        if not await self._repository.has_blob(digest):
            upload = await self._repository.start_upload()
            await self._repository.finish_upload(upload.location, digest, data, len(data))

    async def _bring(self, layer: LocalLayer, id_: str, *, exact: bool) -> tuple[Sent, str]:
        known = self._candidates(layer, exact=exact)
        here = [source for source in known if source.repository == self._name]
        for source in here or known[:1]:
            if await self._repository.has_blob(source.digest):
                return self._seen(source), "Layer already exists"
            if source in here:
                self._sources.forget(source)
        elsewhere = [s for s in known if s.repository not in ("", self._name)]
        for source in elsewhere[:MAX_MOUNT_TRIES]:
            neighbour = parse_reference(source.repository)
            if neighbour.domain != self._domain:
                continue
            upload = await self._mount(source, neighbour.path)
            if upload:
                return self._seen(source), f"Mounted from {neighbour.path}"
        sent = await (self._send(layer, id_) if exact else self._squeeze(layer, id_))
        return self._seen(Source(layer.diff_id, self._name, *_fields(sent))), "Pushed"

    def _candidates(self, layer: LocalLayer, *, exact: bool) -> list[Source]:
        """Return what the layer may be called over there. Repository "" is our own blob."""
        known = self._sources.of(layer.diff_id)
        if exact:
            with contextlib.suppress(NotFound):
                own = Source(
                    *(layer.diff_id, "", layer.blob, self._blobs.size(layer.blob)), layer.media_type
                )
                # Byte for byte what we have, and nothing else: the manifest may name it.
                return [*(s for s in known if s.digest == layer.blob), own]
        return known

    def _seen(self, source: Source) -> Sent:
        if source.repository != self._name:
            source = Source(
                *(source.diff_id, self._name, source.digest, source.size), source.media_type
            )
        if source.media_type.endswith(("gzip", "+zstd")):
            # A plain tar is there because somebody wanted it so; nobody else shall get it.
            self._sources.add([source])
        return Sent(source.digest, source.size, source.media_type)

    async def _mount(self, source: Source, path: str) -> bool:
        """Try to mount a blob; an upload that the registry began instead is given up."""
        try:
            upload = await self._repository.start_upload(source.digest, path)
        except Refused as exc:
            if exc.status >= 500:
                raise
            return False
        if not upload.mounted:
            with contextlib.suppress(Refused, Unreachable):
                await self._repository.cancel_upload(upload.location)
        return upload.mounted

    async def _send(self, layer: LocalLayer, id_: str) -> Sent:
        """Send a blob as it is, in one piece."""
        size = self._blobs.size(layer.blob)
        upload = await self._repository.start_upload()
        ours = _OurFaults()

        async def body() -> AsyncIterator[bytes]:
            loop = asyncio.get_running_loop()
            sent = 0
            with ours.noted(), self._blobs.open(layer.blob) as file:
                ahead = loop.run_in_executor(self._threads, file.read, PIECE)
                try:
                    while piece := await asyncio.shield(ahead):
                        ahead = loop.run_in_executor(self._threads, file.read, PIECE)
                        yield piece
                        sent += len(piece)
                        self._progress.bar(id_, "Pushing", sent, size)
                finally:
                    await asyncio.wait([ahead])  # it reads what is closed after this

        with ours.raised():
            await self._repository.finish_upload(upload.location, layer.blob, body, size)
        return Sent(layer.blob, size, layer.media_type)

    async def _squeeze(self, layer: LocalLayer, id_: str) -> Sent:
        """Send a plain tar compressed, while it is being compressed and written to the disk."""
        upload = await self._repository.start_upload()
        squeezed: list[Squeezed] = []
        ours = _OurFaults()

        async def body() -> AsyncIterator[bytes]:
            for earlier in squeezed:
                earlier.writer.abort()  # it is sent again from the start
            with ours.noted(), self._blobs.open(layer.blob) as file:
                chunks = compared(iter(Decompressed(file)), layer.diff_id)
                one = Squeezed(chunks, self._threads, self._blobs.ingest())
                squeezed[:] = [one]
                async for piece in one.pieces():
                    yield piece
                    self._progress.bar(id_, "Pushing", one.read, layer.size)

        try:
            with ours.raised():
                location = await self._repository.send_chunk(upload.location, body)
            one = squeezed[0]
            await self._repository.finish_upload(location, one.digest, b"", 0)
        except BaseException:
            for failed in squeezed:
                failed.writer.abort()
            raise
        media_type = DOCKER_LAYER if layer.media_type.startswith(DOCKER_LAYER) else OCI_LAYER
        self.kept.append(Kept(layer.blob, one.writer, gzip_type(media_type)))
        return Sent(one.digest, one.size, gzip_type(media_type))


class _OurFaults:
    """What went wrong with our own bytes, which aiohttp takes for a connection that broke off.

    A layer may have been damaged on the disk: no use to try that again.
    """

    def __init__(self) -> None:
        self._fault: Internal | None = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """For who reads what is to be sent."""
        try:
            yield
        except Internal as exc:
            self._fault = exc
            raise

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """For who sends it."""
        try:
            yield
        except RegistryError:
            if self._fault is not None:
                raise self._fault from None
            raise


class _Member(Struct, frozen=True):
    """One member of the gzip file: its place, `read` bytes of input, and what they became."""

    number: int
    read: int
    data: bytes


class Squeezed:
    """A tar compressed with gzip, a few pieces ahead of whoever takes the pieces.

    Several threads work on it, and each reads what it compresses. The pieces are written to
    `writer` as well; when the disk has no room for them, they are only sent.
    """

    def __init__(self, chunks: Iterator[bytes], threads: Executor, writer: BlobWriter) -> None:
        self._chunks = chunks
        self._rest = b""
        self._threads = threads
        self._reading = threading.Lock()
        self._number = 0
        self.writer = writer
        self.read = 0
        self.size = 0

    @property
    def digest(self) -> Digest:
        """The digest of all pieces, once they were taken."""
        return self.writer.digest

    async def pieces(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        jobs: deque[asyncio.Future[_Member | None]] = deque()
        hashing: list[asyncio.Future[None]] = []
        early: dict[int, _Member] = {}
        ended = False
        wanted = 0
        try:
            while True:
                while not ended and len(jobs) < AHEAD:
                    jobs.append(loop.run_in_executor(self._threads, self._next))
                while jobs and wanted not in early:
                    done = await asyncio.shield(jobs[0])
                    del jobs[0]
                    # Whoever was asked first is not always the first to read.
                    if done is None:
                        ended = True
                    else:
                        early[done.number] = done
                if wanted not in early:
                    if ended:
                        return
                    continue
                one = early.pop(wanted)
                wanted += 1
                self.read += one.read
                self.size += len(one.data)
                hashing[:] = [loop.run_in_executor(self._threads, self._keep, one.data)]
                yield one.data
                await asyncio.shield(hashing[0])
        finally:
            # The threads read what is closed after this.
            if jobs or hashing:
                under_way: list[asyncio.Future[Any]] = [*jobs, *hashing]
                await asyncio.wait(under_way)

    def _next(self) -> _Member | None:
        """Read and compress the next member; None behind the end. Any thread."""
        with self._reading:
            data = self._take()
            number = self._number
            if not data and number:
                return None
            self._number += 1
        return _Member(number, len(data), member(data))

    def _take(self) -> bytes:
        """Return the next MEMBER bytes, fewer at the end, b"" behind it."""
        parts = [self._rest] if self._rest else []
        have = len(self._rest)
        while have < MEMBER and (data := next(self._chunks, b"")):
            parts.append(data)
            have += len(data)
        joined = b"".join(parts)
        self._rest = joined[MEMBER:]
        return joined[:MEMBER]

    def _keep(self, data: bytes) -> None:
        try:
            self.writer.write(data)
        except OSError as exc:
            log.info("a compressed layer is not kept: %s", exc)
            self.writer.only_hash()


def gzip_type(plain: str) -> str:
    """Return the media type of a gzipped layer of the same family."""
    return DOCKER_LAYER + ".gzip" if plain == DOCKER_LAYER else OCI_LAYER + "+gzip"


def _is_compressed(layer: LocalLayer) -> bool:
    """Tell whether registries take the blob as it is: gzip or zstd."""
    return layer.media_type.endswith(("gzip", "+zstd"))


def _fields(sent: Sent) -> tuple[Digest, int, str]:
    return sent.digest, sent.size, sent.media_type
