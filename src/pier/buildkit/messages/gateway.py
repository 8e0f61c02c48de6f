"""The service that frontends ask (buildkit frontend/gateway/pb/gateway.proto)."""

from typing import Annotated

from pier.buildkit.messages.filesync import Stat
from pier.buildkit.messages.ops import (
    Definition,
    HostIP,
    Mount,
    Platform,
    Range,
    SourceInfo,
    SourceOp,
    WorkerConstraints,
)
from pier.buildkit.messages.policy import Policy
from pier.buildkit.messages.worker import WorkerRecord
from pier.grpc.message import Message
from pier.grpc.status import Status


class APICap(Message):
    ID: Annotated[str, 1] = ""
    Enabled: Annotated[bool, 2] = False
    Deprecated: Annotated[bool, 3] = False
    DisabledReason: Annotated[str, 4] = ""
    DisabledReasonMsg: Annotated[str, 5] = ""
    DisabledAlternative: Annotated[str, 6] = ""


class RefMapDeprecated(Message):
    refs: Annotated[dict[str, str], 1] = {}


class Ref(Message):
    id: Annotated[str, 1] = ""
    definition: Annotated[Definition | None, 2] = None


class RefMap(Message):
    refs: Annotated[dict[str, Ref], 1] = {}


class InTotoSubject(Message):
    kind: Annotated[int, 1] = 0
    digest: Annotated[list[str], 2] = []
    name: Annotated[str, 3] = ""


class Attestation(Message):
    kind: Annotated[int, 1] = 0
    metadata: Annotated[dict[str, bytes], 2] = {}
    ref: Annotated[Ref | None, 3] = None
    path: Annotated[str, 4] = ""
    inTotoPredicateType: Annotated[str, 5] = ""
    inTotoSubjects: Annotated[list[InTotoSubject], 6] = []


class Attestations(Message):
    attestation: Annotated[list[Attestation], 1] = []


class Result(Message):
    refDeprecated: Annotated[str, 1] = ""
    refsDeprecated: Annotated[RefMapDeprecated | None, 2] = None
    ref: Annotated[Ref | None, 3] = None
    refs: Annotated[RefMap | None, 4] = None
    metadata: Annotated[dict[str, bytes], 10] = {}
    attestations: Annotated[dict[str, Attestations], 12] = {}


class ReturnRequest(Message):
    result: Annotated[Result | None, 1] = None
    error: Annotated[Status | None, 2] = None


class ReturnResponse(Message):
    pass


class InputsRequest(Message):
    pass


class InputsResponse(Message):
    Definitions: Annotated[dict[str, Definition], 1] = {}


class ResolveImageConfigRequest(Message):
    Ref: Annotated[str, 1] = ""
    platform: Annotated[Platform | None, 2] = None
    ResolveMode: Annotated[str, 3] = ""
    LogName: Annotated[str, 4] = ""
    ResolverType: Annotated[int, 5] = 0
    SessionID: Annotated[str, 6] = ""
    StoreID: Annotated[str, 7] = ""
    SourcePolicies: Annotated[list[Policy], 8] = []


class ResolveImageConfigResponse(Message):
    Digest: Annotated[str, 1] = ""
    Config: Annotated[bytes, 2] = b""
    Ref: Annotated[str, 3] = ""


class ResolveSourceMetaRequest(Message):
    Source: Annotated[SourceOp | None, 1] = None
    platform: Annotated[Platform | None, 2] = None
    LogName: Annotated[str, 3] = ""
    ResolveMode: Annotated[str, 4] = ""
    SourcePolicies: Annotated[list[Policy], 8] = []


class ResolveSourceImageResponse(Message):
    Digest: Annotated[str, 1] = ""
    Config: Annotated[bytes, 2] = b""


class ResolveSourceMetaResponse(Message):
    Source: Annotated[SourceOp | None, 1] = None
    Image: Annotated[ResolveSourceImageResponse | None, 2] = None


class CacheOptionsEntry(Message):
    Type: Annotated[str, 1] = ""
    Attrs: Annotated[dict[str, str], 2] = {}


class SolveRequest(Message):
    definition: Annotated[Definition | None, 1] = None
    Frontend: Annotated[str, 2] = ""
    FrontendOpt: Annotated[dict[str, str], 3] = {}
    allowResultReturn: Annotated[bool, 5] = False
    allowResultArrayRef: Annotated[bool, 6] = False
    Final: Annotated[bool, 10] = False
    ExporterAttr: Annotated[bytes, 11] = b""
    CacheImports: Annotated[list[CacheOptionsEntry], 12] = []
    FrontendInputs: Annotated[dict[str, Definition], 13] = {}
    Evaluate: Annotated[bool, 14] = False
    SourcePolicies: Annotated[list[Policy], 15] = []


class SolveResponse(Message):
    ref: Annotated[str, 1] = ""
    result: Annotated[Result | None, 3] = None


class FileRange(Message):
    Offset: Annotated[int, 1] = 0
    Length: Annotated[int, 2] = 0


class ReadFileRequest(Message):
    Ref: Annotated[str, 1] = ""
    FilePath: Annotated[str, 2] = ""
    Range: Annotated[FileRange | None, 3] = None


class ReadFileResponse(Message):
    Data: Annotated[bytes, 1] = b""


class ReadDirRequest(Message):
    Ref: Annotated[str, 1] = ""
    DirPath: Annotated[str, 2] = ""
    IncludePattern: Annotated[str, 3] = ""


class ReadDirResponse(Message):
    entries: Annotated[list[Stat], 1] = []


class StatFileRequest(Message):
    Ref: Annotated[str, 1] = ""
    Path: Annotated[str, 2] = ""


class StatFileResponse(Message):
    stat: Annotated[Stat | None, 1] = None


class EvaluateRequest(Message):
    Ref: Annotated[str, 1] = ""


class EvaluateResponse(Message):
    pass


class PingRequest(Message):
    pass


class PongResponse(Message):
    FrontendAPICaps: Annotated[list[APICap], 1] = []
    LLBCaps: Annotated[list[APICap], 2] = []
    Workers: Annotated[list[WorkerRecord], 3] = []


class WarnRequest(Message):
    digest: Annotated[str, 1] = ""
    level: Annotated[int, 2] = 0
    short: Annotated[bytes, 3] = b""
    detail: Annotated[list[bytes], 4] = []
    url: Annotated[str, 5] = ""
    info: Annotated[SourceInfo | None, 6] = None
    ranges: Annotated[list[Range], 7] = []


class WarnResponse(Message):
    pass


class NewContainerRequest(Message):
    ContainerID: Annotated[str, 1] = ""
    Mounts: Annotated[list[Mount], 2] = []
    Network: Annotated[int, 3] = 0
    platform: Annotated[Platform | None, 4] = None
    constraints: Annotated[WorkerConstraints | None, 5] = None
    extraHosts: Annotated[list[HostIP], 6] = []
    hostname: Annotated[str, 7] = ""


class NewContainerResponse(Message):
    pass


class ReleaseContainerRequest(Message):
    ContainerID: Annotated[str, 1] = ""


class ReleaseContainerResponse(Message):
    pass
