"""What a command of the client is, and how one is run: flags, arity, help.

A command module defines `Command` constants; `pier.cli.catalogue` says which module holds which.
"""

import os
import sys

from pier.cli import flags
from pier.cli.errors import Exit, Failure, UsageError
from pier.cli.kinds import BOOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pier.cli.http import Client

_HELP = flags.Flag("help", BOOL, "Print usage", hidden=True)
_HELP_SHORT = flags.Flag("help", BOOL, "Print usage", hidden=True, short="h")


class Context:
    """What a command gets besides its options: the way to the engine, opened on first use."""

    def __init__(
        self,
        hosts: "list[str]",
        context: str = "",
        tls: "dict[str, Any] | None" = None,
        *,
        debug: bool = False,
    ) -> None:
        self.hosts = hosts
        self.context = context
        self._tls = tls
        self._debug = debug
        self._client: Client | None = None

    @property
    def client(self) -> "Client":
        if self._client is None:
            from pier.cli.engine import open_client

            self._client = open_client(self.hosts, self.context, self._tls)
            self._client.debug = self._debug
        return self._client


class Command:
    """A command: `usage` is the line after "pier", such as `rm [OPTIONS] CONTAINER [CONTAINER...]`.

    `arity` is the least and the most number of arguments, None for any. `run` gets the context and
    the parsed options. `wraps_command` ends the flags at the first argument. `bad_usage_status` is
    the exit status of a wrong flag.
    """

    def __init__(
        self,
        usage: str,
        text: str,
        run: "Callable[[Context, flags.Options], None]",
        *,
        arity: "tuple[int, int | None]",
        options: "Sequence[flags.Flag]" = (),
        aliases: str = "",
        wraps_command: bool = False,
    ) -> None:
        self.usage = usage
        self.text = text
        self.run = run
        self.arity = arity
        self.options = options
        self.aliases = aliases
        self.wraps_command = wraps_command

    def call(self, context: Context, path: str, argv: "list[str]") -> None:
        """Parse `argv` and run. `path` is the command as the user called it: "container rm"."""
        taken = any(flag.short == "h" for flag in self.options)
        every_flag = [*self.options, _HELP if taken else _HELP_SHORT]
        try:
            options = flags.parse(every_flag, argv, interspersed=not self.wraps_command)
        except flags.FlagError as error:
            raise self._usage_error(str(error), path, 125) from None
        if options.on("help"):
            sys.stdout.write(self.help(path))
            return
        self._check_arity(path, len(options.args))
        for note in options.notes:
            sys.stdout.write(note + "\n")
        self.run(context, options)

    def _usage_line(self, path: str) -> str:
        return f"pier {path}{self.usage[len(self.usage.split()[0]) :]}"

    def _usage_error(
        self, message: str, path: str, status: int, pointer: str = "Run"
    ) -> UsageError:
        return UsageError(
            f"{message}\n\nUsage:  {self._usage_line(path)}\n\n"
            f"{pointer} 'pier {path} --help' for more information",
            status,
        )

    def _check_arity(self, path: str, count: int) -> None:
        least, most = self.arity
        if count >= least and (most is None or count <= most):
            return
        if most == 0:
            wanted = "accepts no arguments"
        elif least == most:
            wanted = f"requires {least} argument{'s' * (least != 1)}"
        elif count < least:
            wanted = f"requires at least {least} argument{'s' * (least != 1)}"
        else:
            wanted = f"requires at most {most} argument{'s' * (most != 1)}"
        pointer = "See" if "at least" in wanted else "Run"
        raise self._usage_error(f"pier: 'pier {path}' {wanted}", path, 1, pointer)

    def help(self, path: str) -> str:
        """The help text, wrapped to the terminal."""
        parts = [f"Usage:  {self._usage_line(path)}", self.text]
        if self.aliases:
            names = [f"pier {name}" for name in self.aliases.split(", ")]
            parts.append("Aliases:\n  " + ", ".join(names))
        described = flags.describe(self.options, terminal_width())
        if described:
            parts.append("Options:\n" + described.rstrip("\n"))
        return "\n\n".join(parts) + "\n"


def terminal_width() -> int:
    """Columns of the terminal on stdout, 80 when it is none."""
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def each(names: "list[str]", act: "Callable[[str], None]") -> None:
    """Act on every name; print those that went well on stdout and the others' errors on stderr.

    Ends with status 1 when any failed, as Docker's commands on several objects do.
    """
    failed = False
    for name in names:
        try:
            act(name)
        except Failure as error:
            sys.stderr.write(f"{error}\n")
            failed = True
    if failed:
        raise Exit(1)
