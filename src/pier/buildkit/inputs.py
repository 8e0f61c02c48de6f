"""What one build came to, as an input of another: `target:` contexts of bake.

A client gets a result's reference with a definition, which it passes on without looking into it:
ours has one source, whose identifier is the reference. Other definitions are the client's own, and solved.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from pier.build.named import DOCKER_IMAGE
from pier.build.result import BuildResult
from pier.buildkit.jobs import Jobs
from pier.buildkit.messages.ops import Definition, Input, Op, OpMetadata, SourceOp
from pier.errors import InvalidParameter, NotFound, Unsupported

_SCHEME = "pier-result://"
_INPUT = "input:"
_KEPT = 500


def definition_of(ref: str) -> Definition:
    source = Op(source=SourceOp(identifier=f"{_SCHEME}{ref}")).encode()
    digest = _digest(source)
    last = Op(inputs=[Input(digest=digest)]).encode()
    metadata = {digest: OpMetadata(caps={"source.image": True}), _digest(last): OpMetadata()}
    return Definition(ops=[source, last], metadata=metadata)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Results:
    """The images that references stand for, also of builds that are over."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._images: OrderedDict[str, str] = OrderedDict()

    def keep(self, ref: str, result: BuildResult) -> None:
        """Remember what a build for one platform came to."""
        image = result.platforms[0].image
        if len(result.platforms) == 1 and image is not None:
            self._images[ref] = image.id
            while len(self._images) > _KEPT:
                self._images.popitem(last=False)

    async def contexts(
        self,
        given: Mapping[str, str],
        inputs: Mapping[str, Definition],
        solve: Callable[[Definition], Awaitable[str]],
    ) -> dict[str, str]:
        """Return named contexts with images in the place of inputs. Raises PierError.

        `solve` makes an image of a definition that is the client's own, and returns its ID.
        """
        return {
            name: await self._image(inputs, value.removeprefix(_INPUT), solve)
            if value.startswith(_INPUT)
            else value
            for name, value in given.items()
        }

    async def _image(
        self,
        inputs: Mapping[str, Definition],
        key: str,
        solve: Callable[[Definition], Awaitable[str]],
    ) -> str:
        definition = inputs.get(key)
        if definition is None:
            raise InvalidParameter(f"invalid input {key}")
        ref = _ref_of(definition)
        if not ref:
            return f"{DOCKER_IMAGE}{await solve(definition)}"
        if ref not in self._images:
            await self._wait(ref)
        return f"{DOCKER_IMAGE}{self._images[ref]}"

    async def _wait(self, ref: str) -> None:
        job = self._jobs.get(ref.rpartition("-")[0])
        if job is None:
            raise NotFound(f"no such ref: {ref}")
        result = await job.solve_of(ref).result()
        self.keep(ref, result)
        if ref not in self._images:
            raise Unsupported("a result for several platforms is no input of another build")


def _ref_of(definition: Definition) -> str:
    """Return the reference that a definition of ours stands for, "" for one of the client's own."""
    for data in definition.ops:
        source = Op.decode(data).source
        if source is not None and source.identifier.startswith(_SCHEME):
            return source.identifier.removeprefix(_SCHEME)
    return ""
