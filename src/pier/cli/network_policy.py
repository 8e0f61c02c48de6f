"""`pier network policy`: what containers and networks may reach outside, and what became of it."""

import json

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.errors import ApiError, Exit, Failure
from pier.cli.flags import Flag
from pier.cli.formats import FORMAT, Format
from pier.cli.http import quote
from pier.cli.own_flags import EGRESS_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _policy(context: "Context", options: "Options") -> None:
    if options.args[0] == "test" and len(options.args) == 3:
        _test(context, options, *options.args[1:])
        return
    if len(options.args) != 1:
        raise Failure("use: pier network policy NAME, or pier network policy test CONTAINER TARGET")
    report = _find(context, options.args[0], options.text("type"))
    if "egress" in options.changed:
        _change(context, report, options.text("egress"))
        print(report["Name"])
    elif options.text("format"):
        print(Format(options.text("format")).render(report))
    else:
        print(_page(report), end="")


def _find(context: "Context", name: str, kind: str) -> "dict[str, Any]":
    """The report of the network of that name, or else of the container."""
    for each in ("network", "container"):
        if kind in ("", each):
            try:
                found: dict[str, Any] = context.client.get("/pier/egress", {each: name}).json()
            except ApiError as error:
                if error.code != 404 or kind:
                    raise
            else:
                return found
    if kind:
        raise Failure(f'unknown type: "{kind}": must be one of "container", "network"')
    raise Failure(f"no such network or container: {name}")


def _change(context: "Context", report: "dict[str, Any]", policy: str) -> None:
    if report["Kind"] == "network":
        context.client.post(
            "/pier/egress", {"network": report["Id"]}, body={"Policy": policy}
        ).read()
        return
    body = {"Annotations": {"pier.egress": policy}}
    context.client.post(f"/containers/{quote(report['Id'])}/update", body=body).read()


def _page(report: "dict[str, Any]") -> str:
    lines = [f"{report['Kind']} {report['Name']}: {report['Policy']}"]
    lines += [f"network {name}: {policy}" for name, policy in report["Networks"].items()]
    if report["Names"]:
        lines.append("names:")
    for each in report["Names"]:
        left = f"for {each['Expires']} s more" if each["Expires"] else "always"
        lines.append(f"  {each['Name'] or '(a name)'} = {each['Address']}  {left}")
    refused = report["Refused"]
    if report["Policy"] != "allow":
        lines.append(f"refused: {report['RefusedPackets']} packets")
    lines += [f"  {_place(each)}  {each['Packets']} packets" for each in refused]
    lines += [f"  {name}  {count} look-ups" for name, count in report["RefusedNames"].items()]
    return "\n".join(lines) + "\n"


def _place(each: "dict[str, Any]") -> str:
    address = f"[{each['Address']}]" if ":" in each["Address"] else each["Address"]
    return f"{address}:{each['Port']}/{each['Protocol']}" if each["Port"] else f"{each['Address']} {each['Protocol']}"  # fmt: skip


def _test(context: "Context", options: "Options", container: str, target: str) -> None:
    """Exit status 1 when nothing of it is allowed."""
    query = {"container": container, "target": target}
    found = context.client.get("/pier/egress/test", query).json()
    if options.text("format") == "json":
        print(json.dumps(found))
    else:
        for each in found:
            word = "allowed" if each["Allowed"] else "refused"
            tried = f"; {each['Connection']}" if each["Connection"] else ""
            shown = {"Address": each["Address"], "Port": each["Port"], "Protocol": each["Protocol"]}
            print(
                f"{_place(shown) if each['Address'] else target}: {word}: {each['Reason']}{tried}"
            )
    if not any(each["Allowed"] for each in found):
        raise Exit(1)


POLICY = Command(
    "policy [OPTIONS] NETWORK|CONTAINER\n"
    "        pier network policy test CONTAINER HOST[:PORT][/PROTOCOL]",
    "Show, change and test what a network or container may reach outside",
    _policy,
    arity=(1, 3),
    options=(
        EGRESS_FLAG,
        FORMAT,
        Flag("type", kinds.STRING, 'Take NAME as one of "container" or "network"'),
    ),
)
