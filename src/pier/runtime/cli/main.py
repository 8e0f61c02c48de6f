"""`pier-runtime`: global options, the command's module, and errors as callers of runc expect them.

Each command is a function `run(context, words) -> exit code` in a module that is imported for it
alone. Errors go to stderr, and to --log if that is given, where containerd reads them.
"""

import gc
import os
import sys

from pier.errors import PierError
from pier.runtime.cli import flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Command → its module in this package, and the function there.
COMMANDS = {
    "create": ("lifecycle", "create"),
    "start": ("lifecycle", "start"),
    "run": ("lifecycle", "run"),
    "delete": ("lifecycle", "delete"),
    "kill": ("control", "kill"),
    "pause": ("control", "pause"),
    "resume": ("control", "resume"),
    "update": ("update", "update"),
    "exec": ("execute", "execute"),
    "state": ("look", "state"),
    "list": ("look", "list_all"),
    "ps": ("look", "ps"),
    "events": ("events", "events"),
    "stats": ("events", "stats"),
    "features": ("features", "features"),
    "spec": ("template", "spec"),
    "checkpoint": ("control", "checkpoint"),
    "restore": ("control", "checkpoint"),
}
# Those that put a process of ours into a container.
ENTERING = frozenset(("create", "run", "exec"))
SPEC_VERSION = "1.2.1"
OPTIONS = {
    "root": "value",
    "log": "value",
    "log-format": "value",
    "debug": "flag",
    "systemd-cgroup": "flag",
    "rootless": "value",
    "version": "flag",
    "help": "flag",
}
# Whether a container may go without the cgroup that its creator may not make.
ROOTLESS = {None: None, "auto": None, "true": True, "false": False}
SHORT = {"v": "version", "h": "help"}
FIRST_FREE_FD = 3
USAGE = """Usage: pier-runtime [global options] COMMAND [options] [arguments]

An OCI runtime: runs the bundles that container engines make.

Commands:
  create ID             create a container from the bundle in the current directory
  start ID              execute the program of a created container
  run ID                create, start, wait, delete
  state ID              print the container's state as JSON
  kill ID [SIGNAL]      send a signal (TERM) to the first process, or with --all to each
  delete ID             delete a stopped container, with --force any
  exec ID COMMAND...    run a further process in a container
  list                  list containers
  ps ID [ps options]    list a container's processes
  pause ID, resume ID   stop every process, let them go on
  update ID             change limits
  events ID, stats ID   print statistics, once with --stats
  spec                  write a config.json to begin with
  features              print what this runtime offers as JSON

Global options:
  --root DIR            where containers are remembered (/run/pier-runtime)
  --log FILE            write errors to this file too
  --log-format FORMAT   text or json
  --debug               log each command as well
  --rootless auto|true|false   go without a cgroup where none may be made
  --systemd-cgroup      refused: cgroups are made without systemd
  --version, --help
"""


class Context:
    """What the global options said."""

    def __init__(self, options: "dict[str, Any]", *, protected: bool) -> None:
        self.root: str | None = options["root"]
        self.log: str | None = options["log"]
        self.log_format: str = options["log-format"] or "text"
        self.debug: bool = options["debug"]
        if options["rootless"] not in ROOTLESS:
            raise PierError(f"invalid rootless value {options['rootless']!r}")
        self.rootless = ROOTLESS[options["rootless"]]
        self.systemd_cgroup: bool = options["systemd-cgroup"]
        # Executed from where no container can write to the interpreter.
        self.protected = protected

    def state_root(self) -> str:
        """The absolute directory with the containers' states."""
        if self.root is None:
            from pier.runtime.state import default_root

            return default_root()
        return os.path.abspath(self.root)


def main(*, protected: bool = False) -> None:
    """Entry point of `pier-runtime`: exits with the command's status, 1 for errors."""
    # It is over before there is anything to collect.
    gc.disable()
    # Standard descriptors that are closed would be given to sockets, and those to the container.
    while (fd := os.open("/dev/null", os.O_RDWR)) < FIRST_FREE_FD:
        os.set_inheritable(fd, True)
    os.close(fd)
    context = None
    try:
        options, words = flags.parse(sys.argv[1:], OPTIONS, SHORT, interspersed=False)
        context = Context(options, protected=protected)
        code = _dispatch(context, options, words)
    except (PierError, OSError, ValueError, KeyError) as exc:
        from pier.runtime.cli.errors import report

        code = report(context, exc)
    sys.stdout.flush()
    # Nothing is left to tidy up, and an interpreter takes its time over it.
    os._exit(code)


def _dispatch(context: Context, options: "dict[str, Any]", words: list[str]) -> int:
    if context.log_format not in ("text", "json"):
        raise PierError(f"unknown log-format {context.log_format!r}")
    if options["version"]:
        from pier import __version__

        sys.stdout.write(f"pier-runtime version {__version__}\nspec: {SPEC_VERSION}\n")
        return 0
    if options["help"] or not words or words[0] in ("help", "-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise PierError(f"no such command: {command!r}")
    if rest[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if context.debug and context.protected == (command in ENTERING):
        from pier.runtime.cli.errors import debug

        debug(context, f"{command} {' '.join(rest)}")
    if command in ENTERING and not context.protected:
        from pier.runtime.cli.protect import execute_protected

        execute_protected()
    if command in ENTERING:
        from pier.runtime.cli.protect import hide

        hide()
    module, name = COMMANDS[command]
    loaded = __import__(f"pier.runtime.cli.{module}", fromlist=[name])
    code: int = getattr(loaded, name)(context, rest)
    return code
