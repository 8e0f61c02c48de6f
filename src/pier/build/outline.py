"""What a Dockerfile offers, without building it: its targets, and what one of them takes.

The documents are those of BuildKit's subrequests `frontend.outline` and `frontend.targets`. What a
comment right above a FROM or an ARG says of it (`# NAME what it is`) is its description.
"""

from collections.abc import Sequence
from typing import Any

from pier.build.dockerfile import instructions as ins
from pier.build.mounts import parse_mount
from pier.build.plan import Plan
from pier.errors import InvalidParameter


def targets_of(file: ins.Dockerfile) -> dict[str, Any]:
    """Return the stages that can be a target."""
    last = len(file.stages) - 1
    found = []
    for stage in file.stages:
        target = {
            "name": stage.base.alias.lower(),
            "description": _description(stage.base, stage.base.alias),
            "default": stage.index == last,
            "base": stage.base.image,
            "platform": stage.base.platform,
            "location": _location(stage.base),
        }
        found.append({key: value for key, value in target.items() if value})
    return {"targets": found}


def outline_of(file: ins.Dockerfile, plan: Plan) -> dict[str, Any]:
    """Return what the plan's target takes: build arguments, secrets, agents, caches."""
    stage = plan.stages[-1].stage
    lines: list[ins.Arg] = list(file.globals)
    mounts = []
    for planned in plan.stages:
        for step in planned.stage.instructions:
            if isinstance(step, ins.Arg):
                lines.append(step)
            elif isinstance(step, ins.Run):
                mounts += [(text, step) for text in step.mounts]
    arguments: dict[str, dict[str, Any]] = {}
    for line in lines:
        for name, default in line.values:
            entry = {"name": name, "description": _description(line, name)}
            entry |= {"value": (default or "").strip("\"'")}
            known = arguments.get(name, {})
            arguments[name] = {"location": _location(line)} | known | _said(entry)
    document = {
        "name": stage.alias,
        "description": _description(stage.base, stage.base.alias),
        "args": list(arguments.values()),
        "secrets": _mounted(mounts, "secret"),
        "ssh": _mounted(mounts, "ssh"),
        "cache": _mounted(mounts, "cache"),
        "sources": [file.text],
    }
    return _said(document)


def targets_text(document: dict[str, Any]) -> str:
    """As `docker build --call=targets` prints it."""
    rows = [("TARGET", "DESCRIPTION")]
    for target in document["targets"]:
        name = f"{target.get('name', '')}{' (default)' if target.get('default') else ''}".strip()
        if name:
            rows.append((name, target.get("description", "")))
    return _table(rows, gap=1)


def outline_text(document: dict[str, Any]) -> str:
    """As `docker build --call=outline` prints it."""
    parts = []
    head = [("TARGET:", document.get("name", ""))]
    if document.get("description"):
        head.append(("DESCRIPTION:", document["description"]))
    if document.get("name"):
        parts.append(_table(head))
    if arguments := document.get("args"):
        rows = [("BUILD ARG", "VALUE", "DESCRIPTION")]
        rows += [(a["name"], a.get("value", ""), a.get("description", "")) for a in arguments]
        parts.append(_table(rows))
    for key, title in (("secrets", "SECRET"), ("ssh", "SSH")):
        if entries := document.get(key):
            rows2 = [(title, "REQUIRED")]
            rows2 += [(e["name"], "true" if e.get("required") else "") for e in entries]
            parts.append(_table(rows2))
    return "\n".join(parts)


def _mounted(mounts: Sequence[tuple[str, ins.Run]], kind: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text, step in mounts:
        try:
            mount = parse_mount(text)
        except InvalidParameter:
            continue  # the build fails with it
        if mount.kind == kind:
            entry = {"name": mount.id, "required": mount.required, "location": _location(step)}
            key = "ID" if kind == "cache" else "name"
            found.setdefault(mount.id, _said({**entry, key: mount.id}))
    return list(found.values())


def _description(step: ins.Instruction, name: str) -> str:
    if not step.comments or not name:
        return ""
    word, _, rest = step.comments[-1].partition(" ")
    return rest.strip() if word == name else ""


def _location(step: ins.Instruction) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": step.first}, "end": {"line": step.last}}]}


def _said(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value}


def _table(rows: Sequence[Sequence[str]], gap: int = 3) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        (" " * gap)
        .join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        .rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"
