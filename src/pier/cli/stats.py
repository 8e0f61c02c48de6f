"""`pier stats`: what containers use, once or every second.

The engine keeps the last sample of each container, so that asking again a second later is answered
at once; the first answer takes half a second, for all of them at the same time.
"""

import sys
import time

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.config_file import list_format
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Flag
from pier.cli.formats import TABLE_FORMAT
from pier.cli.http import Client, quote
from pier.cli.tables import Listing, short_id
from pier.cli.units import binary_size, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_PERIOD_S = 1.0
_LISTING = Listing(
    {
        "Container": "CONTAINER",
        "Name": "NAME",
        "ID": "CONTAINER ID",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t"
    "{{.PIDs}}",
    what="*formatter.ContainerStatsContext",
)


def _stats(context: "Context", options: "Options") -> None:
    source = _LISTING.source(list_format(options, "statsFormat"))
    _LISTING.check(source)
    full, streams = options.on("no-trunc"), not options.on("no-stream")
    try:
        while True:
            names = options.args or _listed(context, all_=options.on("all"))
            found = _gather(context.client, names)
            rows = [_row(name, stats, full=full) for name, stats in found]
            if streams:
                sys.stdout.write("\033[2J\033[H")
            _LISTING.write(source, rows)
            sys.stdout.flush()
            if not streams:
                return
            time.sleep(_PERIOD_S)
    except KeyboardInterrupt:
        return


def _listed(context: "Context", *, all_: bool) -> list[str]:
    containers = context.client.get("/containers/json", {"all": all_}).json()
    return [str(container["Id"]) for container in containers]


def _gather(client: Client, names: list[str]) -> "list[tuple[str, dict[str, Any]]]":
    """Ask for all of them at once. Raises Failure with what went wrong first, if anything did.

    A container that was removed since it was listed is left out.
    """
    import threading

    answers: dict[str, Any] = {}

    def ask(name: str) -> None:
        own = client.fresh()
        try:
            query = {"stream": "false"}
            answers[name] = own.get(f"/containers/{quote(name)}/stats", query).json()
        except Failure as error:
            answers[name] = error
        finally:
            own.close()

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [answer for answer in answers.values() if isinstance(answer, Failure)]
    gone = [f for f in failures if isinstance(f, ApiError) and f.code == 404]
    if failures and (len(failures) > len(gone) or len(gone) == len(names)):
        raise failures[0]
    return [(name, answers[name]) for name in names if not isinstance(answers[name], Failure)]


def _row(name: str, stats: "dict[str, Any]", *, full: bool) -> "dict[str, Any]":
    used, limit = memory(stats)
    received, sent = _network(stats)
    read, written = _block(stats)
    identity = str(stats.get("id", ""))
    return {
        "Container": name,
        "Name": str(stats.get("name", "")).removeprefix("/"),
        "ID": identity if full else short_id(identity),
        "CPUPerc": f"{cpu_percent(stats):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "BlockIO": f"{human_size(read)} / {human_size(written)}",
        "PIDs": str((stats.get("pids_stats") or {}).get("current", 0)),
    }


def cpu_percent(stats: "dict[str, Any]") -> float:
    """How much of one CPU was used between the two samples; 200 is two of them."""
    now, before = stats["cpu_stats"], stats["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ()) or 1
    return used / passed * count * 100 if used > 0 and passed > 0 else 0.0


def memory(stats: "dict[str, Any]") -> tuple[int, int]:
    """Bytes in use without what is only cached, and the limit."""
    found = stats.get("memory_stats") or {}
    usage, details = found.get("usage", 0), found.get("stats") or {}
    # cgroup v1 has the first name, v2 the second.
    cached = details.get("total_inactive_file", details.get("inactive_file", 0))
    return (usage - cached if cached < usage else usage), found.get("limit", 0)


def _network(stats: "dict[str, Any]") -> tuple[int, int]:
    interfaces = (stats.get("networks") or {}).values()
    return (
        sum(interface["rx_bytes"] for interface in interfaces),
        sum(interface["tx_bytes"] for interface in interfaces),
    )


def _block(stats: "dict[str, Any]") -> tuple[int, int]:
    entries = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    sums = {"r": 0, "w": 0}
    for entry in entries:
        kind = entry["op"][:1].lower()
        if kind in sums:
            sums[kind] += entry["value"]
    return sums["r"], sums["w"]


STATS = Command(
    "stats [OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    _stats,
    arity=(0, None),
    options=(
        Flag("all", kinds.BOOL, "Show all containers (default shows just running)", short="a"),
        TABLE_FORMAT,
        Flag("no-stream", kinds.BOOL, "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", kinds.BOOL, "Do not truncate output"),
    ),
    aliases="container stats, stats",
)
