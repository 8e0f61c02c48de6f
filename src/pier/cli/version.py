"""`pier version`: of the client, and of the engine and its parts."""

import os
import sys

from pier import __version__
from pier.cli.command import Command
from pier.cli.errors import NoEngine
from pier.cli.formats import FORMAT, Format
from pier.cli.http import API_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_TITLES = {
    "ApiVersion": "API version",
    "GoVersion": "Go version",
    "PythonVersion": "Python version",
    "GitCommit": "Git commit",
    "BuildTime": "Built",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def client_version() -> "dict[str, Any]":
    """The Client part of the version document."""
    return {
        "Version": __version__,
        "ApiVersion": os.environ.get("DOCKER_API_VERSION", "").lstrip("v") or API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "Context": "default",
    }


def _version(context: "Context", options: "Options") -> None:
    source = options.text("format")
    form = Format(source) if source else None
    document: dict[str, Any] = {"Client": client_version(), "Server": None}
    failure = None
    try:
        document["Server"] = context.client.get("/version").json()
    except NoEngine as error:
        failure = error
    if form is not None:
        print(form.render(document))
    else:
        sys.stdout.write(_client_text(document["Client"]))
        if document["Server"]:
            sys.stdout.write("\n" + _server_text(document["Server"]))
    if failure is not None:
        raise failure


def _lines(indent: str, rows: "list[tuple[str, str]]") -> str:
    return "".join(f"{indent}{title + ':':<18}{value}\n" for title, value in rows)


def _client_text(client: "dict[str, Any]") -> str:
    rows = [
        ("Version", client["Version"]),
        ("API version", client["ApiVersion"]),
        ("Python version", client["PythonVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        ("Context", client["Context"]),
    ]
    text = "".join(f" {title + ':':<18} {value}\n" for title, value in rows)
    return "Client:\n" + text


def _server_text(server: "dict[str, Any]") -> str:
    platform = (server.get("Platform") or {}).get("Name", "")
    text = f"Server: {platform}\n" if platform else "Server:\n"
    for component in server.get("Components") or [_engine(server)]:
        details = component.get("Details") or {}
        rows = [("Version", component["Version"])]
        rows += _engine_rows(details) if component["Name"] == "Engine" else sorted(details.items())
        text += f" {component['Name']}:\n" + _lines("  ", rows)
    return text


def _engine(server: "dict[str, Any]") -> "dict[str, Any]":
    """What engines before the list of components said of themselves."""
    details = {key: str(value) for key, value in server.items() if isinstance(value, str)}
    return {"Name": "Engine", "Version": server.get("Version", ""), "Details": details}


def _engine_rows(details: "dict[str, str]") -> "list[tuple[str, str]]":
    api = details.get("ApiVersion", "")
    if details.get("MinAPIVersion"):
        api += f" (minimum version {details['MinAPIVersion']})"
    rows = [("API version", api)]
    for key in ("GoVersion", "PythonVersion", "GitCommit", "BuildTime"):
        if details.get(key):
            value = details[key]
            rows.append((_TITLES[key], built(value) if key == "BuildTime" else value))
    rows.append(("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"))
    rows.append(("Experimental", details.get("Experimental", "false")))
    return rows


def built(text: str) -> str:
    """A build time as `Fri May 30 12:07:14 2025`; what is no time is left as it is."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).strftime("%a %b %e %H:%M:%S %Y")
    except ValueError:
        return text


VERSION = Command(
    "version [OPTIONS]",
    "Show the Pier version information",
    _version,
    arity=(0, 0),
    options=(FORMAT,),
)
