"""`--change` of import and commit: single Dockerfile instructions that edit an image's config.

Only instructions that need no build: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
STOPSIGNAL, USER, VOLUME, WORKDIR (Dockerfile reference).
"""

import posixpath
import re
from collections.abc import Callable, Sequence

import msgspec

from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig, Empty, HealthConfig
from pier.model.gotime import parse_duration

_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""", re.DOTALL)
_PIECE = re.compile(r"""\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'|([^"'\\]+)""", re.DOTALL)
_VARIABLE = re.compile(r"\\(\$)|\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_HEALTH_FLAG = re.compile(r"--(interval|timeout|start-period|start-interval|retries)=(\S+)\s*")


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> None:
    """Edit `config` by instructions, in order. Raises InvalidParameter in Docker's words."""
    for line in _lines(changes):
        name, _, rest = line.partition(" ")
        instruction = _INSTRUCTIONS.get(name.lower())
        if instruction is None:
            raise InvalidParameter(f"{name} is not a valid change command")
        rest = rest.strip()
        if not rest:
            raise InvalidParameter(f"{name.upper()} requires at least one argument")
        instruction(config, rest)


def _lines(changes: Sequence[str]) -> list[str]:
    """Return the instructions: a backslash at the end of a line continues it, # comments."""
    kept = [line for line in "\n".join(changes).split("\n") if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", "", "\n".join(kept))
    return [
        re.sub(r"^(\S+)\s+", r"\1 ", line.strip()) for line in joined.split("\n") if line.strip()
    ]


def _cmd(config: ContainerConfig, rest: str) -> None:
    config.Cmd = _command(config, rest)


def _entrypoint(config: ContainerConfig, rest: str) -> None:
    config.Entrypoint = _command(config, rest)


def _env(config: ContainerConfig, rest: str) -> None:
    variables = _environment(config)
    # All values of one instruction see what was set before it.
    variables.update(_pairs("ENV", rest, dict(variables)))
    config.Env = [f"{name}={value}" for name, value in variables.items()]


def _label(config: ContainerConfig, rest: str) -> None:
    config.Labels = config.Labels | _pairs("LABEL", rest, _environment(config))


def _expose(config: ContainerConfig, rest: str) -> None:
    expose(config, _words(rest, _environment(config)))


def expose(config: ContainerConfig, words: Sequence[str]) -> None:
    """Add ports, as EXPOSE words them, to the config. Raises InvalidParameter."""
    ports: dict[str, Empty] = dict(config.ExposedPorts)
    for word in words:
        # As with Docker: an address and a port of the host count for nothing.
        found = _PORT.fullmatch(word.rpartition(":")[2])
        if found is None:
            raise InvalidParameter(f"invalid containerPort: {word}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 0 < first <= last <= 65535:
            raise InvalidParameter(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(found[3] or 'tcp').lower()}"] = Empty()
    config.ExposedPorts = ports


def _healthcheck(config: ContainerConfig, rest: str) -> None:
    health = HealthConfig()
    while found := _HEALTH_FLAG.match(rest):
        name, value = found.groups()
        try:
            number = int(value) if name == "retries" else parse_duration(value)
        except ValueError as exc:
            raise InvalidParameter(f"invalid value for HEALTHCHECK --{name}: {value}") from exc
        if number < 0:
            raise InvalidParameter(f"invalid value for HEALTHCHECK --{name}: {value}")
        field = "".join(part.capitalize() for part in name.split("-"))
        setattr(health, field, number)
        rest = rest[found.end() :]
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE" and not command:
        config.Healthcheck = HealthConfig(Test=["NONE"])
        return
    if kind.upper() != "CMD":
        raise InvalidParameter(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    if not command:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    listed = _json_list(command)
    health.Test = ["CMD-SHELL", command] if listed is None else ["CMD", *listed]
    config.Healthcheck = health


def _onbuild(config: ContainerConfig, rest: str) -> None:
    name = rest.partition(" ")[0].upper()
    if name == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{name} isn't allowed as an ONBUILD trigger")
    config.OnBuild = [*(config.OnBuild or []), rest]


def _stopsignal(config: ContainerConfig, rest: str) -> None:
    config.StopSignal = _one_word("STOPSIGNAL", rest, config)


def _user(config: ContainerConfig, rest: str) -> None:
    config.User = _one_word("USER", rest, config)


def _volume(config: ContainerConfig, rest: str) -> None:
    listed = _json_list(rest)
    paths = _words(rest, _environment(config)) if listed is None else listed
    if not all(path.strip() for path in paths):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    config.Volumes = (config.Volumes or {}) | {path: Empty() for path in paths}


def _workdir(config: ContainerConfig, rest: str) -> None:
    path = _expand(rest, _environment(config))
    config.WorkingDir = posixpath.normpath(posixpath.join("/", config.WorkingDir, path))


_INSTRUCTIONS: dict[str, Callable[[ContainerConfig, str], None]] = {
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "onbuild": _onbuild,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}


def _command(config: ContainerConfig, rest: str) -> list[str]:
    """Return the exec form as it is, the shell form behind the image's shell."""
    listed = _json_list(rest)
    return listed if listed is not None else [*(config.Shell or ["/bin/sh", "-c"]), rest]


def _json_list(text: str) -> list[str] | None:
    """Return a JSON array of strings; anything else is no exec form."""
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text.encode(), type=list[str])
    except msgspec.DecodeError:
        return None


def _environment(config: ContainerConfig) -> dict[str, str]:
    return dict(_split(entry) for entry in config.Env or [])


def _split(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def _pairs(instruction: str, rest: str, environment: dict[str, str]) -> dict[str, str]:
    """Decode `name=value …`, or the old `name value` where the value is the rest of the line."""
    words = _WORD.findall(rest)
    if words and "=" not in words[0]:
        name, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{instruction} must have two arguments")
        return {_expand(name, environment): _expand(value.strip(), environment)}
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise InvalidParameter(f"{instruction} names can not be blank")
        pairs[_expand(name, environment)] = _expand(value, environment)
    return pairs


def _words(rest: str, environment: dict[str, str]) -> list[str]:
    return [_expand(word, environment) for word in _WORD.findall(rest)]


def _one_word(instruction: str, rest: str, config: ContainerConfig) -> str:
    words = _words(rest, _environment(config))
    if len(words) != 1:
        raise InvalidParameter(f"{instruction} requires exactly one argument")
    return words[0]


def _expand(word: str, environment: dict[str, str]) -> str:
    """Take off quotes and backslashes and fill in variables, which single quotes keep."""
    done: list[str] = []
    for escaped, double, single, plain in _PIECE.findall(word):
        if escaped:
            done.append(escaped)
        elif single:
            done.append(single)
        elif double:
            filled = _substitute(double, environment)
            done.append(re.sub(r'\\(["\\])', r"\1", filled))
        else:
            done.append(_substitute(plain, environment))
    return "".join(done)


def _substitute(text: str, environment: dict[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        current = environment.get(found[2] or found[3], "")
        if found[4] == "-":
            return current or found[5]
        if found[4] == "+":
            return found[5] if current else ""
        return current

    return _VARIABLE.sub(value, text)
