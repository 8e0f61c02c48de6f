"""The checks themselves: a Dockerfile read as a build would, without building anything."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from pier.build.arguments import Arguments
from pier.build.configure import environment
from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.expand import Expander
from pier.build.files import expand as expand_files
from pier.build.ignore import Ignore
from pier.build.lint.findings import Checks, Finding, Findings
from pier.build.plan import find_stage
from pier.build.words import DEFAULT_PATH, quoted
from pier.errors import InvalidParameter
from pier.images.image import Image
from pier.model.platform import Platform, parse_platform
from pier.model.reference import parse_reference

_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_RESERVED = ("context", "scratch")
_ONCE = (ins.Cmd, ins.Entrypoint, ins.Healthcheck)
_MAPPED = re.compile(r".*:")


class Surroundings(Struct, frozen=True):
    """What a check knows beside the file. `image_of` returns a base image that is here, or None.

    `ignore` is the context's .dockerignore. `stages` are the indexes of those that are built, None
    for all.
    """

    given: Mapping[str, str | None]
    target: Platform
    build: Platform
    image_of: Callable[[str], Image | None]
    ignore: Ignore
    stages: Collection[int] | None = None


def check(file: ins.Dockerfile, checks: Checks, around: Surroundings) -> list[Finding]:
    """Return what is wrong with a Dockerfile that could be parsed, in no order."""
    found = Findings(checks)
    _written(file, found)
    _names(file.stages, found)
    _casing(file.stages, found)
    _Reading(file, around, found).all()
    return found.found


def _lines(step: ins.Instruction) -> tuple[int, int]:
    return step.first, step.last


def _word(step: ins.Instruction) -> str:
    """The instruction's name as it was written."""
    return step.original.split(None, 1)[0]


def _is_consistent(word: str) -> bool:
    return word in (word.lower(), word.upper())


def _written(file: ins.Dockerfile, found: Findings) -> None:
    """What is seen without knowing any value."""
    for number in file.empty_continuations:
        found.add("NoEmptyContinuation", (number, number))
    for line in file.globals:
        _described(found, line, "ARG", [name for name, _ in line.values])
    for stage in file.stages:
        _from(stage.base, found)
        for step in stage.instructions:
            match step:
                case ins.Maintainer():
                    found.add("MaintainerDeprecated", _lines(step))
                case ins.Env() | ins.Label() if step.is_legacy:
                    found.add("LegacyKeyValueFormat", _lines(step), step.name)
                case ins.Arg():
                    _described(found, step, "ARG", [name for name, _ in step.values])


def _from(base: ins.From, found: Findings) -> None:
    if not base.alias:
        return
    words = base.original.split()
    command, keyword = words[0], words[-2]
    if base.alias != base.alias.lower():
        found.add("StageNameCasing", _lines(base), base.alias)
    if _is_consistent(command) and (command == command.lower()) != (keyword == keyword.lower()):
        found.add("FromAsCasing", _lines(base), keyword, command)
    _described(found, base, "FROM", [base.alias])


def _described(found: Findings, step: ins.Instruction, name: str, keys: Sequence[str]) -> None:
    if not step.comments or step.comments[-1].split(" ")[0] in keys:
        return
    key = keys[0] if len(keys) == 1 else "<arg_key>"
    found.add("InvalidDefinitionDescription", _lines(step), name, key)


def _names(stages: Sequence[ins.Stage], found: Findings) -> None:
    seen: set[str] = set()
    for stage in stages:
        if stage.alias in _RESERVED:
            found.add("ReservedStageName", _lines(stage.base), quoted(stage.alias))
        if stage.alias and stage.alias in seen:
            found.add("DuplicateStageName", _lines(stage.base), quoted(stage.alias))
        seen.add(stage.alias)


def _casing(stages: Sequence[ins.Stage], found: Findings) -> None:
    steps = [step for stage in stages for step in (stage.base, *stage.instructions)]
    words = [_word(step) for step in steps]
    consistent = [word for word in words if _is_consistent(word)]
    lower = sum(word == word.lower() for word in consistent)
    is_lower = lower > len(consistent) - lower
    casing = "lowercase" if is_lower else "uppercase"
    for step, word in zip(steps, words, strict=True):
        if word != (word.lower() if is_lower else word.upper()):
            found.add("ConsistentInstructionCasing", _lines(step), word, casing)


class _State(Struct):
    """What a stage hands on to those that are built on it. `variables` None: they are not known."""

    variables: dict[str, str] | None
    workdir_set: bool = False
    has_shell: bool = False
    arguments: Arguments | None = None


class _Reading:
    """Reads the stages one after another, with variables as far as they are known."""

    def __init__(self, file: ins.Dockerfile, around: Surroundings, found: Findings) -> None:
        self._file = file
        self._around = around
        self._found = found
        self._arguments = Arguments.make(around.given, around.target, around.build)
        self._states: dict[int, _State] = {}

    def all(self) -> None:
        defaults = Arguments.make({}, self._around.target, self._around.build)
        for line in self._file.globals:
            for name, default in line.values:
                for arguments in (self._arguments, defaults):
                    value = None if default is None else self._expanded(default, arguments.globals)
                    arguments.declare(name, value)
                self._secret("ARG", name, line)
        for stage in self._file.stages:
            self._base_names(stage, defaults)
            self._stage(stage)

    def _expanded(self, text: str, values: Mapping[str, str]) -> str | None:
        try:
            return Expander(values, escape=self._file.escape).word(text)
        except DockerfileError:
            return None  # the build fails with it

    def _base_names(self, stage: ins.Stage, defaults: Arguments) -> None:
        """Variables of FROM, by the values that are given and by the defaults alone."""
        base = stage.base
        found = self._found
        scope = self._arguments.globals
        name = self._from_word(base, base.image, scope)
        wanted = self._expanded(base.image, defaults.globals)
        if wanted is not None and not _is_reference(wanted):
            found.add("InvalidDefaultArgInFrom", _lines(base), base.image)
        if base.platform:
            platform = self._from_word(base, base.platform, scope)
            self._platform(base, platform, scope)
        image = None
        if name and find_stage(self._file.stages, name, stage.index) is None:
            image = self._around.image_of(name)
        if image is not None and not base.platform:
            self._image_platform(base, name, image)

    def _from_word(self, base: ins.From, text: str, scope: Mapping[str, str]) -> str:
        expander = Expander(scope, escape=self._file.escape)
        try:
            word = expander.word(text)
        except DockerfileError:
            return ""
        known = {*scope, *self._arguments.declared}
        for name in sorted(expander.unmatched - known):
            hint = _suggest(name, known, "")
            self._found.add("UndefinedArgInFrom", _lines(base), name, hint)
        return word

    def _platform(self, base: ins.From, platform: str, scope: Mapping[str, str]) -> None:
        if "$" in base.platform:
            if base.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
                found = self._found
                found.add("RedundantTargetPlatform", _lines(base), base.platform)
            return
        try:
            parsed = parse_platform(platform)
        except InvalidParameter:
            return
        alias = base.alias.lower()
        if parsed.os not in alias and parsed.architecture not in alias:
            found = self._found
            found.add("FromPlatformFlagConstDisallowed", _lines(base), quoted(platform))

    def _image_platform(self, base: ins.From, name: str, image: Image) -> None:
        actual, wanted = image.config.platform, self._around.target
        if (actual.os, actual.architecture) != (wanted.os, wanted.architecture):
            self._found.add(
                *("InvalidBaseImagePlatform", _lines(base), name),
                *(quoted(str(actual)), quoted(str(wanted))),
            )

    def _stage(self, stage: ins.Stage) -> None:
        state = self._begin(stage)
        self._states[stage.index] = state
        if self._around.stages is not None and stage.index not in self._around.stages:
            return
        arguments = self._arguments.stage()
        if state.arguments is not None:
            arguments = arguments.stage_on(state.arguments)
        state.arguments = arguments
        once: dict[type[ins.Instruction], ins.Instruction] = {}
        for step in stage.instructions:
            if isinstance(step, _ONCE):
                if (before := once.get(type(step))) is not None:
                    found = self._found
                    found.add("MultipleInstructionsDisallowed", _lines(before), step.name)
                once[type(step)] = step
            self._step(step, state, arguments)

    def _begin(self, stage: ins.Stage) -> _State:
        name = self._expanded(stage.base.image, self._arguments.globals) or ""
        parent = find_stage(self._file.stages, name, stage.index)
        if parent is not None and not name.isdecimal():
            before = self._states[parent]
            variables = None if before.variables is None else dict(before.variables)
            return _State(variables, before.workdir_set, before.has_shell, before.arguments)
        variables = {"PATH": DEFAULT_PATH.partition("=")[2]}
        if name == "scratch":
            return _State(variables)
        image = self._around.image_of(name) if name else None
        if image is None:
            return _State(None)
        config = image.config.config
        return _State(variables | environment(config), has_shell=bool(config.Shell))

    def _step(self, step: ins.Instruction, state: _State, arguments: Arguments) -> None:
        values = arguments.values() | (state.variables or {})
        expander = Expander(values, escape=self._file.escape)
        try:
            self._read(step, state, arguments, expander)
        except (DockerfileError, InvalidParameter):
            return  # the build fails with it
        if state.variables is None:
            return
        for name in sorted(expander.unmatched - set(arguments.declared)):
            hint = _suggest(name, values, "$")
            self._found.add("UndefinedVar", _lines(step), name, hint)

    def _read(
        self, step: ins.Instruction, state: _State, arguments: Arguments, expander: Expander
    ) -> None:
        word = expander.word
        match step:
            case ins.Arg():
                for name, default in step.values:
                    arguments.declare(name, None if default is None else word(default))
                    self._secret("ARG", name, step)
            case ins.Env():
                self._environment(step, word, state)
            case ins.Cmd() | ins.Entrypoint():
                if step.command.is_shell and step.command.words and not state.has_shell:
                    self._found.add("JSONArgsRecommended", _lines(step), step.name)
            case ins.Shell():
                state.has_shell = True
            case ins.Workdir():
                self._workdir(step, word(step.path), state)
            case _:
                self._mention(step, expander)

    def _mention(self, step: ins.Instruction, expander: Expander) -> None:
        """Read what only uses variables."""
        match step:
            case ins.Copy() | ins.Add():
                self._files(step, expander)
            case ins.Expose():
                self._ports(step, [port for text in step.ports for port in expander.words(text)])
            case _:
                for text in _words(step):
                    expander.word(text)

    def _environment(self, step: ins.Env, word: Callable[[str], str], state: _State) -> None:
        pairs = [(word(name), word(value)) for name, value in step.values]
        for name, value in pairs:
            self._secret("ENV", name, step)
            if state.variables is not None:
                state.variables[name] = value

    def _secret(self, instruction: str, name: str, step: ins.Instruction) -> None:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            self._found.add("SecretsUsedInArgOrEnv", _lines(step), instruction, quoted(name))

    def _workdir(self, step: ins.Workdir, path: str, state: _State) -> None:
        if path.startswith("/"):
            state.workdir_set = True
        elif not state.workdir_set:
            self._found.add("WorkdirRelativePath", _lines(step), quoted(path))

    def _files(self, step: ins.Copy | ins.Add, expander: Expander) -> None:
        wanted = expand_files(step, expander)
        ignore = self._around.ignore
        if (isinstance(step, ins.Copy) and step.stage) or not ignore or ignore.has_exceptions:
            return
        for source in wanted.sources:
            path = source.removeprefix("./").strip("/")
            if "://" not in source and path and ignore.ignores(path):
                name = step.name.capitalize()
                self._found.add("CopyIgnoredFile", _lines(step), name, quoted(path))

    def _ports(self, step: ins.Expose, ports: Sequence[str]) -> None:
        for port in ports:
            number, _, protocol = port.partition("/")
            if protocol != protocol.lower():
                self._found.add("ExposeProtoCasing", _lines(step), port)
            if _MAPPED.match(number):
                self._found.add("ExposeInvalidFormat", _lines(step), port)


def _words(step: ins.Instruction) -> Sequence[str]:
    match step:
        case ins.Run():
            return [*step.mounts, step.network, step.security]
        case ins.Label():
            return [word for pair in step.values for word in pair]
        case ins.User():
            return [step.user]
        case ins.Volume():
            return step.paths
        case ins.Stopsignal():
            return [step.signal]
        case _:
            return ()


def _suggest(name: str, known: Collection[str], sign: str) -> str:
    close = difflib.get_close_matches(name, sorted(known), 1, 0.7)
    return f" (did you mean {sign}{close[0]}?)" if close else ""


def _is_reference(name: str) -> bool:
    try:
        parse_reference(name)
    except InvalidParameter:
        return False
    return True
