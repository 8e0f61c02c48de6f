"""A definition of LLB solved: its operations run as soon as their inputs are there, each once.

What one comes to is found in the build cache by its definition and by what its inputs hold, so that
the same work on the same files is not done again, whatever those files came from.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from pier.build.cache import key_of
from pier.build.context import Context
from pier.build.export.exporter import credentials_of
from pier.build.kept_contexts import KeptContexts
from pier.build.progress import Progress, Vertex, Work, error_of
from pier.build.result import BuildResult, Definition, PlatformResult
from pier.build.session import ClientSession
from pier.build.threads import finished
from pier.buildkit.details import solve_error
from pier.buildkit.llb import fileop, layers
from pier.buildkit.llb.execute import Execution, check_outputs
from pier.buildkit.llb.files import SCRATCH, Files, Solving, as_image, identity_of, open_files
from pier.buildkit.llb.graph import Edge, Node, read_graph
from pier.buildkit.llb.image import dress
from pier.buildkit.llb.sources import Sources
from pier.buildkit.messages import ops
from pier.buildkit.workshop import Workshop
from pier.errors import InvalidParameter, PierError, Unsupported
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.platform import Platform, host_platform
from pier.registry.credentials import ANONYMOUS, Credentials

T = TypeVar("T")


class LlbSolve:
    """`start` and `result` solve it, `close` ends it, whatever it is doing.

    `allowed` are entitlements, "network.host" and "security.insecure". Raises InvalidParameter for
    a definition that is none.
    """

    def __init__(
        self,
        workshop: Workshop,
        trees: KeptContexts,
        session: ClientSession | None,
        definition: ops.Definition,
        progress: Progress,
        *,
        allowed: Sequence[str] = (),
    ) -> None:
        self._graph = read_graph(definition)
        self._session = session
        shop = workshop.shop(self._credentials)
        self._shop = shop
        self._stack = contextlib.ExitStack()
        scratch = self._stack.enter_context(Context(workshop.root))
        pins = self._stack.enter_context(shop.store.pinned())
        self._solving = Solving(
            shop, scratch, pins, progress, session, host_platform(), list(allowed)
        )
        self._sources = Sources(self._solving, trees, self._stack)
        self._tasks: dict[str, asyncio.Task[list[Files]]] = {}
        self._task: asyncio.Task[Files] | None = None

    async def _credentials(self, domain: str) -> Credentials:
        return ANONYMOUS if self._session is None else await credentials_of(self._session, domain)

    def start(self) -> None:
        """Begin to solve, if that is not under way."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="llb solve")

    async def files(self) -> Files:
        """Solve, once, however many ask. Raises GrpcError."""
        self.start()
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def evaluate(self) -> Files:
        return await self.files()

    async def look(self, work: Callable[[int], T]) -> T:
        """Return what `work` makes of the root directory of the result, in a thread."""
        files = await self.files()

        def opened() -> T:
            root_fd = open_files(self._solving, files)
            try:
                return work(root_fd)
            finally:
                os.close(root_fd)

        return await finished(self._shop.executor, opened)

    async def result(self, config: bytes = b"") -> BuildResult:
        """Return an image of the files; `config` is an image's configuration for it, in JSON."""
        files = await self.files()
        solving = self._solving
        try:
            image = await as_image(solving, files, "llb")
            platform = image.config.platform if image else solving.platform
            make = partial(dress, self._shop.store, image, config, platform, solving.pins)
            dressed = solving.held(await finished(self._shop.executor, make))
            # Without a name it goes when the cache is pruned, as what a Dockerfile comes to.
            what = ["LLB image", dressed.id]
            self._shop.cache.add(key_of(image, what), dressed, image, "exported image")
        except PierError as exc:
            raise solve_error(exc, source=None, places=()) from exc
        one = PlatformResult(dressed.config.platform, dressed)
        return BuildResult([one], definition=Definition(frontend="", dockerfile="", locals=()))

    async def close(self) -> None:
        """End it and let go of what it holds. A second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # looked at
        self._stack.close()

    async def _run(self) -> Files:
        graph = self._graph
        works = {digest: self._announced(node) for digest, node in graph.nodes.items()}
        for digest, node in graph.nodes.items():
            task = asyncio.create_task(self._node(node, works[digest]), name=f"llb {node.kind}")
            self._tasks[digest] = task
        try:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            for task in self._tasks.values():
                if task.done():
                    task.result()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.wait(self._tasks.values())
        return self._output(graph.result)

    def _announced(self, node: Node) -> Work:
        inputs = list(dict.fromkeys(edge.digest for edge in node.inputs))
        vertex = Vertex(node.digest, node.name, inputs)
        self._solving.progress.vertex(vertex)
        return Work(self._solving.progress, vertex)

    def _output(self, edge: Edge) -> Files:
        outputs = self._tasks[edge.digest].result()
        if edge.index >= len(outputs):
            raise InvalidParameter(f"invalid output index {edge.index} of {edge.digest}")
        return outputs[edge.index]

    async def _node(self, node: Node, work: Work) -> list[Files]:
        for edge in node.inputs:
            await asyncio.wait([self._tasks[edge.digest]])
            if self._tasks[edge.digest].cancelled() or self._tasks[edge.digest].exception():
                raise asyncio.CancelledError  # the input's failure is what is told
        work.begin()
        try:
            inputs = [self._output(edge) for edge in node.inputs]
            found, is_cached = await self._outputs(node, inputs, work)
        except (PierError, OSError) as exc:
            work.done(error=error_of(exc))
            raise solve_error(
                exc, source=node.source, places=node.places, vertex=node.digest
            ) from exc
        except BaseException as exc:
            work.done(error=error_of(exc))
            raise
        work.done(cached=is_cached)
        return found

    # One operation

    async def _outputs(
        self, node: Node, inputs: Sequence[Files], work: Work
    ) -> tuple[list[Files], bool]:
        """Return what it comes to, and whether that was found. Raises PierError, OSError."""
        op = node.op
        if op.constraints is not None and op.constraints.filter:
            raise Unsupported("constraints of workers are not supported by pierd")
        if op.source is not None:
            return [await self._sources.get(op.source, _platform(op), work)], False
        if op.build is not None:
            raise Unsupported("build operations of LLB are not supported by pierd")
        if op.exec is not None:
            check_outputs(op.exec)
            count = Execution.outputs(op.exec)
        else:
            count = fileop.outputs(op.file) if op.file is not None else 1
        if not count:
            return [], False
        key = await finished(self._shop.executor, partial(_key, self._solving, node, inputs))
        cache = self._shop.cache
        async with cache.building(key):
            keys = [key_of(None, ["LLB output", key, number]) for number in range(count)]
            images = [cache.find(one) for one in keys] if node.use_cache else []
            known = [image for image in images if image is not None]
            if known and len(known) == count:
                return [Files(self._solving.held(image)) for image in known], True
            made = await self._made(node, inputs, work)
            for one, files in zip(keys, made, strict=True):
                if files.image is not None:
                    cache.add(one, files.image, _parent(files.image, self._shop.store), node.name)
        return made, False

    async def _made(self, node: Node, inputs: Sequence[Files], work: Work) -> list[Files]:
        op, solving, name = node.op, self._solving, node.name
        solving = replace(solving, platform=_platform(op))
        if op.exec is not None:
            return await Execution(solving, op.exec, inputs, name).run(work)
        if op.file is not None:
            return await fileop.FileWork(solving, op.file, inputs, name).run()
        if op.merge is not None:
            chosen = [_input(inputs, one.input) for one in op.merge.inputs]
            return [await layers.merge(solving, chosen, name)]
        assert op.diff is not None
        lower = _input(inputs, op.diff.lower.input) if op.diff.lower else SCRATCH
        upper = _input(inputs, op.diff.upper.input) if op.diff.upper else SCRATCH
        return [await layers.diff(solving, lower, upper, name)]


def _input(inputs: Sequence[Files], index: int) -> Files:
    if index == -1:
        return SCRATCH
    if not 0 <= index < len(inputs):
        raise InvalidParameter(f"invalid input index {index}")
    return inputs[index]


def _parent(image: Image, store: ImageStore) -> Image | None:
    return store.get(image.parent) if image.parent and image.parent in store else None


def _platform(op: ops.Op) -> Platform:
    given = op.platform
    if given is None or not given.Architecture:
        return host_platform()
    return Platform(architecture=given.Architecture, os=given.OS, variant=given.Variant)


def _key(solving: Solving, node: Node, inputs: Sequence[Files]) -> str:
    """What makes an operation what it is: all that its definition says but where the inputs are
    from, and what the inputs hold. Blocking. Raises PierError, OSError.
    """
    op = node.op
    said = replace(op, inputs=[], platform=None)
    if said.exec is not None and said.exec.meta is not None:
        # As BuildKit: a proxy is no reason to do it again.
        said = replace(said, exec=replace(said.exec, meta=replace(said.exec.meta, proxy_env=None)))
    if op.file is not None:
        held = fileop.contents(solving, op.file, inputs)
    else:
        held = [identity_of(files) for files in inputs]
    return key_of(None, ["LLB", said.encode().hex(), held, str(_platform(op))])
