"""What a build needs of the engine: containers for RUN, and base images from registries.

The engine implements both (`engine/build_steps.py`): this room knows no containers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

from msgspec import Struct

from pier.build.options import Limits
from pier.images.image import Image
from pier.model.container import Mount
from pier.model.platform import Platform

Tell = Callable[[Mapping[str, Any]], None]


class Step(Struct, frozen=True):
    """One RUN: `command` in a container of `image`, with variables beside those of the image. With
    a `hostname` there is no variable of that name, as in BuildKit's steps.

    `secrets` are variables that no record may have. `privileged` is --security=insecure. One that is
    `interactive` has its stdin open, and a terminal with `has_terminal`. With `read_only` the root
    cannot be written to.
    """

    image: Image
    command: Sequence[str]
    environment: Sequence[str]
    network: str
    extra_hosts: Sequence[str]
    security_opts: Sequence[str]
    mounts: Sequence[Mount]
    tmpfs: Mapping[str, str]
    limits: Limits
    secrets: Sequence[str] = ()
    privileged: bool = False
    interactive: bool = False
    has_terminal: bool = False
    hostname: str = ""
    read_only: bool = False


class Running(Protocol):
    """A step's container, made and not started. Use it in an `async with`: at its end it is gone,
    whatever it was doing, unless `keep` was called.
    """

    @property
    def id(self) -> str: ...

    async def run(self, output: Callable[[bytes, bool], None]) -> int:
        """Run it to its end; return the exit code.

        `output` is told pieces of what it writes, and whether they went to standard error. Raises
        PierError when it cannot be started.
        """
        ...

    async def lend(self) -> None:
        """Wait until somebody else, who knows its ID, has started it and it is over."""
        ...

    async def take_changes(self, directory: str, *, copy: bool) -> str:
        """Put what it changed into a directory below `directory`, which is returned: it is over.

        It is moved there, or copied for a container that is kept. Raises OSError.
        """
        ...

    def keep(self) -> None:
        """Leave the container to the user when this ends."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...


class StepRunner(Protocol):
    def container(self, step: Step) -> Running:
        """Prepare a container; it is made by entering it."""
        ...

    async def pull(self, name: str, platform: Platform | None, tell: Tell) -> None:
        """Pull an image; `tell` hears of the progress. Raises PierError."""
        ...

    def discard(self, image: Image) -> None:
        """Delete an image that nothing was built on and nobody has named."""
        ...
