"""Answers of the system routes (docker-engine-api-v1.51.yaml, tag System)."""

from msgspec import UNSET, Struct, UnsetType, field

from pier.model.api_build import BuildCacheRecord
from pier.model.api_containers import ContainerSummary
from pier.model.api_images import ImageSummary
from pier.model.api_volumes import Volume


class Platform(Struct):
    Name: str


class Component(Struct):
    Name: str
    Version: str
    Details: dict[str, str] = {}


class Version(Struct):
    """Answer of GET /version."""

    Platform: "Platform"
    Components: list[Component]
    Version: str
    ApiVersion: str
    MinAPIVersion: str
    GitCommit: str
    GoVersion: str
    Os: str
    Arch: str
    KernelVersion: str
    BuildTime: str
    Experimental: bool | UnsetType = UNSET


class Plugins(Struct):
    Volume: list[str] = []
    Network: list[str] = []
    Authorization: list[str] | None = None
    Log: list[str] = []


class Commit(Struct):
    ID: str = ""
    Expected: str | UnsetType = UNSET


class FirewallInfo(Struct):
    """What publishes ports and keeps networks apart; `Info` are pairs of a word and its value."""

    Driver: str
    Info: list[tuple[str, str]] = []


class DeviceInfo(Struct):
    """A device that a device driver knows, by the name to ask for it."""

    Source: str
    ID: str


class Runtime(Struct, omit_defaults=True):
    path: str
    runtimeArgs: list[str] = []


class IndexInfo(Struct):
    Name: str
    Mirrors: list[str]
    Secure: bool
    Official: bool


class RegistryConfig(Struct):
    InsecureRegistryCIDRs: list[str] = []
    IndexConfigs: dict[str, IndexInfo] = {}
    Mirrors: list[str] = []


class Swarm(Struct):
    NodeID: str = ""
    NodeAddr: str = ""
    LocalNodeState: str = "inactive"
    ControlAvailable: bool = False
    Error: str = ""
    RemoteManagers: list[str] | None = None


class Info(Struct):
    """Answer of GET /info. `MemTotal` in bytes; `SystemTime` RFC 3339 with nanoseconds."""

    ID: str
    Containers: int
    ContainersRunning: int
    ContainersPaused: int
    ContainersStopped: int
    Images: int
    Driver: str
    DriverStatus: list[tuple[str, str]]
    Plugins: "Plugins"
    MemoryLimit: bool
    SwapLimit: bool
    CpuCfsPeriod: bool
    CpuCfsQuota: bool
    CPUShares: bool
    CPUSet: bool
    PidsLimit: bool
    OomKillDisable: bool
    IPv4Forwarding: bool
    Debug: bool
    NFd: int
    NGoroutines: int
    SystemTime: str
    LoggingDriver: str
    CgroupDriver: str
    CgroupVersion: str
    NEventsListener: int
    KernelVersion: str
    OperatingSystem: str
    OSVersion: str
    OSType: str
    Architecture: str
    NCPU: int
    MemTotal: int
    DockerRootDir: str
    Name: str
    Labels: list[str]
    ServerVersion: str
    Runtimes: dict[str, Runtime]
    DefaultRuntime: str
    SecurityOptions: list[str]
    Warnings: list[str] | None
    LiveRestoreEnabled: bool = True
    ExperimentalBuild: bool = False
    IndexServerAddress: str = "https://index.docker.io/v1/"
    RegistryConfig: "RegistryConfig" = field(default_factory=RegistryConfig)
    GenericResources: list[str] | None = None
    HttpProxy: str = ""
    HttpsProxy: str = ""
    NoProxy: str = ""
    Swarm: "Swarm" = field(default_factory=Swarm)
    Isolation: str = ""
    InitBinary: str = "docker-init"
    ContainerdCommit: Commit = field(default_factory=Commit)
    RuncCommit: Commit = field(default_factory=Commit)
    InitCommit: Commit = field(default_factory=Commit)
    CDISpecDirs: list[str] = []
    FirewallBackend: FirewallInfo | UnsetType = UNSET
    DiscoveredDevices: list[DeviceInfo] | UnsetType = UNSET
    KernelMemoryTCP: bool | UnsetType = UNSET
    BridgeNfIptables: bool | UnsetType = UNSET
    BridgeNfIp6tables: bool | UnsetType = UNSET
    ProductLicense: str | UnsetType = UNSET


class KindUsage(Struct):
    """What objects of one kind take, in bytes. `Items` are there when somebody wants them all."""

    ActiveCount: int
    TotalCount: int
    Reclaimable: int
    TotalSize: int
    Items: (
        list[ImageSummary] | list[ContainerSummary] | list[Volume] | list[BuildCacheRecord]
        | UnsetType
    ) = UNSET  # fmt: skip


class UsageByKind(Struct):
    """Answer of GET /system/df since API 1.52: only the kinds that were asked for."""

    ImageUsage: KindUsage | UnsetType = UNSET
    ContainerUsage: KindUsage | UnsetType = UNSET
    VolumeUsage: KindUsage | UnsetType = UNSET
    BuildCacheUsage: KindUsage | UnsetType = UNSET


class DiskUsage(Struct):
    """Answer of GET /system/df until API 1.52, in bytes; a kind not asked for is null."""

    LayersSize: int = 0
    Images: list[ImageSummary] | None = None
    Containers: list[ContainerSummary] | None = None
    Volumes: list[Volume] | None = None
    BuildCache: list[BuildCacheRecord] | None = None
