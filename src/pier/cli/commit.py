"""`pier commit`, `pier diff`, `pier apply`: what a container changed, made an image of, shown, or
written back.
"""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.errors import ApiError
from pier.cli.flags import Flag
from pier.cli.http import quote
from pier.cli.pull import split_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.command import Context
    from pier.cli.flags import Options

_KINDS = ("C", "A", "D")
NOT_FOUND = 404


def _commit(context: "Context", options: "Options") -> None:
    container, *name = options.args
    repository, tag = split_reference(name[0]) if name and name[0] else ("", "")
    query = {
        "container": container,
        "repo": repository or None,
        "tag": tag or None,
        "comment": options.text("message") or None,
        "author": options.text("author") or None,
        "changes": options.list("change") or None,
        "pause": None if options.on("pause") else "0",
    }
    print(context.client.post("/commit", query).json()["Id"])


def _diff(context: "Context", options: "Options") -> None:
    container = options.args[0]
    changes = context.client.get(f"/containers/{quote(container)}/changes").json() or []
    try:
        changes += context.client.get("/pier/cow", {"container": container}).json()
    except ApiError as exc:
        if exc.code != NOT_FOUND:  # another engine has no such thing
            raise
    rows = (f"{_KINDS[change['Kind']]} {change['Path']}\n" for change in changes)
    sys.stdout.write("".join(rows))


def _apply(context: "Context", options: "Options") -> None:
    container, *path = options.args
    query = {"container": container, "path": path[0] if path else None}
    for change in context.client.post("/pier/cow/apply", query).json():
        print(_KINDS[change["Kind"]], change["Source"])


COMMIT = Command(
    "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    _commit,
    arity=(1, 2),
    options=(
        Flag(
            "author",
            kinds.STRING,
            'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")',
            short="a",
        ),
        Flag("change", kinds.LIST, "Apply Dockerfile instruction to the created image", short="c"),
        Flag("message", kinds.STRING, "Commit message", short="m"),
        Flag(
            "pause",
            kinds.BOOL,
            "Pause container during commit",
            short="p",
            default=True,
            shown="true",
        ),
    ),
    aliases="container commit, commit",
)
DIFF = Command(
    "diff CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    _diff,
    arity=(1, 1),
    aliases="container diff, diff",
)
APPLY = Command(
    "apply CONTAINER [PATH]",
    "Write what a container changed in its copy-on-write binds back to the host",
    _apply,
    arity=(1, 2),
    aliases="container apply, apply",
)
