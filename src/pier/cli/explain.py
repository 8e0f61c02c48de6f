"""`pier explain`: how a container is connected and who reaches it, on one page."""

from pier.cli.command import Command
from pier.cli.formats import FORMAT, Format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _explain(context: "Context", options: "Options") -> None:
    for name in options.args:
        found = context.client.get("/pier/explain", {"container": name}).json()
        if options.text("format"):
            print(Format(options.text("format")).render(found))
        else:
            print(page(found), end="")


def page(found: "dict[str, Any]") -> str:
    """The explanation as text."""
    lines = [
        f"{found['Name']} ({found['Id'][:12]}): {found['State']}, network {found['NetworkMode']}"
    ]
    if found["Pid"]:
        lines[0] += f", process {found['Pid']}"
    _section(lines, "NAMESPACES", [f"{n['Kind']:<7} {n['Id']}  {n['Whose']}" for n in found["Namespaces"]])  # fmt: skip
    for each in found["Interfaces"]:
        _section(lines, f"INTERFACE {each['Name']}", _interface(each))
    _section(
        lines,
        "ROUTES",
        [
            f"{r['Destination']:<20}{' via ' + r['Gateway'] if r['Gateway'] else ''} on {r['Interface']}"
            for r in found["Routes"]
        ],
    )
    _section(
        lines,
        "PORTS",
        [f"{p['Host']} -> {p['Container']}  by {p['Through']}" for p in found["Ports"]],
    )
    _section(lines, "NAMES", _names(found["Names"]))
    _section(lines, "WAY OUT", _egress(found["Egress"]))
    for place, rules in found["Rules"].items():
        _section(lines, f"RULES {place}", rules)
    return "\n".join(lines) + "\n"


def _section(lines: list[str], title: str, rows: list[str]) -> None:
    if rows:
        lines += ["", title, *(f"  {row}" for row in rows)]


def _interface(each: "dict[str, Any]") -> list[str]:
    rows = [f"{'up' if each['Up'] else 'down'}, MTU {each['Mtu']}, MAC {each['Mac']}"]
    rows += [f"address {address}" for address in each["Addresses"]]
    if each["Network"]:
        way = " -> ".join(name for name in (each["Host"], each["Bridge"]) if name)
        rows.append(f"network {each['Network']} ({each['Driver']})" + (f" by {way}" if way else ""))
    if each["Gateway"]:
        rows.append(f"gateway {each['Gateway']}")
    for key, word in (("RateIn", "receives"), ("RateOut", "sends")):
        if each[key] not in ("", "0"):
            rows.append(f"{word} at most {each[key]}")
    return rows


def _names(names: "dict[str, Any] | None") -> list[str]:
    if names is None:
        return []
    rows = [f"server {' '.join(names['Servers']) or 'none'}"]
    if names["Upstream"]:
        rows.append(f"which asks {' '.join(names['Upstream'])}")
    if names["Search"]:
        rows.append(f"search {' '.join(names['Search'])}")
    if names["Own"]:
        rows.append(f"is called {', '.join(dict.fromkeys(names['Own']))}")
    rows += [f"knows {name} = {' '.join(known)}" for name, known in names["Known"].items()]
    return rows + [f"/etc/hosts: {' '.join(line.split())}" for line in names["Hosts"]]


def _egress(report: "dict[str, Any]") -> list[str]:
    rows = [f"policy: {report['Policy']}"]
    rows += [f"policy of network {name}: {text}" for name, text in report["Networks"].items()]
    rows += [f"{each['Name'] or '(a name)'} = {each['Address']}" for each in report["Names"]]
    if report["RefusedPackets"]:
        rows.append(f"refused until now: {report['RefusedPackets']} packets")
    return rows


EXPLAIN = Command(
    "explain [OPTIONS] CONTAINER [CONTAINER...]",
    "Tell how a container is connected, and who reaches it",
    _explain,
    arity=(1, None),
    options=(FORMAT,),
    aliases="container explain, explain",
)
