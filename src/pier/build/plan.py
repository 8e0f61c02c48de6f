"""Which stages a build needs, in which order, and what each needs of others."""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from pier.build.arguments import Arguments
from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.expand import Expander
from pier.build.mounts import bind_sources
from pier.build.named import NamedContexts
from pier.errors import InvalidParameter


class PlannedStage(Struct):
    """`base` is the image's name with its variables expanded, "" when it is a stage, `parent`.

    `needs` are the indexes of all stages that must be done before a step here runs.
    """

    stage: ins.Stage
    base: str
    platform: str
    parent: int | None = None
    needs: frozenset[int] = frozenset()
    lines: Mapping[int, tuple[int, int]] = {}
    """The lines of the steps that need other stages, by their indexes."""

    def is_one_of(self, names: Collection[str]) -> bool:
        """Tell whether the stage's name, or its number, is among `names`."""
        alias = self.stage.alias
        return str(self.stage.index) in names or bool(alias and alias in names)


class Plan(Struct):
    """`stages` are those needed, in the file's order; the last one is what is built."""

    stages: Sequence[PlannedStage]
    escape: str


def find_stage(stages: Sequence[ins.Stage], name: str, before: int) -> int | None:
    """Return the index of the last stage of that name, or number, before another one."""
    wanted = name.lower()
    for stage in reversed(stages[:before]):
        if stage.alias and stage.alias == wanted:
            return stage.index
    if name.isdecimal() and int(name) < before:
        return int(name)
    return None


def make_plan(
    file: ins.Dockerfile,
    arguments: Arguments,
    target: str,
    contexts: NamedContexts,
) -> Plan:
    """Raises InvalidParameter for a target that is not there, DockerfileError."""
    for line in file.globals:
        for name, default in line.values:
            expander = Expander(arguments.globals, escape=file.escape)
            arguments.declare(name, None if default is None else expander.word(default))
    last = len(file.stages) - 1
    if target:
        found = find_stage(file.stages, target, len(file.stages))
        if found is None:
            raise InvalidParameter(f'target stage "{target}" could not be found')
        last = found
    planned = [_stage(file, stage, arguments, contexts) for stage in file.stages]
    needed = _order(planned, last)
    # The target is the last one, also where it takes files of stages behind it in the file.
    order = [*sorted(needed - {last}), last]
    return Plan([planned[index] for index in order], file.escape)


def _order(planned: Sequence[PlannedStage], target: int) -> set[int]:
    """Return what a stage needs, itself as well. Raises DockerfileError for a circle."""
    done: set[int] = set()
    path: list[int] = []

    def visit(index: int) -> None:
        if index in path:
            stage = planned[path[path.index(index)]].stage
            name = stage.alias or f"stage-{stage.index}"
            said = f"circular dependency detected on stage: {name}"
            raise DockerfileError(said, *planned[path[-1]].lines[index], bare=True)
        if index not in done:
            path.append(index)
            for other in sorted(planned[index].needs):
                visit(other)
            path.pop()
            done.add(index)

    visit(target)
    return done


def _stage(
    file: ins.Dockerfile, stage: ins.Stage, arguments: Arguments, contexts: NamedContexts
) -> PlannedStage:
    if stage.alias and stage.alias in contexts:
        # A context of that name takes the stage's place.
        return PlannedStage(ins.Stage(stage.index, stage.base), stage.alias, "")
    expander = Expander(arguments.globals, escape=file.escape)
    try:
        base = expander.word(stage.base.image)
        platform = expander.word(stage.base.platform)
    except DockerfileError as exc:
        text = str(exc.args[0])
        raise DockerfileError(text, stage.base.first, stage.base.last, bare=exc.bare) from None
    if not base:
        raise DockerfileError(
            f"base name ({stage.base.image}) should not be blank", stage.base.first
        )
    base = contexts.stage_of(base)
    # Not a number: `FROM 0` is an image.
    aliases = [other for other in file.stages[: stage.index] if other.alias == base.lower()]
    parent = aliases[-1].index if aliases else None
    needs = {parent} if parent is not None else set()
    lines: dict[int, tuple[int, int]] = {}
    for step in stage.instructions:
        if isinstance(step, ins.Copy) and step.stage:
            found = find_stage(file.stages, contexts.stage_of(step.stage), len(file.stages))
            needs |= {found} if found is not None else set()
            lines |= {found: (step.first, step.last)} if found is not None else {}
        elif isinstance(step, ins.Run):
            for name in bind_sources(step.mounts):
                found = find_stage(file.stages, contexts.stage_of(name), len(file.stages))
                needs |= {found} if found is not None else set()
                lines |= {found: (step.first, step.last)} if found is not None else {}
    return PlannedStage(
        stage, "" if parent is not None else base, platform, parent, frozenset(needs), lines
    )
