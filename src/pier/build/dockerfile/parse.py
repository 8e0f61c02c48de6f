"""From lines to instructions and stages, in BuildKit's words where something is wrong."""

import difflib
import json
import re
from collections.abc import Callable

from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.flags import Flags, take_flags
from pier.build.dockerfile.health import parse_health
from pier.build.dockerfile.lines import Line, read_source
from pier.build.dockerfile.pairs import parse_arg_words, parse_pairs

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_NO_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")


def parse_dockerfile(text: str) -> ins.Dockerfile:
    """Parse a whole Dockerfile. Raises DockerfileError."""
    source = read_source(text)
    result = ins.Dockerfile([], [], source.directives, source.text, source.escape)
    for line in source.lines:
        if line.empty_continuation:
            result.empty_continuations.append(line.empty_continuation)
        found = parse_line(line, source.escape)
        if isinstance(found, ins.From):
            result.stages.append(ins.Stage(len(result.stages), found))
        elif result.stages:
            result.stages[-1].instructions.append(found)
        elif isinstance(found, ins.Arg):
            result.globals.append(found)
        else:
            text = "no build stage in current context"
            raise DockerfileError(text, line.first, line.last, bare=True)
    if not result.stages:
        raise DockerfileError("no build stage in current context", source.lines[-1].first)
    return result


def parse_trigger(text: str, escape: str = "\\") -> ins.Instruction:
    """Parse the instruction of an ONBUILD. Raises DockerfileError."""
    return parse_line(read_source(text).lines[0], escape)


def parse_line(line: Line, escape: str) -> ins.Instruction:
    """Parse one instruction. Raises DockerfileError with its line."""
    word, rest = _cut(line.text)
    name = word.upper()
    parser = _PARSERS.get(name)
    if parser is None:
        close = difflib.get_close_matches(name, _PARSERS, 1, 0.6)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise DockerfileError(f"unknown instruction: {word}{hint}", line.first, line.last)
    try:
        found = parser(_Words(rest.strip(), line, escape, name))
    except DockerfileError as exc:
        text = str(exc.args[0])
        raise DockerfileError(text, line.first, line.last, bare=exc.bare) from None
    found.first, found.last, found.original = line.first, line.last, line.text
    found.comments = line.comments
    return found


def _cut(text: str) -> tuple[str, str]:
    """Divide at the first blank."""
    word, *rest = text.split(None, 1)
    return word, rest[0] if rest else ""


class _Words:
    """What stands behind an instruction's name."""

    def __init__(self, rest: str, line: Line, escape: str, name: str) -> None:
        self.rest = rest
        self.line = line
        self.escape = escape
        self.name = name

    def flags(self, **kinds: str) -> Flags:
        """Take the flags at the beginning. Raises DockerfileError for one that is not there."""
        found, self.rest = take_flags(self.rest, kinds, self.escape)
        return found

    def no_flags(self) -> None:
        self.flags()

    def split(self) -> list[str]:
        return self.rest.split()

    def json(self) -> list[str] | None:
        """The words of the JSON form, None when it is not one (and then it is the shell form)."""
        if not self.rest.startswith("["):
            return None
        try:
            words = json.loads(self.rest)
        except ValueError:
            return None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
        return None

    def command(self) -> ins.Command:
        words = self.json()
        if words is not None:
            return ins.Command(words, is_shell=False)
        return ins.Command([self.rest] if self.rest else [], is_shell=True)

    def need(self, least: int) -> None:
        if len(self.split()) < least:
            raise DockerfileError(f"{self.name} requires at least one argument")

    def exactly_one(self) -> str:
        if len(self.split()) != 1:
            raise DockerfileError(f"{self.name} requires exactly one argument")
        return self.rest


def _from(words: _Words) -> ins.From:
    flags = words.flags(platform="text")
    parts = words.split()
    if len(parts) == 1:
        return ins.From(image=parts[0], platform=flags.text("platform"))
    if len(parts) != 3 or parts[1].lower() != "as":
        raise DockerfileError("FROM requires either one or three arguments")
    alias = parts[2].lower()
    if not _STAGE_NAME.match(alias):
        raise DockerfileError(
            f'invalid name for build stage: "{parts[2]}", name can\'t start with a number or '
            "contain symbols"
        )
    return ins.From(image=parts[0], alias=parts[2], platform=flags.text("platform"))


def _arg(words: _Words) -> ins.Arg:
    words.no_flags()
    words.need(1)
    return ins.Arg(values=parse_arg_words(words.rest, words.escape))


def _env(words: _Words) -> ins.Env:
    words.no_flags()
    words.need(1)
    values, legacy = parse_pairs(words.rest, words.escape, "ENV")
    return ins.Env(values=values, is_legacy=legacy)


def _label(words: _Words) -> ins.Label:
    words.no_flags()
    words.need(1)
    values, legacy = parse_pairs(words.rest, words.escape, "LABEL")
    return ins.Label(values=values, is_legacy=legacy)


def _run(words: _Words) -> ins.Run:
    flags = words.flags(mount="list", network="text", security="text", device="list")
    command = words.command()
    if not command.words:
        raise DockerfileError("RUN requires at least one argument")
    command.heredocs = words.line.heredocs
    return ins.Run(
        command=command,
        mounts=flags.list("mount"),
        network=flags.text("network"),
        security=flags.text("security"),
        devices=flags.list("device"),
    )


def _paths(words: _Words) -> tuple[list[str], str]:
    found = words.json()
    if found is None:
        found = words.split()
    if len(found) < 2:
        if found:
            raise DockerfileError(
                f"{words.name} requires at least two arguments, but only one was provided. "
                "Destination could not be determined"
            )
        raise DockerfileError(
            f"{words.name} requires at least two arguments, but none was provided"
        )
    return found[:-1], found[-1]


def _copy(words: _Words) -> ins.Copy:
    flags = words.flags(
        chown="text", chmod="text", link="flag", exclude="list", parents="flag", **{"from": "text"}
    )
    sources, target = _paths(words)
    return ins.Copy(
        sources=sources,
        target=target,
        heredocs=words.line.heredocs,
        stage=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.on("link"),
        parents=flags.on("parents"),
        exclude=flags.list("exclude"),
    )


def _add(words: _Words) -> ins.Add:
    flags = words.flags(
        chown="text",
        chmod="text",
        link="flag",
        exclude="list",
        checksum="text",
        unpack="flag",
        **{"keep-git-dir": "flag"},
    )
    sources, target = _paths(words)
    return ins.Add(
        sources=sources,
        target=target,
        heredocs=words.line.heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.on("link"),
        exclude=flags.list("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.on("keep-git-dir"),
        unpack=flags.on("unpack") if flags.has("unpack") else None,
    )


def _cmd(words: _Words) -> ins.Cmd:
    words.no_flags()
    return ins.Cmd(command=words.command())


def _entrypoint(words: _Words) -> ins.Entrypoint:
    words.no_flags()
    return ins.Entrypoint(command=words.command())


def _shell(words: _Words) -> ins.Shell:
    words.no_flags()
    found = words.json()
    if found is None:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    if not found:
        raise DockerfileError("SHELL requires at least one argument")
    return ins.Shell(words=found)


def _expose(words: _Words) -> ins.Expose:
    words.no_flags()
    words.need(1)
    return ins.Expose(ports=sorted(words.split()))


def _volume(words: _Words) -> ins.Volume:
    words.no_flags()
    words.need(1)
    found = words.json()
    paths = [path.strip() for path in (words.split() if found is None else found)]
    if "" in paths:
        raise DockerfileError("VOLUME specified can not be an empty string")
    return ins.Volume(paths=paths)


def _user(words: _Words) -> ins.User:
    words.no_flags()
    return ins.User(user=words.exactly_one())


def _workdir(words: _Words) -> ins.Workdir:
    words.no_flags()
    words.need(1)
    return ins.Workdir(path=words.rest)


def _stopsignal(words: _Words) -> ins.Stopsignal:
    words.no_flags()
    return ins.Stopsignal(signal=words.exactly_one())


def _maintainer(words: _Words) -> ins.Maintainer:
    words.no_flags()
    if not words.rest:
        raise DockerfileError("MAINTAINER requires exactly one argument")
    return ins.Maintainer(author=words.rest)


def _healthcheck(words: _Words) -> ins.Healthcheck:
    flags = words.flags(
        interval="text",
        timeout="text",
        retries="text",
        **{"start-period": "text", "start-interval": "text"},
    )
    return parse_health(flags, words.rest)


def _onbuild(words: _Words) -> ins.Onbuild:
    words.no_flags()
    words.need(1)
    trigger = words.split()[0].upper()
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in _NO_TRIGGERS:
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    text = words.rest
    for heredoc in words.line.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    parse_trigger(text, words.escape)
    return ins.Onbuild(trigger=text)


_PARSERS: dict[str, Callable[[_Words], ins.Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
