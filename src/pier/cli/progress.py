"""Drawing the progress of a pull, push or load: a line a layer, redrawn in place on a terminal.

Where the output is no terminal, each step is printed once and bars are left out, as docker does.
"""

from pier.cli.errors import Failure
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

_BAR = 50
_MIN_COLUMNS = 110
_CLEAR = "\x1b[2K\r"


def show(records: "Iterable[Any]", out: "TextIO") -> "list[dict[str, Any]]":
    """Draw the records of a progress stream; the `aux` values in it. Raises Failure for its error."""
    import os

    terminal = out.isatty()
    lines: dict[str, int] = {}
    aux: list[dict[str, Any]] = []
    passing = False
    for record in records:
        if record.get("error"):
            out.flush()
            raise Failure(str((record.get("errorDetail") or {}).get("message") or record["error"]))
        if record.get("aux") is not None:
            aux.append(record["aux"])
            continue
        identifier = str(record.get("id") or "")
        moving = bool(record.get("progressDetail"))
        if "stream" in record:
            out.write(str(record["stream"]))
            continue
        if not terminal:
            if not moving:
                lead = f"{identifier}: " if identifier else ""
                out.write(f"{lead}{record.get('status', '')}\n")
                out.flush()
            continue
        columns = os.get_terminal_size(out.fileno()).columns or 80
        text = _text(record, identifier, columns)
        if not identifier and moving:
            # Of the whole: one line that whatever comes next takes the place of.
            out.write(f"{_CLEAR}{text}\r")
            passing = True
            out.flush()
            continue
        if passing:
            out.write(_CLEAR)
            passing = False
        if not identifier or "progressDetail" not in record:
            # What is not a layer's line ends the block of those that are redrawn.
            lines.clear()
            out.write(text + "\n")
        else:
            _redraw(out, lines, identifier, text)
        out.flush()
    return aux


def _redraw(out: "TextIO", lines: "dict[str, int]", identifier: str, text: str) -> None:
    """Write a layer's line where it is, or below the others."""
    if identifier not in lines:
        lines[identifier] = len(lines)
        out.write(f"{text}\n")
        return
    up = len(lines) - lines[identifier]
    out.write(f"\x1b[{up}A{_CLEAR}{text}\r\x1b[{up}B")


def _text(record: "dict[str, Any]", identifier: str, columns: int) -> str:
    lead = f"{identifier}: " if identifier else ""
    detail = record.get("progressDetail") or {}
    head = f"{lead}{record.get('status', '')}"
    return line(head, int(detail.get("current") or 0), int(detail.get("total") or 0), columns)


def line(head: str, current: int, total: int, columns: int) -> str:
    """Say how far something has come, with a bar where there is room; `total` may be unknown, 0."""
    if not current and not total:
        return head
    if total <= 0:
        return f"{head} {human_size(current):>8}"
    counts = f"{human_size(current):>8}"
    if current <= total:
        counts += f"/{human_size(total)}"
    if columns < _MIN_COLUMNS:
        return f"{head} {counts}"
    done = min(_BAR, current * _BAR // total)
    return f"{head} [{'=' * done}>{' ' * (_BAR - done)}] {counts}"
