"""`pier top`: the processes of a container."""

import sys

from pier.cli.command import Command
from pier.cli.http import quote
from pier.cli.tables import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.command import Context
    from pier.cli.flags import Options


def _top(context: "Context", options: "Options") -> None:
    name, *ps_args = options.args
    query = {"ps_args": " ".join(ps_args) or None}
    answer = context.client.get(f"/containers/{quote(name)}/top", query).json()
    rows = [answer["Titles"], *(answer["Processes"] or ())]
    sys.stdout.write(align(["\t".join(row) for row in rows], 20))


TOP = Command(
    "top CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    _top,
    arity=(1, None),
    aliases="container top, top",
    wraps_command=True,
)
