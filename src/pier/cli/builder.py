"""`pier builder`: what the cache of builds takes, and taking it away."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.confirm import confirm
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.prune import prune_builds
from pier.cli.tables import align
from pier.cli.units import ago, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _prune(context: "Context", options: "Options") -> None:
    what = "all build cache" if options.on("all") else "all dangling build cache"
    if not options.on("force") and not confirm(f"WARNING! This will remove {what}."):
        return
    shown, reclaimed = prune_builds(context, options)
    sys.stdout.write(shown)
    print(f"Total reclaimed space: {human_size(reclaimed, 4)}")


def _du(context: "Context", options: "Options") -> None:
    records = context.client.get("/system/df", {"type": "build-cache"}).json()["BuildCache"] or []
    records = [record for record in records if _wanted(record, options.list("filter"))]
    if options.text("format") == "json":
        import json

        for record in records:
            print(json.dumps(record))
        return
    if options.on("verbose"):
        for record in records:
            for key, value in _fields(record):
                print(f"{key + ':':<16}{value}")
            print()
    else:
        rows = ["ID\tRECLAIMABLE\tSIZE\tUSES\tLAST ACCESSED\tDESCRIPTION"]
        for record in records:
            size = human_size(record["Size"])
            words = f"{record['ID']}\t{_free(record)}\t{size}\t{record['UsageCount']}"
            rows.append(f"{words}\t{_ago(record)}\t{record['Description']}")
        sys.stdout.write(align(rows))
    total = sum(record["Size"] for record in records)
    shared = sum(record["Size"] for record in records if record["Shared"])
    reclaimable = sum(r["Size"] for r in records if not r["InUse"] and not r["Shared"])
    if shared:
        print(f"Shared:\t\t{human_size(shared)}\nPrivate:\t{human_size(total - shared)}")
    print(f"Reclaimable:\t{human_size(reclaimable)}\nTotal:\t\t{human_size(total)}")


def _free(record: "dict[str, Any]") -> str:
    return str(not record["InUse"] and not record["Shared"]).lower()


def _ago(record: "dict[str, Any]") -> str:
    import datetime as dt

    text = str(record.get("LastUsedAt") or "")
    if not text:
        return ""
    moment = dt.datetime.fromisoformat(text)
    return ago(int(moment.timestamp()))


def _fields(record: "dict[str, Any]") -> "list[tuple[str, str]]":
    parents = [("Parents", " ".join(record["Parents"]))] if record.get("Parents") else []
    return [
        ("ID", record["ID"]),
        *parents,
        ("Created at", record["CreatedAt"]),
        ("Mutable", str(record["Type"] != "regular").lower()),
        ("Reclaimable", _free(record)),
        ("Shared", str(record["Shared"]).lower()),
        ("Size", human_size(record["Size"])),
        ("Description", record["Description"]),
        ("Usage count", str(record["UsageCount"])),
        ("Last used", _ago(record)),
        ("Type", record["Type"]),
    ]


def _wanted(record: "dict[str, Any]", filters: "list[tuple[str, str]]") -> bool:
    values = {
        "id": record["ID"],
        "type": record["Type"],
        "description": record["Description"],
        "inuse": str(record["InUse"]).lower(),
        "shared": str(record["Shared"]).lower(),
        "private": str(not record["Shared"]).lower(),
    }
    for key, value in filters:
        if key not in values:
            raise Failure(f"invalid filter '{key}'")
        if value not in values[key]:
            return False
    return True


PRUNE = Command(
    "prune [OPTIONS]",
    "Remove build cache",
    _prune,
    arity=(0, 0),
    options=(
        Flag("all", kinds.BOOL, "Remove all unused build cache, not just dangling ones", short="a"),
        Flag("filter", kinds.FILTER, 'Provide filter values (e.g. "until=24h")'),
        Flag("force", kinds.BOOL, "Do not prompt for confirmation", short="f"),
        Flag("keep-storage", kinds.BYTES, "Amount of disk space to keep for cache"),
        Flag(
            "max-used-space", kinds.BYTES, "Maximum amount of disk space allowed to keep for cache"
        ),
        Flag("min-free-space", kinds.BYTES, "Target amount of free disk space after pruning"),
        Flag(
            "reserved-space", kinds.BYTES, "Amount of disk space always allowed to keep for cache"
        ),
    ),
)
DU = Command(
    "du [OPTIONS]",
    "Show the disk usage of the build cache",
    _du,
    arity=(0, 0),
    options=(
        Flag("filter", kinds.FILTER, 'Provide filter values (e.g. "type=regular")'),
        Flag("format", kinds.STRING, "Format the output (json)"),
        Flag("verbose", kinds.BOOL, "Provide a more verbose output"),
    ),
)
