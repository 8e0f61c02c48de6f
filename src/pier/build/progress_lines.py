"""Progress as lines of JSON: what `pier build` reads to draw its tree (`docs/build.md`)."""

from collections.abc import Callable, Mapping
from typing import Any

from pier.build.progress import Log, Status, Vertex, Warned

Tell = Callable[[Mapping[str, Any]], None]


class ProgressLines:
    """Times are ns since the epoch; a field that says nothing is left out."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def vertex(self, vertex: Vertex) -> None:
        self._tell({"vertex": _said(vertex)})

    def status(self, status: Status) -> None:
        self._tell({"status": _said(status)})

    def log(self, log: Log) -> None:
        text = log.data.decode("utf-8", "replace")
        self._tell({"log": {**_said(log), "data": text}})

    def warn(self, warning: Warned) -> None:
        self._tell({"warning": {"short": warning.short, "url": warning.url}})


def _said(thing: Vertex | Status | Log) -> dict[str, Any]:
    names = thing.__struct_fields__
    return {name: value for name in names if (value := getattr(thing, name)) or name == "name"}
