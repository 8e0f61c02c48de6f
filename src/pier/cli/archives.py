"""`pier save` and `pier export`: archives of images, and of a container's files."""

import os
import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.http import quote
from pier.cli.images import platform_json
from pier.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.command import Context
    from pier.cli.flags import Options
    from pier.cli.http import Response


def _save(context: "Context", options: "Options") -> None:
    platform = options.text("platform")
    check_output(options.text("output"), "save")
    query = {
        "names": options.args,
        "platform": platform_json(platform) if platform else None,
    }
    write_archive(context.client.get("/images/get", query), options.text("output"), "Saving")


def _export(context: "Context", options: "Options") -> None:
    check_output(options.text("output"), "export")
    response = context.client.get(f"/containers/{quote(options.args[0])}/export")
    write_archive(response, options.text("output"), "Exporting")


def check_output(path: str, what: str) -> None:
    if not path:
        if is_terminal(1):
            raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        return
    directory = os.path.dirname(path) or "."
    try:
        os.stat(directory)
    except OSError as error:
        noun = "image" if what == "save" else "container"
        raise Failure(
            f"failed to {what} {noun}: invalid output path: stat {directory}: "
            f"{(error.strerror or '').lower()}"
        ) from None


def write_archive(response: "Response", path: str, what: str) -> None:
    """Write an archive to a file, which appears whole, or to standard output.

    `what` is done, as a terminal is told meanwhile.
    """
    from pier.cli.meter import metered

    chunks = metered(response.chunks(), what)
    if not path:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    if os.path.lexists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            for chunk in chunks:
                device.write(chunk)
        return
    import tempfile

    fd, partial = tempfile.mkstemp(prefix=".tmp-", dir=os.path.dirname(path) or ".")
    try:
        with open(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


_OUTPUT = Flag("output", kinds.STRING, "Write to a file, instead of STDOUT", short="o")

SAVE = Command(
    "save [OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    _save,
    arity=(1, None),
    options=(
        _OUTPUT,
        Flag(
            "platform",
            kinds.STRING,
            "Save only the given platform variant. Formatted as "
            '"os[/arch[/variant]]" (e.g., "linux/amd64")',
        ),
    ),
    aliases="image save, save",
)
EXPORT = Command(
    "export [OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    _export,
    arity=(1, 1),
    options=(_OUTPUT,),
    aliases="container export, export",
)
