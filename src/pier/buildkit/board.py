"""What a build has told so far, for as many as listen: from the beginning, whenever they come."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from msgspec.structs import replace

from pier.build.progress import Log, Place, Source, Status, Vertex, Warned
from pier.buildkit.details import translated
from pier.buildkit.messages import control
from pier.buildkit.messages.ops import Position, Range, SourceInfo

Event = Vertex | Status | Log | Warned

# As BuildKit's (BUILDKIT_STEP_LOG_MAX_SIZE): all of it is kept for who listens later.
MAX_LOG_BYTES = 2 << 20
_CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"


class Board:
    """A `build.progress.Progress` that remembers. For pierd's loop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._is_over = False
        self._logged: Counter[str] = Counter()
        self._waiting: set[asyncio.Future[None]] = set()

    def vertex(self, vertex: Vertex) -> None:
        if vertex.error:
            vertex = replace(vertex, error=translated(vertex.error))
        self._tell(vertex)

    def status(self, status: Status) -> None:
        self._tell(status)

    def log(self, log: Log) -> None:
        room = MAX_LOG_BYTES - self._logged[log.vertex]
        self._logged[log.vertex] += len(log.data)
        if room < 0:
            return
        if len(log.data) > room:
            log = replace(log, data=log.data[:room] + _CLIPPED)
        self._tell(log)

    def warn(self, warning: Warned) -> None:
        self._tell(warning)

    def close(self) -> None:
        """Nothing more will be told."""
        self._is_over = True
        self._wake()

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def listen(self) -> AsyncIterator[control.StatusResponse]:
        """Yield all that was told and will be, until it is over; what comes at once, at once."""
        at = 0
        while True:
            if at < len(self._events):
                end = len(self._events)
                yield response(self._events[at:end])
                at = end
            elif self._is_over:
                return
            else:
                waiter = asyncio.get_running_loop().create_future()
                self._waiting.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiting.discard(waiter)

    def vertexes(self) -> dict[str, Vertex]:
        """Return each vertex as it is now, by its digest."""
        return {e.digest: e for e in self._events if isinstance(e, Vertex)}

    def warnings(self) -> int:
        return sum(isinstance(event, Warned) for event in self._events)

    def whole(self) -> control.StatusResponse:
        """All that was told, for who asks later."""
        return response(self._events)


def response(events: list[Event]) -> control.StatusResponse:
    found = control.StatusResponse()
    for event in events:
        match event:
            case Vertex():
                found.vertexes.append(_vertex(event))
            case Status():
                found.statuses.append(_status(event))
            case Log():
                found.logs.append(
                    control.VertexLog(event.vertex, event.timestamp, event.stream, event.data)
                )
            case Warned():
                found.warnings.append(_warning(event))
    return found


def _vertex(vertex: Vertex) -> control.Vertex:
    return control.Vertex(
        digest=vertex.digest,
        inputs=list(vertex.inputs),
        name=vertex.name,
        cached=vertex.cached,
        started=vertex.started,
        completed=vertex.completed,
        error=vertex.error,
    )


def _status(status: Status) -> control.VertexStatus:
    return control.VertexStatus(
        ID=status.id,
        vertex=status.vertex,
        name=status.name,
        current=status.current,
        total=status.total,
        timestamp=status.timestamp,
        started=status.started,
        completed=status.completed,
    )


def _warning(warning: Warned) -> control.VertexWarning:
    return control.VertexWarning(
        vertex=warning.vertex,
        level=warning.level,
        short=warning.short.encode(),
        detail=[line.encode() for line in warning.detail],
        url=warning.url,
        info=source_info(warning.source) if warning.source else None,
        ranges=[range_of(place) for place in warning.places],
    )


def source_info(source: Source) -> SourceInfo:
    return SourceInfo(filename=source.filename, data=source.data, language=source.language)


def range_of(place: Place) -> Range:
    return Range(
        start=Position(place.first_line, place.first_character),
        end=Position(place.last_line, place.last_character),
    )
