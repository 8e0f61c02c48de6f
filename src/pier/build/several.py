"""A build for several platforms: the same Dockerfile once for each, side by side, one result.

Steps that are the same for all (stages with --platform=$BUILDPLATFORM) are made once: the second
build finds them in the cache, or waits for the first.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from pier.build.builder import Build, Builder
from pier.build.caches.remote import RemoteCaches
from pier.build.context import Context
from pier.build.export.exporter import Receiver
from pier.build.options import BuildOptions, attributes_of
from pier.build.progress import SILENT, Progress
from pier.build.result import BuildResult, Definition, PlatformResult
from pier.build.runner import Tell
from pier.build.stage import Shop
from pier.images.store import Pins


def read_all(shop: Shop, context: Context, options: BuildOptions) -> list[Build]:
    """Read the context's Dockerfile for each platform. Blocking. Raises PierError."""
    builder = Builder(shop)
    if not options.platforms:
        return [builder.read(context, options)]
    return [
        builder.read(context, replace(options, platform=platform)) for platform in options.platforms
    ]


INLINE_ARGUMENT = "BUILDKIT_INLINE_CACHE"


async def run_all(
    builds: Sequence[Build],
    options: BuildOptions,
    tell: Tell,
    pins: Pins,
    *,
    progress: Progress = SILENT,
    key: str = "",
    caches: RemoteCaches | None = None,
    receiver: Receiver | None = None,
) -> BuildResult:
    """Run them to their ends; the first failure ends all. `tell` hears one after another.

    `key` tells the build's vertexes from those of others. `pins` keep the images' content until they are the caller's to let go. Raises PierError.
    """
    started = time.time_ns()
    heard = _Turns(tell, len(builds))

    async def one(number: int, build: Build) -> PlatformResult:
        read = options.cache_imports if caches is not None else ()
        found = (
            await caches.read(read, receiver, build.platform, progress) if caches and read else ()
        )
        whose = f"{key}\0{build.platform}" if len(builds) > 1 else key
        image = await build.run(heard.teller(number), progress=progress, key=whose, caches=found)
        # Not its manifests: an output may give it others, and let go of those.
        pins.add(image.id, *image.chain_ids)
        heard.done(number)
        return build.outcome(image)

    tasks = [
        asyncio.create_task(one(number, build), name=f"build for {build.platform}")
        for number, build in enumerate(builds)
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for number, task in enumerate(tasks):
            if task.done() and task.exception() is not None:
                heard.speak(number)
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    platforms = [task.result() for task in tasks]
    images = [one.image for one in platforms if one.image is not None]
    inline: Sequence[bytes] = ()
    answer: dict[str, str] = {}
    if caches is not None:
        stages = [image for one in platforms for image in one.stages]
        exports = options.cache_exports
        answer = await caches.write(exports, images, stages, receiver, progress)
        if _is_inline(options):
            inline = [await caches.inline([image], pins) for image in images]
    return BuildResult(
        platforms,
        is_list=options.is_list or len(tasks) > 1,
        definition=_definition(options, builds[0]),
        started=started,
        ended=time.time_ns(),
        epoch=builds[0].epoch,
        provenance=options.provenance,
        sbom=options.sbom,
        inline_cache=inline,
        cache_answer=answer,
    )


def _is_inline(options: BuildOptions) -> bool:
    """Tell whether images shall carry their cache: `--cache-to type=inline`, or what came before."""
    given = options.arguments.get(INLINE_ARGUMENT) or ""
    return given in ("1", "true") or any(e.type == "inline" for e in options.cache_exports)


def _definition(options: BuildOptions, build: Build) -> Definition:
    attributes = options.frontend_attributes
    if attributes is None:
        attributes = attributes_of(options)
    remote = options.remote or attributes.get("context", "")
    return Definition(
        attributes=attributes,
        dockerfile=options.dockerfile or "Dockerfile",
        source=build.source,
        remote=remote,
        locals=() if remote else ("context", "dockerfile"),
    )


class _Turns:
    """Holds back what later builds tell until those before them have ended."""

    def __init__(self, tell: Tell, count: int) -> None:
        self._tell = tell
        self._held: list[list[Mapping[str, Any]]] = [[] for _ in range(count)]
        self._done = [False] * count
        self._turn = 0

    def teller(self, number: int) -> Tell:
        def told(record: Mapping[str, Any]) -> None:
            if number == self._turn:
                self._tell(record)
            else:
                self._held[number].append(record)

        return told

    def done(self, number: int) -> None:
        self._done[number] = True
        while self._turn < len(self._done) and self._done[self._turn]:
            self.speak(self._turn + 1)

    def speak(self, number: int) -> None:
        """Give a build the turn, whatever those before it do."""
        self._turn = number
        if number < len(self._held):
            for record in self._held[number]:
                self._tell(record)
            self._held[number].clear()
