"""What a build has come to: an image for each platform, and what provenance says of how.

The seam between frontends, which fill it, and exporters (`build/export/`), which make of it what
the client asked for.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from pier.images.image import Image
from pier.model.platform import Platform


class Material(Struct, frozen=True):
    """Something that was read: `uri` is a package URL, or where it came from; `digests` has hex."""

    uri: str
    digests: Mapping[str, str]


class StepTimes(Struct, frozen=True):
    """One step that was done. Times are ns since the epoch; `name` as progress shows it.

    `size` is what its layer has in bytes, `error` what it failed with.
    """

    name: str
    started: int
    ended: int
    is_cached: bool
    size: int = 0
    error: str = ""


class PlatformResult(Struct, frozen=True):
    """`image` None is scratch with nothing in it; `base` is what the last stage began with.

    `materials` and `steps` are in order, each once. `stages` are what all stages that were built
    came to.
    """

    platform: Platform
    image: Image | None
    base: Image | None = None
    materials: Sequence[Material] = ()
    steps: Sequence[StepTimes] = ()
    stages: Sequence[Image] = ()


class Definition(Struct, frozen=True):
    """What was asked for, for provenance.

    `attributes` are those of the frontend as BuildKit names them (`build-arg:X`, `target`,
    `label:X`, …); `dockerfile` is its name and `source` its text, both "" for a definition without
    one. `remote` is a remote context's URL. `secrets` and `agents` are IDs that were asked for.
    """

    frontend: str = "dockerfile.v0"
    attributes: Mapping[str, str] = {}
    dockerfile: str = "Dockerfile"
    source: str = ""
    locals: Sequence[str] = ("context", "dockerfile")
    remote: str = ""
    secrets: Sequence[str] = ()
    agents: Sequence[str] = ()


class BuildResult(Struct, frozen=True):
    """`is_list` asks for an index whatever the number of platforms.

    `epoch` is SOURCE_DATE_EPOCH in seconds. `provenance` and `sbom` are the fields of
    `attest:provenance` and `attest:sbom` (`mode`, `version`, `inline-only`, …), None for no such
    attestation. `inline_cache` is what each
    platform's image carries of its own cache, empty for none. `cache_answer` are the answer's keys that
    speak of caches written elsewhere.
    """

    platforms: Sequence[PlatformResult]
    is_list: bool = False
    definition: Definition = Definition()
    started: int = 0
    ended: int = 0
    epoch: int | None = None
    provenance: Mapping[str, str] | None = None
    sbom: Mapping[str, str] | None = None
    inline_cache: Sequence[bytes] = ()
    cache_answer: Mapping[str, str] = {}


class Order(Struct, frozen=True):
    """One output that was asked for: `id` is the exporter's in the client's session, often ""."""

    type: str
    attributes: Mapping[str, str] = {}
    id: str = ""
