"""`--change` of import and commit: Dockerfile instructions that alter an image's config.

Allowed are those that say how a container starts, as in Docker: CMD, ENTRYPOINT, ENV, EXPOSE,
HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
"""

import json
import posixpath
import shlex
from collections.abc import Callable

from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig, Empty, HealthConfig
from pier.model.gotime import parse_duration

SHELL = ["/bin/sh", "-c"]
DURATIONS = {
    "--interval": "Interval",
    "--timeout": "Timeout",
    "--start-period": "StartPeriod",
    "--start-interval": "StartInterval",
}


def apply_changes(config: ContainerConfig, changes: list[str]) -> None:
    """Alter `config` in place. Raises InvalidParameter for what is not an allowed instruction."""
    for change in changes:
        for line in change.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _apply(config, line.strip())


def _apply(config: ContainerConfig, line: str) -> None:
    keyword, _, rest = line.partition(" ")
    name, rest = keyword.upper(), rest.strip()
    handler = _HANDLERS.get(name)
    if handler is None:
        raise InvalidParameter(f"{keyword} is not a valid change command")
    if not rest:
        raise InvalidParameter(f"{name} requires at least one argument")
    handler(config, rest)


def _cmd(config: ContainerConfig, rest: str) -> None:
    config.Cmd = _command(rest)


def _entrypoint(config: ContainerConfig, rest: str) -> None:
    config.Entrypoint = _command(rest)


def _env(config: ContainerConfig, rest: str) -> None:
    env = dict(item.split("=", 1) for item in config.Env or [])
    env.update(_pairs("ENV", rest))
    config.Env = [f"{key}={value}" for key, value in env.items()]


def _label(config: ContainerConfig, rest: str) -> None:
    config.Labels = {**config.Labels, **_pairs("LABEL", rest)}


def _expose(config: ContainerConfig, rest: str) -> None:
    ports = dict(config.ExposedPorts)
    for word in _words(rest):
        port, _, protocol = word.partition("/")
        first, _, last = port.partition("-")
        protocol = (protocol or "tcp").lower()
        if protocol not in ("tcp", "udp", "sctp"):
            raise InvalidParameter(f"invalid proto: {protocol}")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise InvalidParameter(f"invalid containerPort: {port}")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] > 65535:
            raise InvalidParameter(f"invalid containerPort: {port}")
        ports.update({f"{number}/{protocol}": Empty() for number in numbers})
    config.ExposedPorts = ports


def _user(config: ContainerConfig, rest: str) -> None:
    config.User = rest


def _workdir(config: ContainerConfig, rest: str) -> None:
    config.WorkingDir = posixpath.normpath(posixpath.join(config.WorkingDir or "/", rest))


def _volume(config: ContainerConfig, rest: str) -> None:
    listed = _list(rest)
    volumes = dict(config.Volumes or {})
    volumes.update({path: Empty() for path in (listed if listed is not None else _words(rest))})
    config.Volumes = volumes


def _stopsignal(config: ContainerConfig, rest: str) -> None:
    config.StopSignal = rest


def _onbuild(config: ContainerConfig, rest: str) -> None:
    trigger = rest.partition(" ")[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    config.OnBuild = [*(config.OnBuild or []), rest]


def _healthcheck(config: ContainerConfig, rest: str) -> None:
    health = HealthConfig()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag.partition("=")
        if key in DURATIONS:
            setattr(health, DURATIONS[key], _duration(value))
        elif key == "--retries" and value.isdecimal():
            health.Retries = int(value)
        else:
            raise InvalidParameter(f"unknown flag: {key}")
        rest = rest.lstrip()
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command:
        health.Test = ["NONE"]
    elif kind.upper() == "CMD" and command.strip():
        listed = _list(command.strip())
        health.Test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", command.strip()]
    else:
        raise InvalidParameter(f'unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    config.Healthcheck = health


_HANDLERS: dict[str, Callable[[ContainerConfig, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(rest: str) -> list[str]:
    """The JSON form as it is, anything else through the shell."""
    listed = _list(rest)
    return listed if listed is not None else [*SHELL, rest]


def _list(rest: str) -> list[str] | None:
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    return value if all(isinstance(item, str) for item in value) else None


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise InvalidParameter(str(exc)) from exc


def _words(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as exc:
        raise InvalidParameter(f"failed to process {rest!r}: {exc}") from exc


def _pairs(name: str, rest: str) -> dict[str, str]:
    words = _words(rest)
    if "=" not in words[0]:
        # The old form: one name, and all the rest is its value.
        key, _, value = rest.partition(" ")
        if not value:
            raise InvalidParameter(f"{name} must have two arguments")
        return {key: value.strip()}
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        if not key:
            raise InvalidParameter(f"{name} names can not be blank")
        pairs[key] = value
    return pairs
