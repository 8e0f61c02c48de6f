"""Named contexts (`--build-context name=…`): what a build takes under a name instead of an image.

    docker-image://REF   an image         target:STAGE   an earlier stage of the same Dockerfile
    local:KEY            a directory of the client's       https://…, git@…   an archive, a repository
    oci-layout://STORE   an image of a layout of the client's (`layouts.py`)

A directory becomes an image of one layer, so that FROM, COPY --from and RUN --mount take it as they
take others. It has no name, and goes with the build where nothing was built on it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from msgspec import Struct

from pier.build.context import IGNORE_FILE, unpack_archive
from pier.build.fetching import Fetcher
from pier.build.git import parse_git
from pier.build.ignore import read_patterns
from pier.build.layouts import OCI_LAYOUT, layout_image, parse_layout
from pier.build.session import ClientSession, need
from pier.build.snapshot import Made, save
from pier.build.threads import finished
from pier.errors import InvalidParameter, Unsupported
from pier.images.image import Image
from pier.images.store import ImageStore, Pins
from pier.model.container import ContainerConfig
from pier.model.platform import Platform
from pier.model.reference import parse_reference

DOCKER_IMAGE, LOCAL, TARGET = "docker-image://", "local:", "target:"
_WEB = ("http://", "https://")


class Means(Struct, frozen=True):
    """What contexts are got with. `pull` finds an image, or pulls it; `directory` makes an empty
    directory that goes with the build.
    """

    store: ImageStore
    pins: Pins
    fetcher: Fetcher
    session: ClientSession | None
    pull: Callable[[str, Platform | None], Awaitable[Image]]
    executor: Executor
    directory: Callable[[], str]


class NamedContexts:
    """`values` are by name, as a client gives them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {_key(name): value for name, value in values.items()}
        self._made: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._own: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._values

    def stage_of(self, name: str) -> str:
        """Return the stage that a name stands for, the name itself for others."""
        value = self._values.get(_key(name), "")
        return value.removeprefix(TARGET) if value.startswith(TARGET) else name

    async def image(self, name: str, platform: Platform, means: Means) -> Image:
        """Return a context's image, made once a build. Raises PierError, OSError."""
        key = (_key(name), str(platform))
        if key not in self._made:
            work = self._make(name, self._values[key[0]], platform, means)
            self._made[key] = asyncio.create_task(work, name=f"build context {name}")
        return await asyncio.shield(self._made[key])

    async def close(self, store: ImageStore, discard: Callable[[Image], None]) -> None:
        """End what is under way, and remove what nothing was built on, by `discard`."""
        for task in self._made.values():
            task.cancel()
        if self._made:
            await asyncio.wait(self._made.values())
        for task in self._made.values():
            if not task.cancelled():
                task.exception()  # looked at
        for image_id in self._own:
            if image_id in store and not store.children(image_id):
                image = store.get(image_id)
                if not image.references and not store.is_pinned(image_id):
                    discard(image)

    async def _make(self, name: str, value: str, platform: Platform, means: Means) -> Image:
        if value.startswith(DOCKER_IMAGE):
            return await means.pull(value.removeprefix(DOCKER_IMAGE), platform)
        if value.startswith(OCI_LAYOUT):
            return await self._layout(name, value, platform, means)
        path = await self._directory(name, value, means)
        made = Made(
            parent=None,
            config=ContainerConfig(),
            created_by=f"context {name}",
            platform=platform,
            upper=path,
            epoch=0,
        )
        image = await finished(means.executor, partial(save, means.store, made, means.pins))
        means.pins.add(*image.chain_ids, *image.blobs)
        self._own.add(image.id)
        return image

    async def _layout(self, name: str, value: str, platform: Platform, means: Means) -> Image:
        image = await layout_image(
            parse_layout(value),
            platform,
            session=need(means.session, f"context {name}"),
            store=means.store,
            pins=means.pins,
            executor=means.executor,
            directory=means.directory,
        )
        means.pins.add(image.id, *image.chain_ids, *image.blobs)
        self._own.add(image.id)
        return image

    async def _directory(self, name: str, value: str, means: Means) -> str:
        if (git := parse_git(value)) is not None:
            return (await means.fetcher.checkout(git)).path
        into = os.path.join(means.directory(), "files")
        os.mkdir(into, 0o755)
        if value.startswith(LOCAL):
            await _from_client(means, value.removeprefix(LOCAL), into)
        elif value.startswith(_WEB):
            thing = await means.fetcher.file(value, "", "archive")
            archive = os.path.join(thing.directory, thing.name)
            await finished(means.executor, partial(unpack_archive, archive, into))
        elif "://" in value or value.startswith("input:"):
            raise Unsupported(f"unsupported context source {value.partition(':')[0]} for {name}")
        else:
            raise InvalidParameter(f"invalid context value {value} for {name}")
        return into


async def _from_client(means: Means, key: str, into: str) -> None:
    session = need(means.session, f"context {key}")
    rules = means.directory()
    await session.local(key, rules, include=[IGNORE_FILE])
    await session.local(key, into, exclude=_patterns(os.path.join(rules, IGNORE_FILE)))


def _patterns(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return read_patterns(file.read())
    except OSError:
        return []


def _key(name: str) -> str:
    try:
        return parse_reference(name).tagged().familiar
    except InvalidParameter:
        return name.lower()
