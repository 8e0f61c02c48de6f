"""Which stages a build needs, in which order, and what each needs of others."""

from collections.abc import Collection, Sequence

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
    planned = [_stage(file, stage, arguments, contexts) for stage in file.stages[: last + 1]]
    needed = {last}
    for stage in reversed(planned):
        if stage.stage.index in needed:
            needed |= stage.needs
    return Plan([stage for stage in planned if stage.stage.index in needed], file.escape)


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
        raise DockerfileError(str(exc.args[0]), stage.base.first, stage.base.last) from None
    if not base:
        raise DockerfileError(
            f"base name ({stage.base.image}) should not be blank", stage.base.first
        )
    base = contexts.stage_of(base)
    # Not a number: `FROM 0` is an image.
    aliases = [other for other in file.stages[: stage.index] if other.alias == base.lower()]
    parent = aliases[-1].index if aliases else None
    needs = {parent} if parent is not None else set()
    for step in stage.instructions:
        if isinstance(step, ins.Copy) and step.stage:
            found = find_stage(file.stages, contexts.stage_of(step.stage), stage.index)
            needs |= {found} if found is not None else set()
        elif isinstance(step, ins.Run):
            for name in bind_sources(step.mounts):
                found = find_stage(file.stages, contexts.stage_of(name), stage.index)
                needs |= {found} if found is not None else set()
    return PlannedStage(
        stage, "" if parent is not None else base, platform, parent, frozenset(needs)
    )
