"""Instructions that change nothing but an image's config: each edits it and says its comment.

The words were expanded already. Formats of the comments are dockerd's (see `words`).
"""

import posixpath
from collections.abc import Callable
from typing import Any

from pier.build.dockerfile import instructions as ins
from pier.build.words import DEFAULT_SHELL, health, quoted_list
from pier.errors import InvalidParameter
from pier.images.changes import expose as add_ports
from pier.model.container import ContainerConfig, Empty, HealthConfig


def environment(config: ContainerConfig) -> dict[str, str]:
    """Return a config's variables by name."""
    found = {}
    for entry in config.Env or ():
        name, _, value = entry.partition("=")
        found[name] = value
    return found


def shell_words(config: ContainerConfig, command: ins.Command) -> list[str]:
    """Return a command's words, with the shell in front of the shell form."""
    if not command.is_shell:
        return list(command.words)
    return [*(config.Shell or DEFAULT_SHELL), *command.words]


def env(config: ContainerConfig, step: ins.Env) -> str:
    variables = environment(config)
    variables.update(step.values)
    config.Env = [f"{name}={value}" for name, value in variables.items()]
    return "ENV " + " ".join(f"{name}={value}" for name, value in step.values)


def label(config: ContainerConfig, step: ins.Label) -> str:
    config.Labels = config.Labels | dict(step.values)
    return "LABEL " + " ".join(f"{name}={value}" for name, value in step.values)


def cmd(config: ContainerConfig, step: ins.Cmd) -> str:
    config.Cmd = shell_words(config, step.command)
    # With the shell in front the words are one already: they are not escaped again.
    config.ArgsEscaped = False
    return f"CMD {quoted_list(config.Cmd)}"


def entrypoint(config: ContainerConfig, step: ins.Entrypoint, *, cmd_set: bool) -> str:
    config.Entrypoint = shell_words(config, step.command)
    if not cmd_set:
        config.Cmd = None  # the base image's, which was meant for its own entrypoint
    return f"ENTRYPOINT {quoted_list(config.Entrypoint)}"


def shell(config: ContainerConfig, step: ins.Shell) -> str:
    config.Shell = list(step.words)
    return f"SHELL [{' '.join(step.words)}]"


def expose(config: ContainerConfig, step: ins.Expose) -> str:
    add_ports(config, step.ports)
    return f"EXPOSE {' '.join(sorted(step.ports))}"


def volume(config: ContainerConfig, step: ins.Volume) -> str:
    config.Volumes = dict(config.Volumes or {})
    for path in step.paths:
        if not path:
            raise InvalidParameter("VOLUME specified can not be an empty string")
        config.Volumes[path] = Empty()
    return f"VOLUME [{' '.join(step.paths)}]"


def user(config: ContainerConfig, step: ins.User) -> str:
    config.User = step.user
    return f"USER {step.user}"


def workdir(config: ContainerConfig, step: ins.Workdir) -> str:
    config.WorkingDir = resolve(config, step.path)
    return f"WORKDIR {config.WorkingDir}"


def stopsignal(config: ContainerConfig, step: ins.Stopsignal) -> str:
    config.StopSignal = step.signal
    return f"STOPSIGNAL {step.signal}"


def healthcheck(config: ContainerConfig, step: ins.Healthcheck) -> str:
    config.Healthcheck = HealthConfig(
        Test=list(step.test),
        Interval=step.interval,
        Timeout=step.timeout,
        Retries=step.retries,
        StartPeriod=step.start_period,
        StartInterval=step.start_interval,
    )
    return f"HEALTHCHECK {health(config.Healthcheck)}"


def onbuild(config: ContainerConfig, step: ins.Onbuild) -> str:
    config.OnBuild = [*(config.OnBuild or []), step.trigger]
    return f"ONBUILD {step.trigger}"


_EDITS: dict[type[ins.Instruction], Callable[[ContainerConfig, Any], str]] = {
    ins.Cmd: cmd,
    ins.Env: env,
    ins.Healthcheck: healthcheck,
    ins.Label: label,
    ins.Onbuild: onbuild,
    ins.Shell: shell,
    ins.Stopsignal: stopsignal,
    ins.User: user,
    ins.Volume: volume,
}


def edit(config: ContainerConfig, step: ins.Instruction) -> str:
    """Edit `config` by an instruction of the simple kinds; return the comment for its history."""
    return _EDITS[type(step)](config, step)


def resolve(config: ContainerConfig, path: str) -> str:
    """Return a path that may be relative to the working directory, normalized."""
    return posixpath.normpath(posixpath.join("/", config.WorkingDir, path)).replace("//", "/")


def expanded(step: ins.Instruction, word: Callable[[str], str]) -> ins.Instruction:
    """Expand the words of an instruction whose variables count (reference, "Environment")."""
    match step:
        case ins.Env() | ins.Label():
            values = [(word(name), word(value)) for name, value in step.values]
            return type(step)(values=values, is_legacy=step.is_legacy)
        case ins.Volume():
            return ins.Volume(paths=[word(path) for path in step.paths])
        case ins.User():
            return ins.User(user=word(step.user))
        case ins.Workdir():
            return ins.Workdir(path=word(step.path))
        case ins.Stopsignal():
            return ins.Stopsignal(signal=word(step.signal))
        case _:
            return step
