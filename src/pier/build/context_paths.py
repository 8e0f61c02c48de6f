"""Which files of its context a build reads, told from the Dockerfile alone: a client sends no others."""

import posixpath
from collections.abc import Iterator, Sequence

from pier.build.dockerfile import instructions as ins
from pier.build.mounts import bind_sources
from pier.build.plan import Plan

_REMOTE = ("http://", "https://", "git@", "git://", "ssh://")


def context_paths(plan: Plan) -> Sequence[str]:
    """Return the paths, sorted, with wildcards as written; nothing for all of the context.

    All of it is wanted also where a path has a variable, whose value is known only later.
    """
    found: set[str] = set()
    for planned in plan.stages:
        for step in planned.stage.instructions:
            for source in _sources(step):
                path = posixpath.normpath("/" + source).lstrip("/")
                if "$" in source or not path:
                    return ()
                found.add(path)
    return sorted(found)


def reads_context(step: ins.Instruction) -> bool:
    """Tell whether an instruction takes files of the context."""
    return next(_sources(step), None) is not None


def _sources(step: ins.Instruction) -> Iterator[str]:
    match step:
        case ins.Copy() if step.stage:
            return
        case ins.Copy() | ins.Add():
            for source in step.sources:
                if not source.startswith(_REMOTE) and not (step.heredocs and source[:2] == "<<"):
                    yield source
        case ins.Run():
            for text in step.mounts:
                if not bind_sources([text]) and "type=" not in text.replace("type=bind", ""):
                    yield _bind_source(text)


def _bind_source(text: str) -> str:
    for word in text.split(","):
        key, _, value = word.partition("=")
        if key.strip().lower() in ("source", "src"):
            return value
    return "."
