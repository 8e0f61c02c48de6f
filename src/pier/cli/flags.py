"""Flags as pflag reads them (github.com/spf13/pflag), which is how Docker's users type them.

Long flags are `--name value` or `--name=value`; a boolean takes a value only after `=`. Short flags
cluster (`-it`), and the last of a cluster may carry its value (`-eK=V`, `-e K=V`, `-e=K=V`). `--`
ends the flags. A command that runs other commands stops at its first positional argument.

Kinds of values stand in `pier.cli.kinds`; this module only cuts the command line.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Kind:
    """What a flag takes: `label` is shown in help, `parse` raises ValueError with Docker's words.

    A `repeated` kind collects a list. `label` "" is a boolean, which needs no value.
    """

    __slots__ = ("default", "label", "parse", "repeated")

    def __init__(
        self,
        label: str,
        parse: "Callable[[str], Any]",
        *,
        default: "Any" = None,
        repeated: bool = False,
    ) -> None:
        self.label = label
        self.parse = parse
        self.default = default
        self.repeated = repeated


class Flag:
    """One flag. `shown` is the default as help prints it, `hidden` keeps it out of help.

    `deprecated` is what to say when it is used; such a flag is hidden as well. `alias` names the
    flag whose value it sets.
    """

    __slots__ = (
        "alias",
        "default",
        "deprecated",
        "help",
        "hidden",
        "kind",
        "name",
        "short",
        "shown",
    )

    def __init__(  # noqa: PLR0913 - a flag has that many sides; all but three have a default
        self,
        name: str,
        kind: Kind,
        text: str,
        *,
        short: str = "",
        default: "Any" = None,
        shown: str = "",
        hidden: bool = False,
        deprecated: str = "",
        alias: str = "",
    ) -> None:
        self.name = name
        self.kind = kind
        self.help = text
        self.short = short
        self.default = kind.default if default is None else default
        self.shown = shown
        self.hidden = hidden or bool(deprecated)
        self.deprecated = deprecated
        self.alias = alias

    @property
    def title(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class FlagError(Exception):
    """A flag that does not exist, lacks its value or has a wrong one; `str()` is Docker's text."""


class Options:
    """The flags of one call, and the positional arguments in `args`."""

    __slots__ = ("_values", "args", "changed", "notes")

    def __init__(self, flags: "Sequence[Flag]") -> None:
        self._values: dict[str, Any] = {
            flag.name: [] if flag.kind.repeated else flag.default
            for flag in flags
            if not flag.alias
        }
        self.args: list[str] = []
        self.changed: set[str] = set()
        self.notes: list[str] = []

    def on(self, name: str) -> bool:
        return bool(self._values[name])

    def text(self, name: str) -> str:
        value = self._values[name]
        return "" if value is None else str(value)

    def number(self, name: str) -> int:
        return int(self._values[name] or 0)

    def list(self, name: str) -> "list[Any]":
        value: list[Any] = self._values[name]
        return value

    def store(self, flag: Flag, value: "Any") -> None:
        name = flag.alias or flag.name
        self.changed.add(name)
        if flag.deprecated:
            self.notes.append(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")
        if flag.kind.repeated:
            self._values[name].append(value)
        else:
            self._values[name] = value


def parse(flags: "Sequence[Flag]", argv: "Sequence[str]", *, interspersed: bool = True) -> Options:
    """Cut `argv` into options and positional arguments.

    Without `interspersed` the first positional argument ends the flags. Raises FlagError; `--help`
    and, where no flag claims it, `-h` are flags like others and must be among `flags`.
    """
    options = Options(flags)
    long_names = {flag.name: flag for flag in flags}
    short_names = {flag.short: flag for flag in flags if flag.short}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            options.args += rest
            break
        if len(word) < 2 or word[0] != "-":
            options.args.append(word)
            if not interspersed:
                options.args += rest
                break
        elif word.startswith("--"):
            _take_long(options, long_names, word, rest)
        else:
            _take_cluster(options, short_names, word, rest)
    return options


def _take_long(options: Options, names: "dict[str, Flag]", word: str, rest: "list[str]") -> None:
    name, equals, text = word[2:].partition("=")
    if not name or name[0] in "-=":
        raise FlagError(f"bad flag syntax: {word}")
    flag = names.get(name)
    if flag is None:
        raise FlagError(f"unknown flag: --{name}")
    if not equals:
        if not flag.kind.label:
            text = "true"
        elif rest:
            text = rest.pop(0)
        else:
            raise FlagError(f"flag needs an argument: --{name}")
    _store(options, flag, text)


def _take_cluster(options: Options, names: "dict[str, Flag]", word: str, rest: "list[str]") -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = names.get(letter)
        if flag is None:
            raise FlagError(f"unknown shorthand flag: {letter!r} in {word}")
        if letters[:1] == "=":
            text, letters = letters[1:], ""
        elif not flag.kind.label:
            text = "true"
        elif letters:
            text, letters = letters, ""
        elif rest:
            text = rest.pop(0)
        else:
            raise FlagError(f"flag needs an argument: {letter!r} in {word}")
        _store(options, flag, text)


def _store(options: Options, flag: Flag, text: str) -> None:
    try:
        value = flag.kind.parse(text)
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "{flag.title}" flag: {error}') from None
    options.store(flag, value)


def describe(flags: "Sequence[Flag]", width: int) -> str:
    """The flags as help prints them: sorted by name, the text wrapped to `width` columns."""
    rows: list[tuple[str, str]] = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        if flag.hidden:
            continue
        lead = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        if flag.kind.label:
            lead += " " + flag.kind.label
        rows.append((lead, flag.help + (f" (default {flag.shown})" if flag.shown else "")))
    if not rows:
        return ""
    column = max(len(lead) for lead, _ in rows) + 3
    lines = [lead.ljust(column) + _wrapped(text, column, width) for lead, text in rows]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: int, width: int) -> str:
    # Pflag breaks a line five columns early, so that a last short word does not stand alone.
    slop = 5
    room = width - indent - slop
    lines: list[str] = []
    while len(text) > room + slop:
        newline = text.rfind("\n", 0, room)
        space = max(text.rfind(" ", 0, room), newline)
        cut = newline if 0 < newline < space else space
        if cut <= 0:
            break
        lines.append(text[:cut])
        text = text[cut + 1 :]
    lines.append(text)
    return "\n".join(lines).replace("\n", "\n" + " " * indent)
