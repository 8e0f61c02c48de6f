"""What `pier build` asks of a build beside Docker's parameters, and how it is answered."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from pier.build.builder import Build
from pier.build.context import Context
from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.excerpt import excerpt
from pier.build.failures import StepFailed
from pier.build.lint.findings import Finding, violation
from pier.build.lint.text import as_document, as_text, ordered
from pier.build.options import BuildOptions
from pier.build.outline import outline_of, outline_text, targets_of, targets_text
from pier.build.progress import SILENT, Progress, Warned
from pier.build.progress_lines import ProgressLines
from pier.errors import InvalidParameter, PierError

Hear = Callable[[Mapping[str, Any]], None]


class Asked(Struct, frozen=True):
    """`progress` sends vertexes instead of the classic stream. `call` is "" for a build, or "check".

    `shell` lets the client into a step that failed, `explain` tells why steps missed the cache.
    `mounts_from` and `mounts_to` take cache mounts from the client, and send them to it.
    """

    progress: bool = False
    call: str = ""
    shell: bool = False
    explain: bool = False
    mounts_from: bool = False
    mounts_to: bool = False


class Telling:
    """One build's stream for `pier build`. `image` is what it has come to."""

    def __init__(self, asked: Asked, options: BuildOptions, hear: Hear) -> None:
        self._hear = hear
        self.asked = asked
        self.image = ""
        self._options = options
        self.key = uuid.uuid4().hex
        self.progress: Progress = ProgressLines(hear) if asked.progress else SILENT

    def explain(self, step: str, reason: str) -> None:
        self._hear({"explain": {"step": step, "why": reason}})

    def let_in(self, container: str) -> None:
        """Tell of a container with a shell, which the client starts."""
        self._hear({"shell": {"container": container}})

    def failed(self, exc: PierError, context: Context, builds: Sequence[Build]) -> None:
        """Tell where a build failed, and how, before the error itself."""
        lines: tuple[int, int] | None = None
        reason = exc.process if isinstance(exc, StepFailed) else exc.message
        for build in builds:
            if (failure := build.failure_of(exc)) is not None:
                lines = failure.step.first, failure.step.last
                reason = failure.reason or reason
        if isinstance(exc, DockerfileError) and exc.line:
            lines = exc.line, exc.last_line
        record = {"reason": reason}
        if lines is not None:
            try:
                text = context.read_dockerfile(self._options.dockerfile)
            except PierError:
                text = ""
            record["excerpt"] = excerpt(self._name, text, *lines)
        self._hear({"failure": record})

    def warn(self, found: Sequence[Finding]) -> None:
        for finding in ordered(found):
            self.progress.warn(Warned("", finding.short, url=finding.rule.url))

    def answer(self, build: Build) -> None:
        """Tell what was asked for instead of a build. Blocking. Raises PierError."""
        match self.asked.call:
            case "check":
                found = build.findings(everywhere=True)
                document = as_document(found, self._name, build.source.encode())
                text = as_text(found, self._name, build.source)
                said = {"count": len(found), "text": text, "document": document}
                if found and build.checks.fails:
                    said["error"] = violation(found)
                self._hear({"answer": said})
            case "outline":
                outline = outline_of(build.file, build.plan)
                self._hear({"answer": {"text": outline_text(outline), "document": outline}})
            case "targets":
                targets = targets_of(build.file)
                self._hear({"answer": {"text": targets_text(targets), "document": targets}})
            case other:
                raise InvalidParameter(f"unsupported call {other!r}")

    @property
    def _name(self) -> str:
        return self._options.dockerfile.rpartition("/")[2] or "Dockerfile"
