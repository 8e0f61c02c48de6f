"""Builds: a Dockerfile becomes an image. Stages that do not need each other run at the same time."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pier.build.arguments import Arguments
from pier.build.attest.materials import image_material
from pier.build.caches.imported import ImportedCache
from pier.build.context import Context
from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.parse import parse_dockerfile, parse_trigger
from pier.build.failures import BuildFailed
from pier.build.fetching import Fetcher
from pier.build.lint.check import Surroundings, check
from pier.build.lint.findings import Checks, Finding, parse_checks, violation
from pier.build.mounts import bind_sources
from pier.build.named import Means, NamedContexts
from pier.build.options import INSECURE, BuildOptions
from pier.build.output import Output, Turns
from pier.build.plan import Plan, PlannedStage, find_stage, make_plan
from pier.build.progress import SILENT, Progress, Work, error_of, working
from pier.build.result import Material, PlatformResult, StepTimes
from pier.build.runner import Tell
from pier.build.stage import Failure, Job, Shop, StageBuild
from pier.build.vertexes import StageVertexes, stage_name
from pier.errors import Forbidden, InvalidParameter, NotFound, PierError
from pier.images.image import Image
from pier.model.digest import short
from pier.model.platform import Platform, host_platform, parse_platform
from pier.model.reference import parse_reference

SCRATCH = "scratch"
CHECKS = "BUILDKIT_DOCKERFILE_CHECK"
"""A build argument in the place of the Dockerfile's `check` directive."""


class Builder:
    """Makes builds; any number at the same time."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def read(self, context: Context, options: BuildOptions) -> "Build":
        """Read the context's Dockerfile. Blocking. Raises PierError."""
        if INSECURE in options.allowed and INSECURE not in self._shop.allowed:
            raise Forbidden(
                f"granting entitlement {INSECURE} is not allowed by build daemon configuration"
            )
        text = context.read_dockerfile(options.dockerfile)
        file = parse_dockerfile(text)
        host = host_platform()
        arguments = Arguments.make(options.arguments, options.platform or host, host)
        contexts = NamedContexts(options.contexts)
        plan = make_plan(file, arguments, options.target, contexts)
        if options.labels:
            last = plan.stages[-1].stage
            values = [(name, options.labels[name]) for name in sorted(options.labels)]
            words = " ".join(f"{name}={value}" for name, value in values)
            label = ins.Label(
                values=[(n, _literal(v)) for n, v in values], original=f"LABEL {words}"
            )
            last.instructions.append(label)
        build = Build(self._shop, context, options, file, plan, arguments, contexts)
        build.source = text
        return build


def _literal(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


class Build:
    """`source` is the Dockerfile's text."""

    def __init__(
        self,
        shop: Shop,
        context: Context,
        options: BuildOptions,
        file: ins.Dockerfile,
        plan: Plan,
        arguments: Arguments,
        contexts: NamedContexts,
    ) -> None:
        self._shop = shop
        self._contexts = contexts
        self._options = options
        self.file = file
        self.plan = plan
        self._arguments = arguments
        self._context = context
        self._pulls: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._stages: dict[int, asyncio.Task[StageBuild]] = {}
        self.source = ""
        # Said where there are several.
        self._shown = str(options.platform) if options.platforms else ""
        self._materials: dict[str, Material] = {}
        self.times: list[StepTimes] = []
        self.cache_mounts: set[str] = set()
        self._failures: list[Failure] = []
        self._bases: dict[int, Image | None] = {}
        self._total = len(file.globals) + sum(1 + len(s.stage.instructions) for s in plan.stages)

    @property
    def platform(self) -> Platform:
        """What it builds for."""
        return self._options.platform or host_platform()

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds, when the client gave one."""
        return self._arguments.epoch

    @property
    def stages(self) -> list[Image]:
        """What the stages have come to, once all have run."""
        images = [task.result().image for task in self._stages.values()]
        return [image for image in images if image is not None]

    def outcome(self, image: Image) -> PlatformResult:
        """Return what it has come to, once it has run to its end."""
        last = self.plan.stages[-1].stage.index
        read = {**self._context.materials, **self._materials}
        materials = [read[uri] for uri in sorted(read)]
        platform = image.config.platform
        times = sorted(self.times, key=lambda step: step.started)
        base = self._bases[last]
        return PlatformResult(platform, image, base, materials, times, self.stages)

    async def run(
        self,
        tell: Tell,
        *,
        progress: Progress = SILENT,
        key: str = "",
        caches: Sequence[ImportedCache] = (),
    ) -> Image:
        """Build to the end; on failure or cancellation nothing goes on. Raises PierError.

        `key` tells the build's vertexes from those of others. `caches` are those elsewhere that
        steps may be taken from.
        """
        self._key = key
        shop = self._shop
        with shop.store.pinned() as result:
            try:
                with shop.store.pinned() as pins:
                    epoch = self._arguments.epoch
                    self._job = Job(
                        self._options,
                        self._context,
                        self.file.escape,
                        epoch,
                        pins,
                        progress,
                        self._failures,
                        caches,
                        self.cache_mounts,
                    )
                    image = await self._run(tell)
                    result.add(*image.chain_ids, *image.blobs)
            finally:
                await self._contexts.close(shop.store, shop.runner.discard)
            return image

    async def _run(self, tell: Tell) -> Image:
        outputs = [Output(tell) for _ in self.plan.stages]
        turns = Turns(outputs)
        number = 0
        for line in self.file.globals:
            number += 1
            self._announce(outputs[0], number, line.original)
        tasks = []
        for planned, output in zip(self.plan.stages, outputs, strict=True):
            task = asyncio.create_task(
                self._stage(planned, output, turns, number),
                name=f"build stage {planned.stage.index}",
            )
            self._stages[planned.stage.index] = task
            tasks.append(task)
            number += 1 + len(planned.stage.instructions)
        try:
            await self._finish(tasks, turns, outputs)
            image = tasks[-1].result().image
        finally:
            await _cancel([*tasks, *self._pulls.values()])
        if image is None:
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        self._say_end(tell, image)
        return image

    def findings(self, *, everywhere: bool = False) -> list[Finding]:
        """Return what the lint checks find: in the stages that are built, or everywhere.

        Base images count as far as they are here. Blocking. Raises InvalidParameter.
        """
        checks = self.checks
        host = host_platform()
        stages = None if everywhere else {planned.stage.index for planned in self.plan.stages}
        around = Surroundings(
            given=self._options.arguments,
            target=self._options.platform or host,
            build=host,
            image_of=self._local_image,
            ignore=self._context.ignore,
            stages=stages,
        )
        found = check(self.file, checks, around)
        if found and checks.fails and not everywhere:
            raise InvalidParameter(violation(found))
        return found

    @property
    def checks(self) -> Checks:
        """Which checks are asked for. Raises InvalidParameter."""
        given = self._options.arguments.get(CHECKS)
        return parse_checks(self.file.directives.get("check", "") if given is None else given)

    def _local_image(self, name: str) -> Image | None:
        if name in self._contexts:
            return None
        try:
            return self._shop.store.get(name, self._options.platform)
        except PierError:
            return None

    def failure_of(self, error: BaseException) -> Failure | None:
        """Return the step that failed with an error, None where it was none."""
        return next((f for f in self._failures if f.error is error), None)

    async def _finish(
        self, tasks: "list[asyncio.Task[StageBuild]]", turns: Turns, outputs: list[Output]
    ) -> None:
        """Wait for all stages. The first failure ends it, told after what came before it."""
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [t for t in tasks if t.done() and not t.cancelled() and t.exception()]
        if failed:
            for task, output in zip(tasks, outputs, strict=True):
                if task is failed[0]:
                    output.open()
        for task in failed:
            task.result()

    async def _stage(
        self, planned: PlannedStage, output: Output, turns: Turns, number: int
    ) -> StageBuild:
        arguments = self._arguments.stage()
        platform = self._platform(planned)
        vertexes = StageVertexes(
            self._job.progress,
            self._key,
            " ".join(filter(None, (self._shown, stage_name(self.file, planned.stage)))),
            has_base=planned.parent is None and planned.base.lower() != SCRATCH,
        )
        vertexes.expect(planned.stage.instructions)
        build = StageBuild(self._shop, self._job, arguments, output, platform, vertexes)
        build.cache_lost |= planned.is_one_of(self._options.uncached)
        for index in sorted(planned.needs):
            await asyncio.shield(self._stages[index])
        if planned.parent is not None:
            build.arguments = arguments.stage_on(self._stages[planned.parent].result().arguments)
        self._announce(output, number + 1, planned.stage.base.original)
        image = await self._base(planned, platform, output, vertexes)
        # What it stands on from outside: the base of a base that is a stage.
        index = planned.stage.index
        parent = planned.parent
        self._bases[index] = image if parent is None else self._bases[parent]
        triggers = build.begin(image)
        output.stream(f" ---> {short(image.id) if image else ''}\n")
        build.sources = await self._sources(planned, platform, output)
        if triggers:
            plural = "s" if len(triggers) > 1 else ""
            output.stream(f"# Executing {len(triggers)} build trigger{plural}")
            output.stream("\n")
        triggered = [parse_trigger(text) for text in triggers]
        vertexes.expect(triggered)
        for step in triggered:
            await build.step(step)
        for offset, step in enumerate(planned.stage.instructions, number + 2):
            self._announce(output, offset, step.original)
            await self._timed(build, step)
        if build.image is not None:
            output.record({"aux": {"ID": build.image.id}})
        turns.done(output)
        return build

    async def _timed(self, build: StageBuild, step: ins.Instruction) -> None:
        started = time.time_ns()
        before = build.image.size if build.image else 0
        error, size = "", 0
        try:
            await build.step(step)
            size = (build.image.size if build.image else 0) - before
        except BaseException as exc:
            error = error_of(exc)
            raise
        finally:
            ended = time.time_ns()
            times = StepTimes(step.original, started, ended, build.is_cached, size, error)
            self.times.append(times)

    def _announce(self, output: Output, number: int, text: str) -> None:
        output.stream(f"Step {number}/{self._total} : {text}")
        output.stream("\n")

    def _platform(self, planned: PlannedStage) -> Platform:
        if planned.platform:
            return parse_platform(planned.platform)
        return self._options.platform or host_platform()

    async def _base(
        self,
        planned: PlannedStage,
        platform: Platform,
        output: Output,
        vertexes: StageVertexes,
    ) -> Image | None:
        if planned.parent is not None:
            return self._stages[planned.parent].result().image
        if planned.base in self._contexts:
            return await self._context_image(planned.base, platform, output)
        if planned.base.lower() == SCRATCH:
            return None
        wanted = platform if planned.platform or self._options.platform else None
        try:
            image = await self._image(planned.base, wanted, output)
        except PierError as exc:
            reason = _unresolved(planned.base, exc)
            self._failures.append(Failure(planned.stage.base, "", exc, reason))
            raise
        vertexes.base(_full_name(planned.base)).done(cached=True)
        return image

    async def _image(self, name: str, platform: Platform | None, output: Output) -> Image:
        """Find an image, or pull it, once a build."""
        key = (name, str(platform or ""))
        if key not in self._pulls:
            self._pulls[key] = asyncio.create_task(self._get(name, platform, output))
        return await asyncio.shield(self._pulls[key])

    async def _get(self, name: str, platform: Platform | None, output: Output) -> Image:
        lead = " ".join(filter(None, (self._shown, "internal")))
        what = f"[{lead}] load metadata for {_full_name(name)}"
        key = f"{self._key}\0{platform or ''}"
        with working(self._job.progress, what, key=key) as work:
            image = await self._find(name, platform, output, work)
        material = image_material(name, image)
        self._materials[material.uri] = material
        return image

    async def _find(
        self, name: str, platform: Platform | None, output: Output, work: Work
    ) -> Image:
        store = self._shop.store
        if not self._options.pull:
            try:
                return store.get(name, platform)
            except NotFound:
                pass
        parts: dict[str, int] = {}

        def tell(record: Mapping[str, Any]) -> None:
            output.record(record)
            _tell_pull(work, parts, record)

        await self._shop.runner.pull(name, platform, tell)
        return store.get(name, platform)

    async def _sources(
        self, planned: PlannedStage, platform: Platform, output: Output
    ) -> Mapping[str, Image | None]:
        """Return what the --from of its steps name: earlier stages, or images."""
        steps = planned.stage.instructions
        names: list[tuple[str, ins.Instruction]] = [
            (s.stage, s) for s in steps if isinstance(s, ins.Copy) and s.stage
        ]
        for step in steps:
            if isinstance(step, ins.Run):
                names += [(name, step) for name in bind_sources(step.mounts)]
        found: dict[str, Image | None] = {}
        for name, step in names:
            stage = self._contexts.stage_of(name)
            index = find_stage(self.file.stages, stage, len(self.file.stages))
            if index is not None:
                found[name] = self._stages[index].result().image
                continue
            if name in self._contexts:
                found[name] = await self._context_image(name, platform, output)
                continue
            try:
                wanted = platform if self._options.platform else None
                found[name] = await self._image(name, wanted, output)
            except PierError as exc:
                failed = BuildFailed(f"invalid from flag value {name}: {exc.message}")
                self._failures.append(Failure(step, "", failed, _unresolved(name, exc)))
                raise failed from exc
        return found

    async def _context_image(self, name: str, platform: Platform, output: Output) -> Image:
        """Return a named context as an image, told of as a vertex."""
        shop, job = self._shop, self._job
        session = self._options.session

        async def pull(reference: str, wanted: Platform | None) -> Image:
            chosen = wanted if self._options.platform else None
            return await self._image(reference, chosen, output)

        means = Means(
            store=shop.store,
            pins=job.pins,
            fetcher=Fetcher(job.context, session, shop.private),
            session=session,
            pull=pull,
            executor=shop.executor,
            directory=job.context.directory,
        )
        with working(job.progress, f"[context {name}] load", key=self._key):
            return await self._contexts.image(name, platform, means)

    def _say_end(self, tell: Tell, image: Image) -> None:
        if unused := self._arguments.unused():
            names = " ".join(unused)
            tell({"stream": f"[Warning] One or more build-args [{names}] were not consumed\n"})
        tell({"stream": f"Successfully built {short(image.id)}\n"})


def _unresolved(name: str, exc: PierError) -> str:
    """Return what BuildKit says of an image that cannot be had."""
    full = _full_name(name)
    said = f"{full}: not found" if isinstance(exc, NotFound) else exc.message
    return f"{name}: failed to resolve source metadata for {full}: {said}"


def _full_name(name: str) -> str:
    """Return a reference in full, as BuildKit shows it; one that is none stays as it is."""
    try:
        return str(parse_reference(name).tagged())
    except PierError:
        return name


def _tell_pull(work: Work, parts: dict[str, int], record: Mapping[str, Any]) -> None:
    """Tell of a pull's line as a part of a vertex; `parts` are when each began."""
    name, detail = str(record.get("id", "")), record.get("progressDetail") or {}
    if not name or "current" not in detail:
        return
    current, total = int(detail["current"]), int(detail.get("total", 0))
    what = f"{str(record.get('status', '')).lower()} {name}"
    parts[what] = work.status(
        what, current=current, total=total, started=parts.get(what, 0), done=current == total
    )


async def _cancel(tasks: "list[asyncio.Task[StageBuild] | asyncio.Task[Image]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at
