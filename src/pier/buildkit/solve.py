"""One build as BuildKit's clients ask for it: the Dockerfile read at once, the rest when it is wanted."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from pier.build.builder import Build
from pier.build.context_paths import context_paths
from pier.build.dockerfile.errors import DockerfileError
from pier.build.export.exporter import Receiver, credentials_of
from pier.build.failures import BuildFailed
from pier.build.kept_contexts import KeptContexts
from pier.build.lint.text import as_document, as_text, ordered
from pier.build.outline import outline_of, outline_text, targets_of, targets_text
from pier.build.progress import Place, Source, Warned, digest_of
from pier.build.result import BuildResult
from pier.build.several import read_all, run_all
from pier.build.snapshot import open_image
from pier.build.threads import finished
from pier.buildkit.attributes import Wanted
from pier.buildkit.board import Board
from pier.buildkit.context import SessionContext
from pier.buildkit.details import solve_error
from pier.buildkit.jobs import Solve
from pier.buildkit.session import Session
from pier.buildkit.workshop import Workshop
from pier.errors import InvalidParameter, NotFound, PierError, Unsupported
from pier.images.image import Image
from pier.registry.credentials import Credentials

T = TypeVar("T")

LINT, OUTLINE, TARGETS = "frontend.lint", "frontend.outline", "frontend.targets"


class DockerfileSolve:
    """`load` reads the Dockerfile, `result` builds. `close` ends it, whatever it is doing.

    `files` are the context and the Dockerfile, where the client gave them as a definition. `client` is
    asked for passwords, and for what it offers to be taken.
    """

    def __init__(
        self,
        workshop: Workshop,
        trees: KeptContexts,
        session: Session | None,
        wanted: Wanted,
        board: Board,
        *,
        client: Receiver | None,
        files: Solve | None = None,
    ) -> None:
        self._files = files
        self._workshop = workshop
        self._client = client
        self._wanted = wanted
        self._board = board
        self._shop = workshop.shop(self._credentials)
        self._context = SessionContext(
            workshop.root,
            session,
            trees,
            self._shop,
            key=wanted.context_key,
            dockerfile_key=wanted.dockerfile_key,
            uploader=client,
        )
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self._context)
        self._builds: Sequence[Build] = ()
        self._task: asyncio.Task[BuildResult] | None = None
        self._source: Source | None = None
        self._key = ""

    async def load(self, key: str) -> None:
        """Read the Dockerfile; raise GrpcError for what is wrong with it. `key` names the build."""
        self._key = key
        options = self._wanted.options
        context = self._context
        try:
            if self._files is not None:
                context.take_files(await self._files.look(os.dup), options.dockerfile)
            elif self._wanted.context:
                await context.fetch(self._wanted.context, options, self._board, key)
            else:
                await context.load(options.dockerfile, self._board, key)
            read = partial(read_all, self._shop, context, options)
            self._builds = await finished(self._shop.executor, read)
            self._source = Source(context.dockerfile, self._builds[0].source.encode())
            context.follow = context_paths(self._builds[0].plan)
        except PierError as exc:
            self._source = self._source or Source(context.dockerfile, context.text)
            raise self._failed(exc) from exc

    async def _credentials(self, domain: str) -> Credentials:
        return await credentials_of(self._client, domain)

    async def warn(self) -> None:
        """Tell what the lint checks find in what is built. Raises GrpcError where it is an error."""
        try:
            found = await finished(self._shop.executor, self._builds[0].findings)
        except PierError as exc:
            raise self._failed(exc) from exc
        vertex = digest_of(f"[internal] load build definition from {self.name}", self._key)
        for finding in ordered(found):
            self._board.warn(
                Warned(
                    vertex=vertex,
                    short=finding.short,
                    detail=[finding.rule.description],
                    url=finding.rule.url,
                    source=self._source,
                    places=[Place(finding.first, finding.last)],
                )
            )

    async def answer(self, request: str) -> dict[str, bytes]:
        """Return what was asked for instead of a build, as the frontend's requests do."""
        if request == LINT:
            return await self._lint()
        build = self._builds[0]
        if request == OUTLINE:
            document = outline_of(build.file, build.plan)
            text = outline_text(document)
        else:
            document = targets_of(build.file)
            text = targets_text(document)
        # Bytes to BuildKit's clients, and so base64.
        sources = [str(source).encode() for source in document.get("sources", ())]
        document = {**document, "sources": sources}
        return {
            "result.json": msgspec.json.encode(document),
            "result.txt": text.encode(),
            "version": b"1.0.0",
        }

    async def _lint(self) -> dict[str, bytes]:
        everywhere = partial(self._builds[0].findings, everywhere=True)
        try:
            found = await finished(self._shop.executor, everywhere)
        except PierError as exc:
            raise self._failed(exc) from exc
        source = self._source
        assert source is not None
        document = as_document(found, source.filename, source.data)
        text = as_text(found, source.filename, source.data.decode("utf-8", "replace"))
        return {
            "result.json": msgspec.json.encode(document),
            "result.txt": text.encode(),
            "result.statuscode": b"1" if found else b"0",
            "version": b"1.0.0",
        }

    @property
    def name(self) -> str:
        """The Dockerfile's."""
        return self._context.dockerfile

    def start(self) -> None:
        """Begin to build, if that is not under way."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="build")

    async def evaluate(self) -> BuildResult:
        return await self.result()

    async def result(self, config: bytes = b"") -> BuildResult:
        """Build, once, however many ask: the image has its own configuration.

        Raises GrpcError with the failing line.
        """
        self.start()
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def look(self, work: Callable[[int], T]) -> T:
        """Return what `work` makes of the root directory of the result, in a thread."""
        image = (await self.result()).platforms[0].image
        if image is None:
            raise NotFound("the result has no files")

        def opened(image: Image = image) -> T:
            root_fd = open_image(self._shop.store, image)
            try:
                return work(root_fd)
            finally:
                os.close(root_fd)

        return await finished(self._shop.executor, opened)

    async def _run(self) -> BuildResult:
        pins = self._stack.enter_context(self._shop.store.pinned())
        try:
            return await run_all(
                *(self._builds, self._wanted.options, _nobody, pins),
                progress=self._board,
                key=self._key,
                caches=self._workshop.caches,
                receiver=self._client,
            )
        except PierError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: Exception) -> Exception:
        places: Sequence[Place] = ()
        vertex = ""
        failures = (build.failure_of(exc) for build in self._builds)
        failure = next(filter(None, failures), None)
        if failure is not None:
            places = [Place(failure.step.first, failure.step.last)]
            vertex = failure.vertex
            if failure.reason:
                exc = BuildFailed(failure.reason)
        elif isinstance(exc, DockerfileError) and exc.line:
            places = [Place(exc.line, exc.last_line)]
        return solve_error(exc, source=self._source, places=places, vertex=vertex)

    async def close(self) -> None:
        """End it and let go of what it holds. A second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # looked at
        await self._context.stop()
        self._stack.close()


def _nobody(_record: Mapping[str, Any]) -> None:
    """The classic stream, which nobody reads here."""


def check_frontend(name: str, attributes: Mapping[str, str]) -> None:
    """Raise for a frontend that is not built in."""
    source = attributes.get("source", "") if name == "gateway.v0" else ""
    syntax = attributes.get("build-arg:BUILDKIT_SYNTAX", source)
    if name not in ("dockerfile.v0", "gateway.v0"):
        raise InvalidParameter(f"invalid frontend: {name}")
    if syntax and not syntax.removeprefix("docker.io/").startswith("docker/dockerfile"):
        raise Unsupported(f"frontend {syntax} is not supported: pierd builds Dockerfiles itself")
