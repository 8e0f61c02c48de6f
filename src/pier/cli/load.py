"""`pier load` and `pier import`: images out of archives."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.config_file import platform
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.images import platform_json
from pier.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from pier.cli.command import Context
    from pier.cli.flags import Options
    from pier.cli.http import Response


def _open(path: str) -> "IO[bytes]":
    try:
        return open(path, "rb")
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from None


def _load(context: "Context", options: "Options") -> None:
    path = options.text("input")
    if not path and is_terminal(0):
        raise Failure("requested load from stdin, but stdin is empty")
    platform = options.text("platform")
    query = {
        # Without a terminal nobody watches the bars, and the engine need not send them.
        "quiet": options.on("quiet") or not is_terminal(1),
        "platform": platform_json(platform) if platform else None,
    }
    archive = _open(path) if path else sys.stdin.buffer
    response = context.client.request(
        "POST", "/images/load", query, body=archive, content_type="application/x-tar"
    )
    print_progress(response)


def _import(context: "Context", options: "Options") -> None:
    source, *repository = options.args
    query = {
        "fromSrc": "-",
        "repo": repository[0] if repository else None,
        "message": options.text("message") or None,
        "changes": options.list("change") or None,
        "platform": platform(options) or None,
    }
    if source == "-":
        body = sys.stdin.buffer
    elif source.startswith(("http://", "https://")):
        query["fromSrc"] = source  # the engine fetches it
        print_progress(context.client.post("/images/create", query))
        return
    else:
        body = _open(source)
    response = context.client.request(
        "POST", "/images/create", query, body=body, content_type="text/plain"
    )
    print_progress(response)


def print_progress(response: "Response") -> None:
    """Show the records of a progress stream, with bars on a terminal. Raises Failure for its error."""
    from pier.cli.progress import show

    show(response.json_lines(), sys.stdout)


LOAD = Command(
    "load [OPTIONS]",
    "Load an image from a tar archive or STDIN",
    _load,
    arity=(0, 0),
    options=(
        Flag("input", kinds.STRING, "Read from tar archive file, instead of STDIN", short="i"),
        Flag(
            "platform",
            kinds.STRING,
            "Load only the given platform variant. Formatted as "
            '"os[/arch[/variant]]" (e.g., "linux/amd64")',
        ),
        Flag("quiet", kinds.BOOL, "Suppress the load output", short="q"),
    ),
    aliases="image load, load",
)
IMPORT = Command(
    "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    _import,
    arity=(1, 2),
    options=(
        Flag("change", kinds.LIST, "Apply Dockerfile instruction to the created image", short="c"),
        Flag("message", kinds.STRING, "Set commit message for imported image", short="m"),
        Flag("platform", kinds.STRING, "Set platform if server is multi-platform capable"),
    ),
    aliases="image import, import",
)
