"""`pier events`: what happens in the engine, as it happens."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.formats import FILTER, FORMAT_LONG, filters
from pier.cli.units import nano_time, query_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _events(context: "Context", options: "Options") -> None:
    source = options.text("format")
    form = None
    if source and source not in ("json", "{{json .}}"):
        from pier.cli.formats import Format

        form = Format(source, prefix="Error parsing format")
    query = {
        "since": _time(options.text("since")),
        "until": _time(options.text("until")),
        "filters": filters(options),
    }
    for event in context.client.get("/events", query).json_lines():
        if form is not None:
            line = form.render(_fields(event))
        elif source:
            line = _json(event)
        else:
            line = _line(event)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _time(text: str) -> str | None:
    try:
        return query_time(text) if text else None
    except ValueError as error:
        raise Failure(str(error)) from None


def _line(event: "dict[str, Any]") -> str:
    actor = event.get("Actor") or {}
    nanoseconds = event.get("timeNano") or event.get("time", 0) * 1_000_000_000
    text = f"{nano_time(nanoseconds)} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    attributes = sorted((actor.get("Attributes") or {}).items())
    if attributes:
        text += " (" + ", ".join(f"{key}={value}" for key, value in attributes) + ")"
    return text


def _json(event: "dict[str, Any]") -> str:
    import json

    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


def _fields(event: "dict[str, Any]") -> "dict[str, Any]":
    """An event under the names that templates use: those of the Go struct."""
    return {
        "Status": event.get("status", ""),
        "ID": event.get("id", ""),
        "From": event.get("from", ""),
        "Type": event.get("Type", ""),
        "Action": event.get("Action", ""),
        "Actor": event.get("Actor") or {"ID": "", "Attributes": {}},
        "Scope": event.get("scope", ""),
        "Time": event.get("time", 0),
        "TimeNano": event.get("timeNano", 0),
    }


EVENTS = Command(
    "events [OPTIONS]",
    "Get real time events from the server",
    _events,
    arity=(0, 0),
    options=(
        FILTER,
        FORMAT_LONG,
        Flag("since", kinds.STRING, "Show all events created since timestamp"),
        Flag("until", kinds.STRING, "Stream events until this timestamp"),
    ),
    aliases="system events, events",
)
