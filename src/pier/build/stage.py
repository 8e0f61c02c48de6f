"""One stage at work: its instructions one after another, each from the cache or made.

What a step needs of others (its base, files of another stage) is there before the stage begins.
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from pier.build import configure, files, step_mounts
from pier.build.arguments import Arguments
from pier.build.cache import BuildCache, key_of
from pier.build.cache_mounts import CacheMounts
from pier.build.caches.imported import ImportedCache, Wanted
from pier.build.configure import environment, expanded, shell_words
from pier.build.context import Context
from pier.build.context_paths import reads_context
from pier.build.copying import make_directory
from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.expand import Expander
from pier.build.explain import Inputs, text_of, why
from pier.build.failures import StepFailed, foreign
from pier.build.fetching import Fetcher
from pier.build.mounts import parse_mount
from pier.build.options import INSECURE, NETWORK_HOST, BuildOptions
from pier.build.output import Output
from pier.build.progress import SILENT, Progress, Work, error_of
from pier.build.runner import Step, StepRunner
from pier.build.snapshot import Made, adopt, copy_layer, is_last_step, open_image, save
from pier.build.threads import finished
from pier.build.tree import work_on
from pier.build.vertexes import StageVertexes
from pier.build.words import DEFAULT_PATH, DEFAULT_SHELL, file_note, note, run_words
from pier.errors import Forbidden, InvalidParameter, NotFound, Unsupported
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.container import ContainerConfig
from pier.model.digest import short
from pier.model.platform import Platform


class Shop(Struct, frozen=True):
    """What all stages of all builds share. `private` is a directory where secrets may lie,
    `allowed` are the entitlements that any build may be given. `committed` hears of each image that a
    step made anew other than COPY and ADD: those of which Docker's classic builder tells.
    """

    store: ImageStore
    cache: BuildCache
    runner: StepRunner
    cache_mounts: CacheMounts
    executor: Executor
    private: str
    allowed: Collection[str] = (NETWORK_HOST,)
    committed: Callable[[Image], None] = lambda _: None


class Job(Struct, frozen=True):
    """What the stages of one build share; `pins` keeps the layers that they stand on.

    `failures` are the steps that failed, with what they raised. `caches` are those elsewhere that
    steps may be taken from. `cache_mounts` are the names of those that steps have, also of steps that
    the cache had.
    """

    options: BuildOptions
    context: Context
    escape: str
    epoch: int | None
    pins: Pins
    progress: Progress = SILENT
    failures: "list[Failure]" = []
    caches: Sequence[ImportedCache] = ()
    cache_mounts: set[str] = set()


class Failure(Struct, frozen=True):
    """`vertex` is the digest of the step's, "" for one that has none; `reason` is what BuildKit says
    where that is not what `error` says, in Docker's words.
    """

    step: ins.Instruction
    vertex: str
    error: Exception
    reason: str = ""


class StageBuild:
    """`image` is what it has come to, None for scratch with nothing in it yet.

    With `cache_lost` no step is taken from the cache; `is_cached` tells whether the last one was.
    """

    def __init__(
        self,
        shop: Shop,
        job: Job,
        arguments: Arguments,
        output: Output,
        platform: Platform,
        vertexes: StageVertexes,
    ) -> None:
        self._shop = shop
        self._vertexes = vertexes
        self._told: Work | None = None
        self._job = job
        self.arguments = arguments
        self._output = output
        self._platform = platform
        self._cmd_set = False
        self._stubs: list[str] | None = None
        self._inputs: Inputs | None = None
        self._shown = ""
        self._is_past_base = False
        self.cache_lost = not job.options.use_cache
        self.is_cached = False
        self.image: Image | None = None
        self.config = ContainerConfig()
        self.author = ""
        self.sources: Mapping[str, Image | None] = {}

    @property
    def _has_others_alone(self) -> bool:
        """Whether the cache is to be made of named images, and of nothing else."""
        return bool(self._job.options.cache_from) and self._job.options.is_cache_from_alone

    def _in_own_cache(self, key: str) -> Image | None:
        """Beside what led to the images that are named, Docker's classic builder has no cache."""
        if self.cache_lost:
            return None
        found = self._shop.cache.find(key)
        if found is not None and self._has_others_alone and not self._led_to_others(found):
            return None
        return found

    def _led_to_others(self, image: Image) -> bool:
        """Whether a named image was made of this one, or is it."""
        store = self._shop.store
        for name in self._job.options.cache_from:
            with contextlib.suppress(NotFound, InvalidParameter):
                other = store.get(name)
                while other.id != image.id and other.parent:
                    other = store.get(other.parent)
                if other.id == image.id:
                    return True
        return False

    def begin(self, image: Image | None) -> list[str]:
        """Stand on an image; return its triggers, which are the first steps."""
        if image is not None:
            self._stand_on(image)
        self.config = image.config.config if image else ContainerConfig()
        self._platform = image.config.platform if image else self._platform
        triggers = list(self.config.OnBuild or ())
        self._edit(OnBuild=None)
        if "PATH" not in environment(self.config):
            self._edit(Env=[*(self.config.Env or []), DEFAULT_PATH])
        return triggers

    async def step(self, step: ins.Instruction) -> None:
        """Do one instruction, and tell of it. Raises PierError."""
        if reads_context(step):
            await self._job.context.ready()  # not part of the step's own time
        work = self._told = self._vertexes.step(step, self._values())
        try:
            await self._do(step)
        except BaseException as exc:
            if isinstance(exc, Exception):
                self._job.failures.append(Failure(step, work.digest if work else "", exc))
            if work is not None:
                work.done(error=error_of(exc))
            raise
        if work is not None:
            work.done()

    async def _do(self, step: ins.Instruction) -> None:
        self._shown = step.original
        match step:
            case ins.Run():
                await self._run(step)
            case ins.Copy() | ins.Add():
                await self._files(step)
            case ins.Workdir():
                await self._workdir(step)
            case ins.Arg():
                await self._arg(step)
            case ins.Maintainer():
                self.author = step.author
                await self._configured(note(self.config.Shell, f"MAINTAINER {step.author}"))
            case _:
                await self._configure(step)
        self._output.stream(f" ---> {short(self.image.id) if self.image else ''}\n")

    def _stand_by(self, image: Image) -> None:
        # Until the build is over: somebody may prune images that have no name yet.
        self._job.pins.add(*image.chain_ids, *image.blobs)

    def _stand_on(self, image: Image) -> None:
        self._stand_by(image)
        self.image = image

    def _edit(self, **fields: object) -> None:
        # A config is an image's as well: it is never edited in place.
        self.config = replace(self.config, **fields)

    def _expander(self) -> Expander:
        return Expander(self._values(), escape=self._job.escape)

    def _values(self) -> dict[str, str]:
        return self.arguments.values() | environment(self.config)

    # Config

    async def _configure(self, step: ins.Instruction) -> None:
        expander = self._expander()
        config = replace(self.config)
        shell = config.Shell
        match step:
            case ins.Expose():
                ports = [word for port in step.ports for word in expander.words(port)]
                text = configure.expose(config, ins.Expose(ports=ports))
            case ins.Entrypoint():
                text = configure.entrypoint(config, step, cmd_set=self._cmd_set)
            case _:
                text = configure.edit(config, expanded(step, expander.word))
        self._cmd_set = self._cmd_set or isinstance(step, ins.Cmd)
        if isinstance(step, ins.Shell):
            shell = config.Shell
        self.config = config
        await self._configured(note(shell, text))

    async def _arg(self, step: ins.Arg) -> None:
        expander = self._expander()
        words = []
        for name, default in step.values:
            value = None if default is None else expander.word(default)
            self.arguments.declare(name, value)
            words.append(name if value is None else f"{name}={value}")
            expander = self._expander()
        await self._configured(note(self.config.Shell, "ARG " + " ".join(words)))

    def _made_of(
        self, kind: str, named: Mapping[str, object], files: Mapping[str, str] | None = None
    ) -> None:
        """Say what the next step is made of, under names: see `explain`."""
        parent = self.image.id if self.image else ""
        texts = [(name, text_of(value)) for name, value in named.items()]
        self._inputs = Inputs(kind, parent, texts, files or {})

    async def _why(self) -> str:
        """Say why the step at hand missed the cache."""
        if self.cache_lost:
            said = "--no-cache" if not self._job.options.use_cache else "--no-cache-filter"
            return f"{said} was given"
        inputs = self._inputs
        if inputs is None:
            return "no build before had such a step"
        known = await finished(self._shop.executor, self._shop.cache.known_inputs)
        base = "the base image" if not self._is_past_base else "the step before it"
        return why(inputs, known, base=base)

    async def _configured(self, created_by: str) -> None:
        self._made_of("config", {"instruction": created_by})
        await self._made(created_by, [created_by, self.config, self.author], None)

    # Files

    async def _workdir(self, step: ins.Workdir) -> None:
        config = replace(self.config)
        step = ins.Workdir(path=self._expander().word(step.path))
        text = file_note(config.Shell, configure.workdir(config, step))
        self.config = config

        async def make() -> str:
            return await self._work(lambda fd: make_directory(fd, config.WorkingDir))

        await self._made(text, [text, config], make)

    async def _files(self, step: ins.Copy | ins.Add) -> None:
        source = self.sources.get(step.stage) if isinstance(step, ins.Copy) else None
        expander = self._expander()
        wanted = files.expand(step, expander)
        if isinstance(step, ins.Add):
            checksum = expander.word(step.checksum)
            session, private = self._job.options.session, self._shop.private
            fetcher = Fetcher(self._job.context, session, private)
            wanted = await files.fetched(wanted, checksum, fetcher)
        with contextlib.ExitStack() as stack:
            load = partial(files.gather, stack, wanted, self._job.context, self._shop.store, source)
            found = await finished(self._shop.executor, load)
            text = file_note(self.config.Shell, f"{step.name} {found.words}")

            what: list[object] = [text, found.details]
            named = {"destination": f"{found.chown} {found.target}", "options": found.details}
            self._made_of(step.name, named | {"files": found.summed}, found.files)
            if wanted.step.link:
                await self._linked(text, what, found)
                return

            async def make() -> str:
                return await self._work(partial(files.put, found, self.config))

            await self._made(text, what, make, says_all=not any(found.details[:3]))

    async def _linked(self, text: str, what: list[object], found: files.Found) -> None:
        """COPY and ADD --link: a layer that is the same whatever it stands on, and so it is made
        again only when the files change, not when something below does.
        """
        shop, parent = self._shop, self.image
        look_up = partial(files.owner_in, shop.store, parent, found.chown)
        owner = await finished(shop.executor, look_up)
        place = configure.resolve(self.config, found.target)
        key = key_of(None, ["LINK", *what, owner, place, self._job.epoch])

        async def make() -> str:
            layer = self._in_own_cache(key)
            directory = self._job.context.directory()
            if layer is not None:
                self._stand_by(layer)
                copy = partial(copy_layer, shop.store, layer.chain_ids[-1], directory)
                self._output.stream(" ---> Using the layer of an earlier build\n")
                return await finished(shop.executor, copy)
            put = partial(files.put, replace(found, chown=owner), self.config)
            return await finished(shop.executor, partial(work_on, (), directory, put))

        await self._made(text, ["LINK", *what, owner], make)
        chain = parent.chain_ids if parent else ()
        if self.image is not None and len(self.image.chain_ids) > len(chain):
            shop.cache.add(key, self.image, parent, text)

    async def _work(self, work: Callable[[int], None]) -> str:
        """Do something to the stage's files in a thread; return the upper directory."""
        store, image = self._shop.store, self.image
        chain = reversed(image.chain_ids) if image else ()
        layers = [store.root.join(store.layers.path(chain_id)) for chain_id in chain]
        directory = self._job.context.directory()
        return await finished(self._shop.executor, partial(work_on, layers, directory, work))

    # Commands

    async def _run(self, step: ins.Run) -> None:
        word = self._expander().word
        options = self._job.options
        network, is_privileged = self._rights(step, word)
        asked = [word(text) for text in step.mounts]
        mounts = [parse_mount(text) for text in asked]
        self._job.cache_mounts.update(step_mounts.cache_names(mounts, self.sources))
        load = partial(step_mounts.inputs, mounts, self._job.context, self.sources)
        read = await finished(self._shop.executor, load) if mounts else []
        written, script = files.with_heredocs(step.command)
        command = shell_words(self.config, written)
        given = self.arguments.environment(environment(self.config))
        recorded = self.arguments.recorded(given)
        text = run_words(command, recorded)

        async def make() -> str:
            image = self.image or await self._base()
            async with contextlib.AsyncExitStack() as stack:
                directory = self.config.WorkingDir
                ready = await step_mounts.prepare(stack, mounts, self._surroundings(), directory)
                if script is not None:
                    ready.mounts.append(step_mounts.script(script, self._job.context))
                wanted = Step(
                    image=image,
                    command=command,
                    environment=[f"{name}={value}" for name, value in given.items()],
                    network=network,
                    extra_hosts=options.extra_hosts,
                    security_opts=options.security_opts,
                    mounts=ready.mounts,
                    tmpfs=ready.tmpfs,
                    limits=options.limits,
                    secrets=ready.environment,
                    privileged=is_privileged,
                    hostname=options.hostname,
                )
                self._stubs = ready.targets
                return await self._run_container(wanted)

        self._stubs = None
        self._made_of(
            "RUN",
            {
                "command": " ".join(command),
                "build arguments": " ".join(f"{name}={value}" for name, value in recorded.items()),
                "network": network,
                "mounts": asked,
                "content of its mounts": read,
                "heredoc": script.content if script else "",
            },
        )
        what = ["RUN", text, command, network, asked, read]
        if script is not None or is_privileged:
            what.append([script.content if script else "", is_privileged])
        says_all = not asked and script is None and not is_privileged
        await self._made(text, what, make, says_all=says_all)

    def _rights(self, step: ins.Run, word: Callable[[str], str]) -> tuple[str, bool]:
        """Return the network's name and --security=insecure. Raises PierError."""
        options = self._job.options
        security = word(step.security) or "sandbox"
        if security not in ("sandbox", "insecure"):
            raise InvalidParameter(f'security "{security}" is not valid')
        if security == "insecure" and INSECURE not in options.allowed:
            raise Forbidden(f"{INSECURE} is not allowed")
        if step.devices:
            raise Unsupported("RUN --device: devices in a build are not supported by pierd")
        network = word(step.network)
        if network not in ("", "default", "none", "host"):
            raise InvalidParameter(f'invalid network mode "{network}"')
        network = network or options.network
        if network == "host" and not (
            NETWORK_HOST in options.allowed and NETWORK_HOST in self._shop.allowed
        ):
            raise Forbidden(f"{NETWORK_HOST} is not allowed")
        return "" if network == "default" else network, security == "insecure"

    def _surroundings(self) -> step_mounts.Surroundings:
        store = self._shop.store
        return step_mounts.Surroundings(
            context=self._job.context,
            images=self.sources,
            open_image=partial(open_image, store),
            caches=self._shop.cache_mounts,
            session=self._job.options.session,
            private=self._shop.private,
            executor=self._shop.executor,
        )

    async def _base(self) -> Image:
        """An image for a container of scratch, in which there is nothing."""
        made = Made(
            parent=None, config=self.config, created_by="", platform=self._platform, epoch=0
        )
        return await self._in_thread(partial(save, self._shop.store, made, self._job.pins))

    async def _run_container(self, wanted: Step) -> str:
        options = self._job.options
        async with self._shop.runner.container(wanted) as container:
            self._output.stream(f" ---> Running in {container.id[:12]}\n")
            try:
                code = await container.run(self._written)
            except Exception as exc:
                if not options.force_remove:
                    container.keep()
                platform = wanted.image.config.platform
                if (said := foreign(exc, " ".join(wanted.command), platform)) is not None:
                    raise said from exc
                raise
            directory = self._job.context.directory()
            if code and options.shell is not None:
                changes = await container.take_changes(directory, copy=False)
                await self._let_in(wanted, changes, options.shell)
            elif code and not options.force_remove:
                container.keep()
            if code:
                raise StepFailed(" ".join(wanted.command), code)
            changes = await container.take_changes(directory, copy=not options.remove)
            if not options.remove:
                container.keep()
            shown = container.id[:12]
        if options.remove:
            self._output.stream(f" ---> Removed intermediate container {shown}\n")
        return changes

    async def _let_in(self, failed: Step, changes: str, tell: Callable[[str], None]) -> None:
        """Have a shell in a step's state, with its mounts, until whoever is let in leaves it."""
        made = replace(
            self._plain("", self.image), upper=changes, stubs=list(self._stubs or ()), epoch=0
        )
        image = await self._in_thread(partial(save, self._shop.store, made, self._job.pins))
        shell = list(self.config.Shell or DEFAULT_SHELL)[:1]
        terminal = self._job.options.has_terminal
        step = replace(failed, image=image, command=shell, interactive=True, has_terminal=terminal)
        try:
            async with self._shop.runner.container(step) as container:
                tell(container.id)
                await container.lend()
        finally:
            self._shop.runner.discard(image)

    def _written(self, data: bytes, is_error: bool) -> None:
        self._output.written(data, is_error)
        if self._told is not None:
            self._told.log(data, is_error=is_error)

    # Results

    async def _made(
        self,
        created_by: str,
        what: Sequence[object],
        make: Callable[[], Awaitable[str]] | None,
        *,
        says_all: bool = True,
    ) -> None:
        """Take a step's image from the cache, or make it: `make` returns its upper directory.

        `says_all` tells whether the history's words say all that makes a difference.
        """
        parent, epoch = self.image, self._job.epoch
        key = key_of(parent, [*what, epoch, str(self._platform) if parent is None else ""])
        try:
            await self._found_or_made(key, created_by, make, says_all=says_all)
        finally:
            self._inputs = None
            self._is_past_base = True

    async def _found_or_made(
        self,
        key: str,
        created_by: str,
        make: Callable[[], Awaitable[str]] | None,
        *,
        says_all: bool,
    ) -> None:
        shop, parent = self._shop, self.image
        epoch = self._job.epoch
        async with shop.cache.building(key):
            found = self._in_own_cache(key)
            if found is None and self._job.options.cache_from and not self.cache_lost:
                found = await self._from_others(created_by, key)
            if found is None and self._job.caches and not self.cache_lost:
                found = await self._from_elsewhere(created_by, key, says_all=says_all)
            self.is_cached = found is not None
            if found is not None:
                self._output.stream(" ---> Using cache\n")
                if self._told is not None:
                    self._told.done(cached=True)
                self._stand_on(found)
                return
            if self._job.options.explain is not None:
                self._job.options.explain(self._shown, await self._why())
            # As with Docker: what follows a step that was made anew is made anew as well, which
            # its parent's new ID says already.
            upper = await make() if make is not None else ""
            made = Made(
                parent=parent,
                config=self.config,
                created_by=created_by,
                platform=self._platform,
                upper=upper,
                author=self.author,
                epoch=epoch,
                stubs=self._stubs,
            )
            self._stubs = None
            image = await self._in_thread(partial(save, shop.store, made, self._job.pins))
            self._stand_on(image)
            shop.cache.add(key, image, parent, created_by, self._inputs)
            if self._inputs is None or self._inputs.kind not in ("COPY", "ADD"):
                shop.committed(image)

    async def _from_others(self, created_by: str, key: str) -> Image | None:
        """Take the step from an image of --cache-from whose history goes on from ours with it."""
        parent = self.image
        for name in self._job.options.cache_from:
            try:
                image = self._shop.store.get(name)
            except (NotFound, InvalidParameter):
                continue  # as with Docker, one that is not there helps nobody
            made = self._plain(created_by, parent)
            if self._has_others_alone and is_last_step(image, made):
                self._stand_by(image)
                return image
            found = partial(adopt, self._shop.store, image, made, self._job.pins)
            taken = await finished(self._shop.executor, found)
            if taken is not None:
                self._shop.cache.add(key, taken, parent, created_by)
                return taken
        return None

    async def _from_elsewhere(self, created_by: str, key: str, *, says_all: bool) -> Image | None:
        """Take the step from one of the caches that the build may read."""
        parent = self.image
        wanted = Wanted(key, parent, created_by, self.config, self.author, by_words=says_all)
        for cache in self._job.caches:
            taken = await cache.find(wanted, self._job.pins)
            if taken is not None:
                self._shop.cache.add(key, taken, parent, created_by)
                return taken
        return None

    def _plain(self, created_by: str, parent: Image | None) -> Made:
        return Made(
            parent=parent,
            config=self.config,
            created_by=created_by,
            platform=self._platform,
            author=self.author,
            epoch=self._job.epoch,
        )

    async def _in_thread(self, work: Callable[[], Image]) -> Image:
        return await finished(self._shop.executor, work)
