"""The progress of `pier build` as docker shows it: a live tree on a terminal, plain lines, or JSON.

`add` takes the engine's records (`build/progress_lines.py`); what differs is how they are drawn.
"""

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_SECOND = 1_000_000_000
_LOG_LINES = 6
_KEPT_LINES = 20
_PERIOD_S = 0.1


class Vertex:
    """One step as it is known so far; times in ns since the epoch, 0 for not yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = ""
        self.started = self.completed = 0
        self.cached = False
        self.error = ""
        self.lines: list[str] = []
        self.rest = ""
        self.statuses: dict[str, dict[str, Any]] = {}

    def update(self, record: "dict[str, Any]") -> None:
        self.name = str(record.get("name") or self.name)
        self.started = int(record.get("started") or self.started)
        self.completed = int(record.get("completed") or 0)
        self.cached = bool(record.get("cached"))
        self.error = str(record.get("error") or "")

    @property
    def seconds(self) -> float:
        if not self.started:
            return 0.0
        return max(0, (self.completed or time.time_ns()) - self.started) / _SECOND

    def feed(self, text: str) -> "list[str]":
        """Take output; return the whole lines in it, and keep the last ones."""
        *lines, self.rest = (self.rest + text.replace("\r\n", "\n")).split("\n")
        self.lines = (self.lines + lines)[-_KEPT_LINES:]
        return lines


class Show:
    """Nothing is drawn: `quiet`. The others draw in `changed`."""

    def __init__(self, out: "TextIO") -> None:
        self.out = out
        self.vertexes: dict[str, Vertex] = {}
        self.warnings: list[str] = []
        self.reasons: list[str] = []

    def add(self, record: "dict[str, Any]") -> None:
        if (told := record.get("vertex")) is not None:
            vertex = self._vertex(told["digest"])
            vertex.update(told)
            self.changed(vertex)
        elif (told := record.get("log")) is not None:
            vertex = self._vertex(told["vertex"])
            self.wrote(vertex, vertex.feed(str(told["data"])), int(told.get("timestamp") or 0))
        elif (told := record.get("status")) is not None:
            vertex = self._vertex(told["vertex"])
            vertex.statuses[told["id"]] = told
            self.moved(vertex, told)
        elif (told := record.get("warning")) is not None:
            self.warnings.append(str(told["short"]))
        elif (told := record.get("explain")) is not None:
            step = str(told["step"]).partition("\n")[0]
            self.reasons.append(f"{step}: {told['why']}")
        elif "progressDetail" not in record and (text := record.get("stream")):
            self.say(str(text).rstrip("\n"))

    def _vertex(self, digest: str) -> Vertex:
        if digest not in self.vertexes:
            self.vertexes[digest] = Vertex(len(self.vertexes) + 1)
        return self.vertexes[digest]

    def changed(self, vertex: Vertex) -> None: ...
    def wrote(self, vertex: Vertex, lines: "list[str]", timestamp: int) -> None: ...
    def moved(self, vertex: Vertex, status: "dict[str, Any]") -> None: ...

    def say(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def pause(self) -> None:
        """Stop drawing for good: something else writes to the terminal from here on."""

    def end(self, failure: "dict[str, Any]") -> None:
        """Draw the last time; tell of warnings, and of what failed where."""
        if self.reasons:
            self.say("\nNot from the cache:")
            for text in self.reasons:
                self.say(f" - {text}")
        if count := len(self.warnings):
            noun = "warning" if count == 1 else "warnings"
            self.say(f"\n {count} {noun} found:")
            for text in self.warnings:
                self.say(f" - {text}")
        if failure:
            self.failed(failure)

    def failed(self, failure: "dict[str, Any]") -> None:
        for vertex in self.vertexes.values():
            if vertex.error and vertex.error != "context canceled":
                rows = [*vertex.lines, vertex.rest] if vertex.rest else vertex.lines
                self.say("------")
                self.say(f" > {vertex.name}:")
                for line in rows:
                    self.say(line)
                self.say("------")
        if text := failure.get("excerpt"):
            self.say(text.rstrip("\n"))


class Plain(Show):
    """A line an event, as `--progress plain`."""

    def __init__(self, out: "TextIO") -> None:
        super().__init__(out)
        self._last = 0
        self._begun: set[int] = set()

    def changed(self, vertex: Vertex) -> None:
        if vertex.started and vertex.number not in self._begun:
            self._begun.add(vertex.number)
            self._to(vertex)
            self.say(f"#{vertex.number} {vertex.name}")
        if not vertex.completed:
            return
        self._to(vertex)
        if vertex.rest:
            self.say(f"#{vertex.number} {vertex.seconds:.3f} {vertex.rest}")
        if vertex.error:
            word = "CANCELED" if vertex.error == "context canceled" else f"ERROR: {vertex.error}"
        else:
            word = "CACHED" if vertex.cached else f"DONE {vertex.seconds:.1f}s"
        self.say(f"#{vertex.number} {word}")
        self._last = 0

    def wrote(self, vertex: Vertex, lines: "list[str]", timestamp: int) -> None:
        self._to(vertex)
        since = max(0, timestamp - vertex.started) / _SECOND
        for line in lines:
            self.say(f"#{vertex.number} {since:.3f} {line}")

    def moved(self, vertex: Vertex, status: "dict[str, Any]") -> None:
        if status.get("completed"):
            self._to(vertex)
            self.say(f"#{vertex.number} {status['id']} done")

    def _to(self, vertex: Vertex) -> None:
        """Leave a blank line where another step's lines begin."""
        if self._last != vertex.number:
            if self._last or self._begun - {vertex.number}:
                self.say("")
            if vertex.number in self._begun and self._last:
                self.say(f"#{vertex.number} ...")
        self._last = vertex.number


class Tree(Show):
    """Steps with their times, redrawn in place; those that run show their last lines."""

    def __init__(self, out: "TextIO") -> None:
        import threading

        super().__init__(out)
        self._begun = time.monotonic()
        self._drawn = 0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()

    def add(self, record: "dict[str, Any]") -> None:
        with self._lock:
            super().add(record)

    def say(self, text: str) -> None:
        with self._lock:
            self._erase()
            super().say(text)

    def pause(self) -> None:
        """Stop drawing for good: something else writes to the terminal from here on."""
        self._over.set()
        self._thread.join()

    def end(self, failure: "dict[str, Any]") -> None:
        self.pause()
        self._draw(is_last=True)
        self._drawn = 0
        super().end(failure)

    def _tick(self) -> None:
        while not self._over.wait(_PERIOD_S):
            self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self.out.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self, *, is_last: bool = False) -> None:
        import os

        with self._lock:
            try:
                columns, rows = os.get_terminal_size(self.out.fileno())
            except OSError:
                columns, rows = 80, 24
            lines = self._rows(columns or 80)
            if not is_last and len(lines) >= max(rows, 4):
                lines = [lines[0], *lines[-(max(rows, 4) - 2) :]]
            self._erase()
            self.out.write("".join(f"{line}\n" for line in lines))
            self.out.flush()
            self._drawn = len(lines)

    def _rows(self, columns: int) -> "list[str]":
        known = [vertex for vertex in self.vertexes.values() if vertex.started]
        done = sum(bool(vertex.completed) for vertex in known)
        seconds = time.monotonic() - self._begun
        word = "FINISHED" if self._over.is_set() else f"({done}/{len(known)})"
        rows = [f"[+] Building {seconds:.1f}s {word}"]
        for vertex in known:
            mark = "CACHED " if vertex.cached else "ERROR " if vertex.error else ""
            rows.append(_row(f" => {mark}{vertex.name}", f"{vertex.seconds:.1f}s", columns))
            if vertex.completed:
                continue
            rows += [
                _row(f" => => {status['id']}", _amount(status), columns)
                for status in vertex.statuses.values()
                if not status.get("completed")
            ]
            tail = [*vertex.lines, vertex.rest] if vertex.rest else vertex.lines
            rows += [f" => => # {line}"[:columns] for line in tail[-_LOG_LINES:]]
        return rows


class RawJson(Show):
    """BuildKit's SolveStatus, a document a line."""

    def add(self, record: "dict[str, Any]") -> None:
        import base64
        import json

        names = {"vertex": "vertexes", "status": "statuses", "log": "logs", "warning": "warnings"}
        for kind, plural in names.items():
            if (told := record.get(kind)) is not None:
                told = {key: _dated(key, value) for key, value in told.items()}
                if kind == "log":
                    told["data"] = base64.b64encode(str(told["data"]).encode()).decode()
                self.say(json.dumps({plural: [told]}))

    def end(self, failure: "dict[str, Any]") -> None: ...


def make(progress: str, out: "TextIO") -> Show:
    """Return what draws: `progress` is auto, tty, plain, rawjson or quiet."""
    if progress == "auto":
        progress = "tty" if out.isatty() else "plain"
    return {"tty": Tree, "plain": Plain, "rawjson": RawJson, "quiet": Show}[progress](out)


def _row(text: str, right: str, columns: int) -> str:
    room = columns - len(right) - 1
    text = text.replace("\n", " ")
    if len(text) > room:
        text = text[: max(0, room - 3)] + "..."
    return f"{text:<{room}} {right}"


def _amount(status: "dict[str, Any]") -> str:
    from pier.cli.units import human_size

    current, total = int(status.get("current") or 0), int(status.get("total") or 0)
    return f"{human_size(current)} / {human_size(total)}" if total else human_size(current)


def _dated(key: str, value: "Any") -> "Any":
    import datetime as dt

    if key not in ("started", "completed", "timestamp"):
        return value
    moment = dt.datetime.fromtimestamp(value // _SECOND, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{value % _SECOND:09d}Z"
