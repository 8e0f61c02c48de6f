"""`pier builder history`: builds that are over, and what each of their steps took."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.flags import Flag
from pier.cli.tables import align, ellipsis
from pier.cli.units import ago, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_SECOND = 1_000_000_000
_SHORT = 12


def _history(context: "Context", options: "Options") -> None:
    path = "/pier/build/history"
    if options.on("rm"):
        for name in context.client.delete(path, {"id": options.args or None}).json():
            print(name)
        return
    if not options.args:
        records = context.client.get(path).json()
        _print(options, records, _rows(records))
        return
    for ref in options.args:
        (record,) = context.client.get(path, {"id": ref}).json()
        _print(options, [record], _steps(record))


def _print(options: "Options", records: "list[Any]", rows: "list[str]") -> None:
    import json

    if options.text("format") == "json":
        for record in records:
            print(json.dumps(record))
        return
    sys.stdout.write(align(rows))


def _rows(records: "list[dict[str, Any]]") -> "list[str]":
    rows = ["BUILD ID\tNAME\tSTATUS\tCREATED\tDURATION\tSTEPS\tCACHED"]
    for record in records:
        steps = record["Steps"]
        cached = sum(step["Cached"] for step in steps)
        words = [record["ID"][:_SHORT], record["Name"] or "-", record["Status"].capitalize()]
        words += [
            ago(record["Started"] // _SECOND),
            _duration(record),
            str(len(steps)),
            str(cached),
        ]
        rows.append("\t".join(words))
    return rows


def _steps(record: "dict[str, Any]") -> "list[str]":
    rows = [
        f"Build:\t{record['ID'][:_SHORT]}",
        f"Name:\t{record['Name'] or '-'}",
        f"Status:\t{record['Status'].capitalize()}",
        f"Duration:\t{_duration(record)}",
        f"Image:\t{record['Image'] or '-'}",
    ]
    if record["Error"]:
        rows.append(f"Error:\t{record['Error']}")
    rows += ["", "STEP\tDURATION\tSIZE\tCACHED"]
    for step in record["Steps"]:
        name = ellipsis(step["Name"].partition("\n")[0].replace("\t", " "), 60)
        cached = "ERROR" if step["Error"] else "yes" if step["Cached"] else "no"
        rows.append(f"{name}\t{_duration(step)}\t{human_size(step['Size'])}\t{cached}")
    return rows


def _duration(record: "dict[str, Any]") -> str:
    return f"{max(0, record['Ended'] - record['Started']) / _SECOND:.1f}s"


HISTORY = Command(
    "history [OPTIONS] [BUILD...]",
    "Show builds that are over, or the steps of some with their times and sizes",
    _history,
    arity=(0, None),
    options=(
        Flag("format", kinds.STRING, "Format the output (json)"),
        Flag("rm", kinds.BOOL, "Forget these builds, or all"),
    ),
)
