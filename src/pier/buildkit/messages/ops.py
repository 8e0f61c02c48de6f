"""LLB, and what messages of all kinds say about it (buildkit solver/pb/ops.proto)."""

from typing import Annotated

from pier.grpc.message import Message


class Input(Message):
    digest: Annotated[str, 1] = ""
    index: Annotated[int, 2] = 0


class ProxyEnv(Message):
    http_proxy: Annotated[str, 1] = ""
    https_proxy: Annotated[str, 2] = ""
    ftp_proxy: Annotated[str, 3] = ""
    no_proxy: Annotated[str, 4] = ""
    all_proxy: Annotated[str, 5] = ""


class HostIP(Message):
    Host: Annotated[str, 1] = ""
    IP: Annotated[str, 2] = ""


class Ulimit(Message):
    Name: Annotated[str, 1] = ""
    Soft: Annotated[int, 2] = 0
    Hard: Annotated[int, 3] = 0


class Meta(Message):
    args: Annotated[list[str], 1] = []
    env: Annotated[list[str], 2] = []
    cwd: Annotated[str, 3] = ""
    user: Annotated[str, 4] = ""
    proxy_env: Annotated[ProxyEnv | None, 5] = None
    extraHosts: Annotated[list[HostIP], 6] = []
    hostname: Annotated[str, 7] = ""
    ulimit: Annotated[list[Ulimit], 9] = []
    cgroupParent: Annotated[str, 10] = ""
    removeMountStubsRecursive: Annotated[bool, 11] = False
    validExitCodes: Annotated[list[int], 12] = []


class TmpfsOpt(Message):
    size: Annotated[int, 1] = 0


class CacheOpt(Message):
    ID: Annotated[str, 1] = ""
    sharing: Annotated[int, 2] = 0


class SecretOpt(Message):
    ID: Annotated[str, 1] = ""
    uid: Annotated[int, 2] = 0
    gid: Annotated[int, 3] = 0
    mode: Annotated[int, 4] = 0
    optional: Annotated[bool, 5] = False


class SSHOpt(Message):
    ID: Annotated[str, 1] = ""
    uid: Annotated[int, 2] = 0
    gid: Annotated[int, 3] = 0
    mode: Annotated[int, 4] = 0
    optional: Annotated[bool, 5] = False


class Mount(Message):
    input: Annotated[int, 1] = 0
    selector: Annotated[str, 2] = ""
    dest: Annotated[str, 3] = ""
    output: Annotated[int, 4] = 0
    readonly: Annotated[bool, 5] = False
    mountType: Annotated[int, 6] = 0
    tmpfsOpt: Annotated[TmpfsOpt | None, 19] = None
    cacheOpt: Annotated[CacheOpt | None, 20] = None
    secretOpt: Annotated[SecretOpt | None, 21] = None
    sSHOpt: Annotated[SSHOpt | None, 22] = None
    resultID: Annotated[str, 23] = ""
    contentCache: Annotated[int, 24] = 0


class SecretEnv(Message):
    ID: Annotated[str, 1] = ""
    name: Annotated[str, 2] = ""
    optional: Annotated[bool, 3] = False


class CDIDevice(Message):
    name: Annotated[str, 1] = ""
    optional: Annotated[bool, 2] = False


class ExecOp(Message):
    meta: Annotated[Meta | None, 1] = None
    mounts: Annotated[list[Mount], 2] = []
    network: Annotated[int, 3] = 0
    security: Annotated[int, 4] = 0
    secretenv: Annotated[list[SecretEnv], 5] = []
    cdiDevices: Annotated[list[CDIDevice], 6] = []


class SourceOp(Message):
    identifier: Annotated[str, 1] = ""
    attrs: Annotated[dict[str, str], 2] = {}


class NamedUserOpt(Message):
    name: Annotated[str, 1] = ""
    input: Annotated[int, 2] = 0


class UserOpt(Message):
    byName: Annotated[NamedUserOpt | None, 1] = None
    byID: Annotated[int, 2] = 0


class ChownOpt(Message):
    user: Annotated[UserOpt | None, 1] = None
    group: Annotated[UserOpt | None, 2] = None


class FileActionCopy(Message):
    src: Annotated[str, 1] = ""
    dest: Annotated[str, 2] = ""
    owner: Annotated[ChownOpt | None, 3] = None
    mode: Annotated[int, 4] = 0
    followSymlink: Annotated[bool, 5] = False
    dirCopyContents: Annotated[bool, 6] = False
    attemptUnpackDockerCompatibility: Annotated[bool, 7] = False
    createDestPath: Annotated[bool, 8] = False
    allowWildcard: Annotated[bool, 9] = False
    allowEmptyWildcard: Annotated[bool, 10] = False
    timestamp: Annotated[int, 11] = 0
    include_patterns: Annotated[list[str], 12] = []
    exclude_patterns: Annotated[list[str], 13] = []
    alwaysReplaceExistingDestPaths: Annotated[bool, 14] = False
    modeStr: Annotated[str, 15] = ""


class FileActionMkFile(Message):
    path: Annotated[str, 1] = ""
    mode: Annotated[int, 2] = 0
    data: Annotated[bytes, 3] = b""
    owner: Annotated[ChownOpt | None, 4] = None
    timestamp: Annotated[int, 5] = 0


class FileActionMkDir(Message):
    path: Annotated[str, 1] = ""
    mode: Annotated[int, 2] = 0
    makeParents: Annotated[bool, 3] = False
    owner: Annotated[ChownOpt | None, 4] = None
    timestamp: Annotated[int, 5] = 0


class FileActionRm(Message):
    path: Annotated[str, 1] = ""
    allowNotFound: Annotated[bool, 2] = False
    allowWildcard: Annotated[bool, 3] = False


class FileActionSymlink(Message):
    oldpath: Annotated[str, 1] = ""
    newpath: Annotated[str, 2] = ""
    owner: Annotated[ChownOpt | None, 3] = None
    timestamp: Annotated[int, 4] = 0


class FileAction(Message):
    input: Annotated[int, 1] = 0
    secondaryInput: Annotated[int, 2] = 0
    output: Annotated[int, 3] = 0
    copy: Annotated[FileActionCopy | None, 4] = None
    mkfile: Annotated[FileActionMkFile | None, 5] = None
    mkdir: Annotated[FileActionMkDir | None, 6] = None
    rm: Annotated[FileActionRm | None, 7] = None
    symlink: Annotated[FileActionSymlink | None, 8] = None


class FileOp(Message):
    actions: Annotated[list[FileAction], 2] = []


class SourceInfo(Message):
    filename: Annotated[str, 1] = ""
    data: Annotated[bytes, 2] = b""
    language: Annotated[str, 4] = ""


class Position(Message):
    line: Annotated[int, 1] = 0
    character: Annotated[int, 2] = 0


class Range(Message):
    start: Annotated[Position | None, 1] = None
    end: Annotated[Position | None, 2] = None


class Location(Message):
    sourceIndex: Annotated[int, 1] = 0
    ranges: Annotated[list[Range], 2] = []


class Locations(Message):
    locations: Annotated[list[Location], 1] = []


class Source(Message):
    locations: Annotated[dict[str, Locations], 1] = {}
    infos: Annotated[list[SourceInfo], 2] = []


class ExportCache(Message):
    Value: Annotated[bool, 1] = False


class ProgressGroup(Message):
    id: Annotated[str, 1] = ""
    name: Annotated[str, 2] = ""
    weak: Annotated[bool, 3] = False


class OpMetadata(Message):
    ignore_cache: Annotated[bool, 1] = False
    description: Annotated[dict[str, str], 2] = {}
    export_cache: Annotated[ExportCache | None, 4] = None
    caps: Annotated[dict[str, bool], 5] = {}
    progress_group: Annotated[ProgressGroup | None, 6] = None


class Definition(Message):
    ops: Annotated[list[bytes], 1] = []
    metadata: Annotated[dict[str, OpMetadata], 2] = {}
    source: Annotated[Source | None, 3] = None


class BuildInput(Message):
    input: Annotated[int, 1] = 0


class BuildOp(Message):
    builder: Annotated[int, 1] = 0
    inputs: Annotated[dict[str, BuildInput], 2] = {}
    definition: Annotated[Definition | None, 3] = None
    attrs: Annotated[dict[str, str], 4] = {}


class MergeInput(Message):
    input: Annotated[int, 1] = 0


class MergeOp(Message):
    inputs: Annotated[list[MergeInput], 1] = []


class LowerDiffInput(Message):
    input: Annotated[int, 1] = 0


class UpperDiffInput(Message):
    input: Annotated[int, 1] = 0


class DiffOp(Message):
    lower: Annotated[LowerDiffInput | None, 1] = None
    upper: Annotated[UpperDiffInput | None, 2] = None


class Platform(Message):
    Architecture: Annotated[str, 1] = ""
    OS: Annotated[str, 2] = ""
    Variant: Annotated[str, 3] = ""
    OSVersion: Annotated[str, 4] = ""
    OSFeatures: Annotated[list[str], 5] = []


class WorkerConstraints(Message):
    filter: Annotated[list[str], 1] = []


class Op(Message):
    inputs: Annotated[list[Input], 1] = []
    exec: Annotated[ExecOp | None, 2] = None
    source: Annotated[SourceOp | None, 3] = None
    file: Annotated[FileOp | None, 4] = None
    build: Annotated[BuildOp | None, 5] = None
    merge: Annotated[MergeOp | None, 6] = None
    diff: Annotated[DiffOp | None, 7] = None
    platform: Annotated[Platform | None, 10] = None
    constraints: Annotated[WorkerConstraints | None, 11] = None
