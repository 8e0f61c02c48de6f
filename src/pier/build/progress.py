"""How far a build is: its vertexes, what they write, how much of each transfer is done, warnings.

The vocabulary is BuildKit's (api/services/control/control.proto, `StatusResponse`). A vertex is one
step as the user sees it, "[2/3] RUN make"; what is told of it again replaces what was told before.
Times are ns since the epoch, 0 for not yet.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

STDOUT, STDERR = 1, 2


class Vertex(Struct, frozen=True):
    """`digest` is its identity within the build, `inputs` those of the vertexes that it builds on.

    `error` is set on one that failed or was cancelled ("context canceled").
    """

    digest: str
    name: str
    inputs: Sequence[str] = ()
    cached: bool = False
    started: int = 0
    completed: int = 0
    error: str = ""


class Status(Struct, frozen=True):
    """One transfer or part of a vertex; `id` is its identity there, and is what users see.

    `current` and `total` are bytes, 0 where they are not known.
    """

    id: str
    vertex: str
    name: str = ""
    current: int = 0
    total: int = 0
    timestamp: int = 0
    started: int = 0
    completed: int = 0


class Log(Struct, frozen=True):
    vertex: str
    data: bytes
    stream: int = STDOUT
    timestamp: int = 0


class Place(Struct, frozen=True):
    """Lines count from 1, as in BuildKit's pb.Range; characters from 0."""

    first_line: int
    last_line: int
    first_character: int = 0
    last_character: int = 0


class Source(Struct, frozen=True):
    """A file that a message points into."""

    filename: str
    data: bytes
    language: str = "Dockerfile"


class Warned(Struct, frozen=True):
    """A lint rule's finding, or another warning. `short` begins with the rule's name."""

    vertex: str
    short: str
    detail: Sequence[str] = ()
    url: str = ""
    level: int = 1
    source: Source | None = None
    places: Sequence[Place] = ()


class Progress(Protocol):
    """Who hears of it. For pierd's loop; it never blocks or raises."""

    def vertex(self, vertex: Vertex) -> None: ...
    def status(self, status: Status) -> None: ...
    def log(self, log: Log) -> None: ...
    def warn(self, warning: Warned) -> None: ...


class Silent:
    """A Progress that nobody looks at."""

    def vertex(self, vertex: Vertex) -> None: ...
    def status(self, status: Status) -> None: ...
    def log(self, log: Log) -> None: ...
    def warn(self, warning: Warned) -> None: ...


SILENT = Silent()


class Work:
    """A vertex at work: tells its beginning, what it does, and its end. See `working`."""

    def __init__(self, progress: Progress, vertex: Vertex) -> None:
        self._progress = progress
        self.vertex = vertex

    @property
    def digest(self) -> str:
        return self.vertex.digest

    def begin(self) -> None:
        self._tell(replace(self.vertex, started=time.time_ns()))

    def done(self, *, cached: bool = False, error: str = "") -> None:
        """Tell its end; a second call does nothing."""
        if not self.vertex.completed:
            now = time.time_ns()
            started = self.vertex.started or now
            changed = replace(
                self.vertex, started=started, completed=now, cached=cached, error=error
            )
            self._tell(changed)

    def rename(self, name: str) -> None:
        self._tell(replace(self.vertex, name=name))

    def log(self, data: bytes, *, is_error: bool = False) -> None:
        stream = STDERR if is_error else STDOUT
        self._progress.log(Log(self.vertex.digest, data, stream, time.time_ns()))

    def status(
        self, name: str, *, current: int = 0, total: int = 0, started: int = 0, done: bool = False
    ) -> int:
        """Tell of a part by its name; return when it began, to be given the next time."""
        now = time.time_ns()
        started = started or now
        completed = now if done else 0
        self._progress.status(
            Status(name, self.vertex.digest, "", current, total, now, started, completed)
        )
        return started

    def _tell(self, vertex: Vertex) -> None:
        self.vertex = vertex
        self._progress.vertex(vertex)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Tell of a part that the block does, when it begins and when it has ended well."""
        started = self.status(name)
        yield
        self.status(name, started=started, done=True)


@contextlib.contextmanager
def working(
    progress: Progress, name: str, *, key: str = "", inputs: Sequence[str] = ()
) -> Iterator[Work]:
    """Do a vertex in a block: an exception there is its error. `key` tells those of one name apart."""
    work = Work(progress, Vertex(digest_of(name, key), name, inputs))
    work.begin()
    try:
        yield work
    except BaseException as exc:
        work.done(error=error_of(exc))
        raise
    work.done()


def error_of(exc: BaseException) -> str:
    """What a vertex says of its failure; a cancelled one says Go's words, which clients know."""
    if isinstance(exc, Exception):
        return str(getattr(exc, "message", "") or exc) or type(exc).__name__
    return "context canceled"


def digest_of(*parts: str) -> str:
    """The identity of a vertex, out of what tells it from others."""
    return "sha256:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()
