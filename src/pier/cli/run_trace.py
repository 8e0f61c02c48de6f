"""`pier run --trace FILE`: where the time of a start went, the engine's trace and the client's part."""

import json
import time

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.http import Client

_CLIENT = 1
# The engine's processes are numbered from 1 on.
_OFFSET = 10


class RunTrace:
    """The client's own marks; `write` puts the engine's beside them. Raises Failure for the file."""

    def __init__(self, path: str) -> None:
        self._path = path
        now = time.monotonic_ns()
        # What was used to come here is near enough to how long ago it began.
        self._marks = [(now - time.process_time_ns(), "client starts"), (now, "command is read")]
        self._save({"traceEvents": []})

    def mark(self, phase: str) -> None:
        """What the client does from now on; "" for nothing."""
        self._marks.append((time.monotonic_ns(), phase))

    def write(self, client: "Client", container: str, *, ended: bool) -> None:
        """Fetch the engine's part and write all of it. With `ended` the container is over."""
        self.mark("")
        query = {"container": container, "over": ended}
        document: dict[str, Any] = client.get("/pier/trace", query).json()
        events = document["traceEvents"]
        for event in events:
            event["pid"] += _OFFSET
        document["traceEvents"] = [*self._events(), *events]
        self._save(document)

    def _events(self) -> "list[dict[str, Any]]":
        about = {"pid": _CLIENT, "tid": _CLIENT}
        events: list[dict[str, Any]] = [
            {**about, "ph": "M", "name": "process_name", "args": {"name": "pier"}},
            {**about, "ph": "M", "name": "process_sort_index", "args": {"sort_index": 0}},
        ]
        for (begin, phase), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            if phase:
                times = {"ts": begin / 1000, "dur": (end - begin) / 1000}
                events.append({**about, "ph": "X", "cat": "start", "name": phase, **times})
        return events

    def _save(self, document: "dict[str, Any]") -> None:
        try:
            with open(self._path, "w", encoding="ascii") as file:
                json.dump(document, file)
        except OSError as error:
            raise Failure(f"failed to write the trace to {self._path}: {error.strerror}") from None
