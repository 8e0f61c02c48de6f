"""Answers of the image routes (docker-engine-api-v1.51.yaml, tag Image)."""

from msgspec import UNSET, Raw, Struct, UnsetType, field

from pier.model.api_containers import GraphDriver
from pier.model.container import Empty, HealthConfig
from pier.model.gotime import ZERO_TIME
from pier.model.oci import Descriptor
from pier.model.platform import Platform


class PullIdentity(Struct):
    Repository: str


class Identity(Struct, omit_defaults=True):
    """Where an image is known to come from: the repositories it was pulled from or pushed to."""

    Pull: list[PullIdentity] = []


class ManifestSize(Struct):
    """In bytes: `Content` is blobs, `Total` with what is unpacked of them."""

    Total: int
    Content: int


class UnpackedSize(Struct):
    Unpacked: int


class ManifestImageData(Struct):
    """`Containers` are the IDs of those that were made of this platform's image."""

    Platform: Platform
    Containers: list[str]
    Size: UnpackedSize
    Identity: "Identity | UnsetType" = UNSET


class ImageManifestSummary(Struct, omit_defaults=True):
    """One manifest of an image; `ID` is its digest, `Kind` image, attestation or unknown."""

    ID: str
    Descriptor: Descriptor
    Available: bool
    Size: ManifestSize
    Kind: str
    ImageData: ManifestImageData | None = None


class ImageSummary(Struct):
    """One row of GET /images/json. Sizes are in bytes, `Created` in seconds.

    `SharedSize` and `Containers` are -1 when they were not counted.
    """

    Id: str
    ParentId: str
    RepoTags: list[str]
    RepoDigests: list[str]
    Created: int
    Size: int
    SharedSize: int
    Labels: dict[str, str] | None
    Containers: int
    Manifests: "list[ImageManifestSummary] | UnsetType" = UNSET


class InspectedImageConfig(Struct):
    """The part of an image's config that containers inherit.

    dockerd always answers with some of the fields, empty or null, and leaves out the others.
    """

    User: str = ""
    Env: list[str] | None = None
    Entrypoint: list[str] | None = None
    Cmd: list[str] | None = None
    Volumes: dict[str, Empty] | None = None
    WorkingDir: str = ""
    Labels: dict[str, str] | None = None
    OnBuild: list[str] | None = None
    ExposedPorts: dict[str, Empty] | UnsetType = UNSET
    StopSignal: str | UnsetType = UNSET
    ArgsEscaped: bool | UnsetType = UNSET
    Healthcheck: HealthConfig | UnsetType | None = UNSET
    Shell: list[str] | UnsetType = UNSET


class RootFS(Struct):
    """`Layers` are diff IDs, lowest first."""

    Type: str
    Layers: list[str] = []


class ImageMetadata(Struct):
    LastTagTime: str = ZERO_TIME


class ImageInspect(Struct):
    """Answer of GET /images/{name}/json. `Size` in bytes, `Created` RFC 3339 with nanoseconds."""

    Id: str
    RepoTags: list[str]
    RepoDigests: list[str]
    Parent: str
    Comment: str
    Author: str
    Config: InspectedImageConfig
    Architecture: str
    Os: str
    Size: int
    GraphDriver: "GraphDriver"
    RootFS: "RootFS"
    Created: str | UnsetType = UNSET
    Variant: str | UnsetType = UNSET
    OsVersion: str | UnsetType = UNSET
    DockerVersion: str = ""
    Metadata: ImageMetadata = field(default_factory=ImageMetadata)
    Identity: "Identity | UnsetType" = UNSET
    Manifests: "list[ImageManifestSummary] | UnsetType" = UNSET


class ImageHistory(Struct):
    """One step of GET /images/{name}/history, newest first; `Id` is "<missing>" below the top.

    `Layer` is Pier's own, for who asks: the diff ID of the step's layer.
    """

    Id: str
    Created: int
    CreatedBy: str
    Tags: list[str] | None
    Size: int
    Comment: str
    Layer: str | UnsetType = UNSET


class AttestationStatement(Struct):
    """An in-toto statement attached to an image; `Statement` is there when it was asked for."""

    Descriptor: Descriptor
    PredicateType: str
    Statement: Raw | UnsetType = UNSET


class ImageDelete(Struct, omit_defaults=True):
    """What DELETE /images/{name} did: one of the two is set."""

    Untagged: str = ""
    Deleted: str = ""


class ImageChange(Struct):
    """A row of GET /pier/diff; `Kind` is 0 changed, 1 added, 2 deleted, sizes are in bytes."""

    Path: str
    Kind: int
    Size: int
    OldSize: int


class ImagePruneResponse(Struct):
    """Answer of POST /images/prune; `SpaceReclaimed` in bytes."""

    ImagesDeleted: list[ImageDelete] | None = None
    SpaceReclaimed: int = 0
