"""What a worker is (buildkit api/types/worker.proto)."""

from typing import Annotated

from pier.buildkit.messages.ops import Platform
from pier.grpc.message import Message


class GCPolicy(Message):
    all: Annotated[bool, 1] = False
    keepDuration: Annotated[int, 2] = 0
    filters: Annotated[list[str], 4] = []
    reservedSpace: Annotated[int, 3] = 0
    maxUsedSpace: Annotated[int, 5] = 0
    minFreeSpace: Annotated[int, 6] = 0


class BuildkitVersion(Message):
    package: Annotated[str, 1] = ""
    version: Annotated[str, 2] = ""
    revision: Annotated[str, 3] = ""


class CDIDevice(Message):
    Name: Annotated[str, 1] = ""
    AutoAllow: Annotated[bool, 2] = False
    Annotations: Annotated[dict[str, str], 3] = {}
    OnDemand: Annotated[bool, 4] = False


class WorkerRecord(Message):
    ID: Annotated[str, 1] = ""
    Labels: Annotated[dict[str, str], 2] = {}
    platforms: Annotated[list[Platform], 3] = []
    gCPolicy: Annotated[list[GCPolicy], 4] = []
    buildkitVersion: Annotated[BuildkitVersion | None, 5] = None
    CDIDevices: Annotated[list[CDIDevice], 6] = []
