"""`pier volume backup`, `restore`, `clone` and `rename`: what Docker has not."""

import os
import stat
import sys

from pier.cli import kinds
from pier.cli.archives import write_archive
from pier.cli.command import Command
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _backup(context: "Context", options: "Options") -> None:
    name, path = options.args
    if path == "-" and is_terminal(1):
        raise Failure("refusing to write an archive to a terminal: name a file")
    query = {"name": name, "pause": "0" if options.on("no-pause") else None}
    answer = context.client.get("/pier/volume", query)
    try:
        write_archive(answer, "" if path == "-" else path, f"Backing up {name}")
    except OSError as error:
        raise Failure(f"write {path}: {(error.strerror or str(error)).lower()}") from None


def _restore(context: "Context", options: "Options") -> None:
    name, path = options.args
    if path == "-":
        _send(context, name, sys.stdin.buffer)
        return
    try:
        with open(path, "rb") as file:
            _send(context, name, file)
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from None


def _send(context: "Context", name: str, archive: "IO[bytes]") -> None:
    from pier.cli.meter import Meter, MeteredFile

    found = os.fstat(archive.fileno())
    total = found.st_size if stat.S_ISREG(found.st_mode) else 0
    with Meter(f"Restoring {name}", total) as meter:
        answer = context.client.request(
            "PUT",
            "/pier/volume",
            {"name": name},
            body=MeteredFile(archive, meter),
            content_type="application/x-tar",
        )
    print(answer.json()["Name"])


def _clone(context: "Context", options: "Options") -> None:
    name, new = options.args
    query = {"name": name, "to": new, "pause": "0" if options.on("no-pause") else None}
    print(context.client.post("/pier/volume/clone", query).json()["Name"])


def _rename(context: "Context", options: "Options") -> None:
    name, new = options.args
    context.client.post("/pier/volume/rename", {"name": name, "to": new}).read()


_NO_PAUSE = Flag("no-pause", kinds.BOOL, "Do not pause the containers that use it meanwhile")

BACKUP = Command(
    "backup [OPTIONS] VOLUME FILE|-",
    "Write a volume's data and metadata to a tar archive",
    _backup,
    arity=(2, 2),
    options=(_NO_PAUSE,),
)
RESTORE = Command(
    "restore VOLUME FILE|-",
    "Make a volume of what `pier volume backup` wrote",
    _restore,
    arity=(2, 2),
)
CLONE = Command(
    "clone [OPTIONS] VOLUME NEW",
    "Make a volume with another one's data",
    _clone,
    arity=(2, 2),
    options=(_NO_PAUSE,),
)
RENAME = Command(
    "rename VOLUME NEW",
    "Give a volume another name, for its containers as well",
    _rename,
    arity=(2, 2),
)
