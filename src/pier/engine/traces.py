"""Traces of starts: where each millisecond went, from the client's request to nothing left.

Asked for by a container's annotation (`pier.trace=true`, what `pier run --trace FILE` sets) or, for
every container, by the daemon's `trace-dir`. A track is what one process did, as marks: the time at
which a phase begins, which ends with the next mark ("" begins none). Times are CLOCK_MONOTONIC in
nanoseconds; the keeper and the container's first process mark theirs by `runtime.marks`.

The result is Chrome's trace format (JSON object format, complete and metadata events), which
Perfetto opens.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec

log = logging.getLogger(__name__)

API, ENGINE, KEEPER, INIT = "API", "pierd", "keeper", "container's first process"
_ORDER = (API, ENGINE, KEEPER, INIT)
# Of so many containers the traces are kept in memory, for who asks.
_KEPT = 64
_PATIENCE_S = 2.0

Marks = Iterable[tuple[int, str]]


class Trace:
    """The trace of one container's latest start. `over` is set when nothing more will come."""

    def __init__(self, container_id: str) -> None:
        self._id = container_id
        self._spans: list[tuple[str, int, int, str]] = []
        self._marks: list[tuple[int, str]] = []
        self._tracks: dict[str, list[tuple[int, str]]] = {}
        self.over = asyncio.Event()

    def mark(self, phase: str) -> None:
        """What pierd does from now on; "" for nothing."""
        self._marks.append((time.monotonic_ns(), phase))

    def span(self, track: str, name: str, begin_ns: int) -> None:
        """What lasted from `begin_ns` until now."""
        self._spans.append((track, begin_ns, time.monotonic_ns(), name))

    def take(self, packet: dict[str, Any]) -> None:
        """Take over the marks of a keeper's packet. A later packet has those of the earlier too."""
        for track, key in ((KEEPER, "marks"), (INIT, "marks_inside")):
            if key in packet:
                self._tracks[track] = [(at, phase) for at, phase in packet[key]]

    def document(self) -> dict[str, Any]:
        """The whole trace in Chrome's format."""
        tracks = {ENGINE: self._marks, **self._tracks}
        spans = [*self._spans]
        for track, marks in tracks.items():
            spans += _spans(track, marks)
        events: list[dict[str, Any]] = []
        for number, track in enumerate(_ORDER, 1):
            about = {"ph": "M", "pid": number, "tid": number}
            events.append({**about, "name": "process_name", "args": {"name": track}})
            events.append({**about, "name": "process_sort_index", "args": {"sort_index": number}})
        for track, begin, end, name in sorted(spans, key=lambda span: span[1]):
            number = _ORDER.index(track) + 1
            # Requests overlap, and those of one thread may not.
            thread = number if track != API else 10 + len(events)
            events.append(
                {
                    "ph": "X", "pid": number, "tid": thread, "cat": "start", "name": name,
                    "ts": begin / 1000, "dur": max(end - begin, 0) / 1000,
                }
            )  # fmt: skip
        return {
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": {"container": self._id, "clock": "CLOCK_MONOTONIC"},
        }


def _spans(track: str, marks: Marks) -> Iterable[tuple[str, int, int, str]]:
    """A mark's phase lasts until the next mark; that of the last one has no length."""
    ordered = list(marks)
    for (begin, phase), (end, _) in zip(ordered, [*ordered[1:], (0, "")], strict=False):
        if phase:
            yield track, begin, end or begin, phase


class Traces:
    """The traces of this engine. `directory` "" writes none of them to a file."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._traces: OrderedDict[str, Trace] = OrderedDict()

    def begin(self, container_id: str, *, wanted: bool) -> None:
        """Trace a container from here, if that is wanted."""
        if wanted or self._directory:
            self._traces.pop(container_id, None)
            self._traces[container_id] = Trace(container_id)
            if len(self._traces) > _KEPT:
                self._traces.popitem(last=False)

    def start(self, container_id: str, *, wanted: bool) -> None:
        """A container is started: go on with the trace of its making, or begin another."""
        trace = self._traces.get(container_id)
        if trace is None or trace.over.is_set():
            self.begin(container_id, wanted=wanted)

    def get(self, container_id: str) -> Trace | None:
        return self._traces.get(container_id)

    def mark(self, container_id: str, phase: str) -> None:
        """What pierd does for a container from now on; nothing where it is not traced."""
        if self._traces and (trace := self._traces.get(container_id)) is not None:
            trace.mark(phase)

    def request(self, container_id: str, what: str, begin_ns: int) -> None:
        """A request of the API, arrived at `begin_ns`, is answered now."""
        if self._traces and (trace := self._traces.get(container_id)) is not None:
            trace.span(API, what, begin_ns)

    def take(self, container_id: str, packet: dict[str, Any]) -> None:
        """Take over what a keeper marked, if its packet says."""
        if "marks" in packet and (trace := self._traces.get(container_id)) is not None:
            trace.take(packet)

    def end(self, container_id: str) -> None:
        """Nothing more happens to this run."""
        if self._traces and (trace := self._traces.get(container_id)) is not None:
            trace.mark("")
            trace.over.set()
            self.write(container_id)

    def write(self, container_id: str) -> None:
        """Write what there is to the directory, if there is one."""
        trace = self._traces.get(container_id)
        if not self._directory or trace is None:
            return
        path = os.path.join(self._directory, f"{container_id}.json")
        try:
            with open(path + ".tmp", "wb") as file:
                file.write(msgspec.json.encode(trace.document()))
            os.rename(path + ".tmp", path)
        except OSError as exc:
            log.warning("the trace of container %s was not written: %s", container_id, exc)

    async def document(self, container_id: str, *, until_over: bool) -> dict[str, Any] | None:
        """A container's trace, None if there is none; with `until_over`, once nothing is left of it."""
        trace = self._traces.get(container_id)
        if trace is None:
            return None
        if until_over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(trace.over.wait(), _PATIENCE_S)
        return trace.document()
