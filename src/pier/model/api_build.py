"""Answers of the build routes (docker-engine-api-v1.51.yaml, `BuildCache`, /build/prune)."""

from msgspec import Struct


class BuildCacheRecord(Struct):
    """`Size` is the bytes of the step's own layer; times RFC 3339."""

    ID: str
    Description: str
    Type: str = "regular"
    InUse: bool = False
    Shared: bool = False
    Size: int = 0
    CreatedAt: str = ""
    LastUsedAt: str | None = None
    UsageCount: int = 0
    Parents: list[str] | None = None


class BuildPruneResponse(Struct):
    CachesDeleted: list[str]
    SpaceReclaimed: int


class BuildStepRecord(Struct):
    """Pier's own: one instruction that was done. Times are ns since the epoch, `Size` bytes."""

    Name: str
    Started: int
    Ended: int
    Cached: bool = False
    Size: int = 0
    Error: str = ""


class BuildRecord(Struct):
    """Pier's own: a build that is over. `Status` is completed, error or canceled."""

    ID: str
    Name: str
    Started: int
    Ended: int
    Status: str
    Error: str = ""
    Image: str = ""
    Tags: list[str] = []
    Target: str = ""
    Platforms: list[str] = []
    Steps: list[BuildStepRecord] = []
