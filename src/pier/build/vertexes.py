"""What the steps of a stage are called in progress: `[build 2/4] RUN make`, as BuildKit numbers them.

Those count that make files: the base image, RUN, COPY, ADD and WORKDIR. What only changes the config
is not seen.
"""

import re
from collections.abc import Mapping, Sequence

from pier.build.dockerfile import instructions as ins
from pier.build.progress import Progress, Vertex, Work, digest_of

_SHOWN = (ins.Run, ins.Copy, ins.Add, ins.Workdir)
_VARIABLE = re.compile(r"(?<!\\)\$(?:\{(\w+)\}|(\w+))")


def stage_name(file: ins.Dockerfile, stage: ins.Stage) -> str:
    """Return what a stage is called, "" for the only one of a file without --mount."""
    if len(file.stages) == 1:
        mounts = any(isinstance(step, ins.Run) and step.mounts for step in stage.instructions)
        return stage.alias or "stage-0" if mounts else ""
    return stage.alias or f"stage-{stage.index}"


class StageVertexes:
    """Makes the vertexes of one stage, one after another. `key` tells its build from others.

    `has_base` counts the base image; `last` is the digest of the one before, "" for none.
    """

    def __init__(self, progress: Progress, key: str, name: str, *, has_base: bool) -> None:
        self._progress = progress
        self._key = f"{key}\0{name}"
        self._name = name
        self._number = 0
        self._total = int(has_base)
        self.last = ""

    def expect(self, steps: Sequence[ins.Instruction]) -> None:
        """Count steps that are to come."""
        self._total += sum(isinstance(step, _SHOWN) for step in steps)

    def base(self, text: str) -> Work:
        """The vertex of the base image."""
        return self._made(f"FROM {text}")

    def step(self, step: ins.Instruction, values: Mapping[str, str]) -> Work | None:
        """The vertex of an instruction, None for one that is not seen."""
        return self._made(shown(step.original, values)) if isinstance(step, _SHOWN) else None

    def _made(self, text: str) -> Work:
        self._number += 1
        width = len(str(self._total))
        stage = f"{self._name} " if self._name else ""
        name = f"[{stage}{self._number:{width}}/{self._total}] {text}"
        inputs = (self.last,) if self.last else ()
        self.last = digest_of(self._key, name)
        work = Work(self._progress, Vertex(self.last, name, inputs))
        work.begin()
        return work


def shown(original: str, values: Mapping[str, str]) -> str:
    """Return an instruction's first line with the variables in it that are known."""
    line, _, rest = original.partition("\n")
    line = _VARIABLE.sub(lambda found: values.get(found[1] or found[2], found[0]), line)
    first = rest.strip().partition("\n")[0]
    return f"{line} ({first}...)" if first else line
