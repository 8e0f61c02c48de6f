"""Builds that are over, for `buildx history`: kept in memory, the newest HISTORY of them."""

import asyncio
import contextlib
import hashlib
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from pier.build.progress import Vertex
from pier.buildkit.details import words_of
from pier.buildkit.jobs import Job
from pier.buildkit.messages import content, control
from pier.errors import NotFound
from pier.grpc.server import Call, Method
from pier.grpc.status import GrpcError, Status, status_of

HISTORY = 50
CONTENT = "/containerd.services.content.v1.Content"
STARTED, COMPLETE, DELETED = range(3)


class _Kept(Struct):
    """`status` is all that the build told, compressed, b"" while it runs."""

    record: control.BuildHistoryRecord
    status: bytes = b""
    contents: Mapping[str, bytes] = {}


class History:
    """For pierd's loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._listeners: set[asyncio.Queue[control.BuildHistoryEvent]] = set()

    @contextlib.contextmanager
    def recorded(self, job: Job) -> Iterator[control.BuildHistoryRecord]:
        """Record a build that the block does; the block fills in what it answers."""
        request = job.request
        record = control.BuildHistoryRecord(
            Ref=job.ref,
            Frontend=request.Frontend,
            FrontendAttrs=dict(request.FrontendAttrs),
            Exporters=[
                control.Exporter("image" if e.Type == "moby" else e.Type, dict(e.Attrs))
                for e in request.Exporters
            ],
            CreatedAt=job.created_at,
        )
        kept = self._kept[job.ref] = _Kept(record)
        self._tell(STARTED, record)
        try:
            yield record
        except BaseException as exc:
            record.error = _status(exc)
            raise
        finally:
            record.CompletedAt = time.time_ns()
            count(record, job.board.vertexes())
            record.numWarnings = job.board.warnings()
            kept.status = zlib.compress(job.board.whole().encode(), 1)
            kept.contents = _attest(record, job.provenance)
            self._tell(COMPLETE, record)
            self._forget_old()

    def methods(self) -> dict[str, Method]:
        """The content store of records, which clients read provenance from."""
        return {
            f"{CONTENT}/Info": Method(content.InfoRequest, self._info),
            f"{CONTENT}/Read": Method(content.ReadContentRequest, self._read),
        }

    def _content(self, digest: str) -> tuple[_Kept, bytes]:
        for kept in self._kept.values():
            if digest in kept.contents:
                return kept, kept.contents[digest]
        raise NotFound(f"content {digest}: not found")

    async def _info(self, call: Call, request: content.InfoRequest) -> content.InfoResponse:
        kept, data = self._content(request.digest)
        at = kept.record.CompletedAt
        return content.InfoResponse(content.Info(request.digest, len(data), at, at))

    async def _read(self, call: Call, request: content.ReadContentRequest) -> None:
        _, data = self._content(request.digest)
        end = request.offset + request.size if request.size else len(data)
        await call.send(content.ReadContentResponse(request.offset, data[request.offset : end]))

    def status_of(self, ref: str) -> control.StatusResponse | None:
        """Return all that a build told which is over."""
        kept = self._kept.get(ref)
        if kept is None or not kept.status:
            return None
        return control.StatusResponse.decode(zlib.decompress(kept.status))

    async def listen(self, call: Call, request: control.BuildHistoryRequest) -> None:
        """Send what there is, and with `EarlyExit` no more than that."""
        queue: asyncio.Queue[control.BuildHistoryEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            records = [kept.record for kept in self._kept.values()]
            if request.Ref:
                records = [record for record in records if record.Ref == request.Ref]
            if request.ActiveOnly:
                records = [record for record in records if not record.CompletedAt]
            if request.Limit:
                records = records[-request.Limit :]
            for record in records:
                kind = COMPLETE if record.CompletedAt else STARTED
                await call.send(control.BuildHistoryEvent(kind, record))
            while not request.EarlyExit:
                event = await queue.get()
                if not request.Ref or (event.record and event.record.Ref == request.Ref):
                    await call.send(event)
        finally:
            self._listeners.discard(queue)

    async def update(
        self, call: Call, request: control.UpdateBuildHistoryRequest
    ) -> control.UpdateBuildHistoryResponse:
        kept = self._kept.get(request.Ref)
        if kept is None:
            raise NotFound(f"failed to retrieve bucket for {request.Ref}: not found")
        if request.Delete:
            del self._kept[request.Ref]
            self._tell(DELETED, kept.record)
        elif not request.Finalize:
            kept.record.pinned = request.Pinned
        return control.UpdateBuildHistoryResponse()

    def _forget_old(self) -> None:
        free = [ref for ref, kept in self._kept.items() if not kept.record.pinned]
        for ref in free[: max(0, len(free) - HISTORY)]:
            del self._kept[ref]

    def _tell(self, kind: int, record: control.BuildHistoryRecord) -> None:
        for queue in self._listeners:
            queue.put_nowait(control.BuildHistoryEvent(kind, record))


def _attest(
    record: control.BuildHistoryRecord, said: Sequence[tuple[str, bytes]]
) -> dict[str, bytes]:
    """Name predicates in a record, by platforms where there are several; return them by digest."""
    contents: dict[str, bytes] = {}
    record.Result = control.BuildResultInfo()
    for kind, data in said:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        contents[digest] = data
        record.Result.Attestations.append(
            control.Descriptor(
                media_type="application/vnd.in-toto+json",
                digest=digest,
                size=len(data),
                annotations={"in-toto.io/predicate-type": kind},
            )
        )
    return contents


def count(record: control.BuildHistoryRecord, vertexes: dict[str, Vertex]) -> None:
    """Fill in how many steps there were."""
    record.numTotalSteps = len(vertexes)
    record.numCachedSteps = sum(vertex.cached for vertex in vertexes.values())
    record.numCompletedSteps = sum(bool(v.completed and not v.error) for v in vertexes.values())


def _status(exc: BaseException) -> Status:
    if isinstance(exc, GrpcError):
        return exc.status
    if isinstance(exc, Exception):
        return Status(status_of(exc).code, words_of(exc))
    return Status(1, "context canceled")
