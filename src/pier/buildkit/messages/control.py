"""The service that clients build through (buildkit api/services/control/control.proto)."""

from typing import Annotated

from pier.buildkit.messages.ops import Definition, ProgressGroup, Range, SourceInfo
from pier.buildkit.messages.policy import Policy
from pier.buildkit.messages.worker import BuildkitVersion, WorkerRecord
from pier.grpc.message import TIME, Message
from pier.grpc.status import Status


class PruneRequest(Message):
    filter: Annotated[list[str], 1] = []
    all: Annotated[bool, 2] = False
    keepDuration: Annotated[int, 3] = 0
    reservedSpace: Annotated[int, 4] = 0
    maxUsedSpace: Annotated[int, 5] = 0
    minFreeSpace: Annotated[int, 6] = 0


class DiskUsageRequest(Message):
    filter: Annotated[list[str], 1] = []
    ageLimit: Annotated[int, 2] = 0


class UsageRecord(Message):
    ID: Annotated[str, 1] = ""
    Mutable: Annotated[bool, 2] = False
    InUse: Annotated[bool, 3] = False
    Size: Annotated[int, 4] = 0
    Parent: Annotated[str, 5] = ""
    CreatedAt: Annotated[int, 6, TIME] = 0
    LastUsedAt: Annotated[int, 7, TIME] = 0
    UsageCount: Annotated[int, 8] = 0
    Description: Annotated[str, 9] = ""
    RecordType: Annotated[str, 10] = ""
    Shared: Annotated[bool, 11] = False
    Parents: Annotated[list[str], 12] = []


class DiskUsageResponse(Message):
    record: Annotated[list[UsageRecord], 1] = []


class CacheOptionsEntry(Message):
    Type: Annotated[str, 1] = ""
    Attrs: Annotated[dict[str, str], 2] = {}


class CacheOptions(Message):
    ExportRefDeprecated: Annotated[str, 1] = ""
    ImportRefsDeprecated: Annotated[list[str], 2] = []
    ExportAttrsDeprecated: Annotated[dict[str, str], 3] = {}
    Exports: Annotated[list[CacheOptionsEntry], 4] = []
    Imports: Annotated[list[CacheOptionsEntry], 5] = []


class Exporter(Message):
    Type: Annotated[str, 1] = ""
    Attrs: Annotated[dict[str, str], 2] = {}


class SolveRequest(Message):
    Ref: Annotated[str, 1] = ""
    definition: Annotated[Definition | None, 2] = None
    ExporterDeprecated: Annotated[str, 3] = ""
    ExporterAttrsDeprecated: Annotated[dict[str, str], 4] = {}
    Session: Annotated[str, 5] = ""
    Frontend: Annotated[str, 6] = ""
    FrontendAttrs: Annotated[dict[str, str], 7] = {}
    Cache: Annotated[CacheOptions | None, 8] = None
    Entitlements: Annotated[list[str], 9] = []
    FrontendInputs: Annotated[dict[str, Definition], 10] = {}
    Internal: Annotated[bool, 11] = False
    SourcePolicy: Annotated[Policy | None, 12] = None
    Exporters: Annotated[list[Exporter], 13] = []
    EnableSessionExporter: Annotated[bool, 14] = False


class SolveResponse(Message):
    ExporterResponse: Annotated[dict[str, str], 1] = {}


class StatusRequest(Message):
    Ref: Annotated[str, 1] = ""


class Vertex(Message):
    digest: Annotated[str, 1] = ""
    inputs: Annotated[list[str], 2] = []
    name: Annotated[str, 3] = ""
    cached: Annotated[bool, 4] = False
    started: Annotated[int, 5, TIME] = 0
    completed: Annotated[int, 6, TIME] = 0
    error: Annotated[str, 7] = ""
    progressGroup: Annotated[ProgressGroup | None, 8] = None


class VertexStatus(Message):
    ID: Annotated[str, 1] = ""
    vertex: Annotated[str, 2] = ""
    name: Annotated[str, 3] = ""
    current: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    timestamp: Annotated[int, 6, TIME] = 0
    started: Annotated[int, 7, TIME] = 0
    completed: Annotated[int, 8, TIME] = 0


class VertexLog(Message):
    vertex: Annotated[str, 1] = ""
    timestamp: Annotated[int, 2, TIME] = 0
    stream: Annotated[int, 3] = 0
    msg: Annotated[bytes, 4] = b""


class VertexWarning(Message):
    vertex: Annotated[str, 1] = ""
    level: Annotated[int, 2] = 0
    short: Annotated[bytes, 3] = b""
    detail: Annotated[list[bytes], 4] = []
    url: Annotated[str, 5] = ""
    info: Annotated[SourceInfo | None, 6] = None
    ranges: Annotated[list[Range], 7] = []


class StatusResponse(Message):
    vertexes: Annotated[list[Vertex], 1] = []
    statuses: Annotated[list[VertexStatus], 2] = []
    logs: Annotated[list[VertexLog], 3] = []
    warnings: Annotated[list[VertexWarning], 4] = []


class ListWorkersRequest(Message):
    filter: Annotated[list[str], 1] = []


class ListWorkersResponse(Message):
    record: Annotated[list[WorkerRecord], 1] = []


class InfoRequest(Message):
    pass


class InfoResponse(Message):
    buildkitVersion: Annotated[BuildkitVersion | None, 1] = None


class BuildHistoryRequest(Message):
    ActiveOnly: Annotated[bool, 1] = False
    Ref: Annotated[str, 2] = ""
    EarlyExit: Annotated[bool, 3] = False
    Filter: Annotated[list[str], 4] = []
    Limit: Annotated[int, 5] = 0


class Descriptor(Message):
    media_type: Annotated[str, 1] = ""
    digest: Annotated[str, 2] = ""
    size: Annotated[int, 3] = 0
    annotations: Annotated[dict[str, str], 5] = {}


class BuildResultInfo(Message):
    ResultDeprecated: Annotated[Descriptor | None, 1] = None
    Attestations: Annotated[list[Descriptor], 2] = []
    Results: Annotated[dict[int, Descriptor], 3] = {}


class BuildHistoryRecord(Message):
    Ref: Annotated[str, 1] = ""
    Frontend: Annotated[str, 2] = ""
    FrontendAttrs: Annotated[dict[str, str], 3] = {}
    Exporters: Annotated[list[Exporter], 4] = []
    error: Annotated[Status | None, 5] = None
    CreatedAt: Annotated[int, 6, TIME] = 0
    CompletedAt: Annotated[int, 7, TIME] = 0
    logs: Annotated[Descriptor | None, 8] = None
    ExporterResponse: Annotated[dict[str, str], 9] = {}
    Result: Annotated[BuildResultInfo | None, 10] = None
    Results: Annotated[dict[str, BuildResultInfo], 11] = {}
    Generation: Annotated[int, 12] = 0
    trace: Annotated[Descriptor | None, 13] = None
    pinned: Annotated[bool, 14] = False
    numCachedSteps: Annotated[int, 15] = 0
    numTotalSteps: Annotated[int, 16] = 0
    numCompletedSteps: Annotated[int, 17] = 0
    externalError: Annotated[Descriptor | None, 18] = None
    numWarnings: Annotated[int, 19] = 0


class BuildHistoryEvent(Message):
    type: Annotated[int, 1] = 0
    record: Annotated[BuildHistoryRecord | None, 2] = None


class UpdateBuildHistoryRequest(Message):
    Ref: Annotated[str, 1] = ""
    Pinned: Annotated[bool, 2] = False
    Delete: Annotated[bool, 3] = False
    Finalize: Annotated[bool, 4] = False


class UpdateBuildHistoryResponse(Message):
    pass
