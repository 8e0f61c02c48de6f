"""Containers as the Docker Engine API speaks of them, and as the engine records them.

Field names are the API's own (docker-engine-api-v1.51.yaml, `ContainerConfig`, `HostConfig`,
`ContainerState`), so that a search from the API document lands here. A field typed `X | None`
is one that Docker itself answers with null. Request bodies are cleaned of nulls before they are
converted (`pier.api.body`), as Go reads null as the zero value.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from pier.model.mounts import MountRecord

ZERO_TIME = "0001-01-01T00:00:00Z"


class Empty(Struct):
    """The `{}` of a Go `map[string]struct{}` value."""


class HealthConfig(Struct, omit_defaults=True):
    """Durations are integer nanoseconds; 0 inherits."""

    Test: list[str] = []
    Interval: int = 0
    Timeout: int = 0
    Retries: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0


class ContainerConfig(Struct):
    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, Empty] = {}
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: list[str] | None = None
    Healthcheck: HealthConfig | None = None
    ArgsEscaped: bool = False
    Image: str = ""
    Volumes: dict[str, Empty] | None = None
    WorkingDir: str = ""
    Entrypoint: list[str] | None = None
    NetworkDisabled: bool = False
    MacAddress: str = ""
    OnBuild: list[str] | None = None
    Labels: dict[str, str] = {}
    StopSignal: str = ""
    StopTimeout: int | None = None
    Shell: list[str] | None = None


class LogConfig(Struct):
    Type: str = ""
    Config: dict[str, str] = {}


class RestartPolicy(Struct):
    """`Name` is one of "", no, always, unless-stopped, on-failure."""

    Name: str = ""
    MaximumRetryCount: int = 0


class PortBinding(Struct):
    HostIp: str = ""
    HostPort: str = ""


class DeviceMapping(Struct):
    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class DeviceRequest(Struct):
    Driver: str = ""
    Count: int = 0
    DeviceIDs: list[str] | None = None
    Capabilities: list[list[str]] | None = None
    Options: dict[str, str] | None = None


class ThrottleDevice(Struct):
    """`Rate` is bytes or operations a second."""

    Path: str = ""
    Rate: int = 0


class WeightDevice(Struct):
    Path: str = ""
    Weight: int = 0


class Ulimit(Struct):
    Name: str = ""
    Hard: int = 0
    Soft: int = 0


class BindOptions(Struct, omit_defaults=True):
    """Pier's own: `IDMap`, "auto" or "UID:GID" (`engine.idmaps`), and `CopyOnWrite` (`engine.cow`)."""

    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False
    IDMap: str = ""
    CopyOnWrite: bool = False


class MountDriver(Struct, omit_defaults=True):
    Name: str = ""
    Options: dict[str, str] = {}


class VolumeOptions(Struct, omit_defaults=True):
    NoCopy: bool = False
    Labels: dict[str, str] = {}
    DriverConfig: MountDriver | None = None
    Subpath: str = ""


class ImageOptions(Struct, omit_defaults=True):
    Subpath: str = ""


class TmpfsOptions(Struct, omit_defaults=True):
    """`Mode` is a Go file mode: for the permission bits that is the octal mode as an integer."""

    SizeBytes: int = 0
    Mode: int = 0
    Options: list[list[str]] = []


class Mount(Struct, omit_defaults=True):
    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: "BindOptions | None" = None
    VolumeOptions: "VolumeOptions | None" = None
    ImageOptions: "ImageOptions | None" = None
    TmpfsOptions: "TmpfsOptions | None" = None


class Resources(Struct):
    """Bytes, nano-CPUs and microseconds as in the API; 0 is "not limited" unless said otherwise."""

    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: list[WeightDevice] | None = []
    BlkioDeviceReadBps: list[ThrottleDevice] | None = []
    BlkioDeviceWriteBps: list[ThrottleDevice] | None = []
    BlkioDeviceReadIOps: list[ThrottleDevice] | None = []
    BlkioDeviceWriteIOps: list[ThrottleDevice] | None = []
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[DeviceMapping] | None = []
    DeviceCgroupRules: list[str] | None = None
    DeviceRequests: list[DeviceRequest] | None = None
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: int | None = None
    Ulimits: list[Ulimit] | None = []
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0


class HostConfig(Resources):
    Binds: list[str] | None = None
    ContainerIDFile: str = ""
    LogConfig: "LogConfig" = field(default_factory=LogConfig)
    NetworkMode: str = ""
    PortBindings: dict[str, list[PortBinding] | None] = {}
    RestartPolicy: "RestartPolicy" = field(default_factory=RestartPolicy)
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] | None = None
    Mounts: list[Mount] = []
    ConsoleSize: tuple[int, int] = (0, 0)
    Annotations: dict[str, str] = {}
    CapAdd: list[str] | None = None
    CapDrop: list[str] | None = None
    CgroupnsMode: str = ""
    Dns: list[str] | None = []
    DnsOptions: list[str] | None = []
    DnsSearch: list[str] | None = []
    ExtraHosts: list[str] | None = None
    GroupAdd: list[str] | None = None
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] | None = None
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] | None = None
    StorageOpt: dict[str, str] = {}
    Tmpfs: dict[str, str] = {}
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int = 0
    Sysctls: dict[str, str] = {}
    Runtime: str = ""
    Isolation: str = ""
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    Init: bool | None = None


class EndpointSettings(Struct):
    IPAMConfig: dict[str, str | list[str]] | None = None
    Links: list[str] | None = None
    Aliases: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: int = 0
    NetworkID: str = ""
    EndpointID: str = ""
    Gateway: str = ""
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    DNSNames: list[str] | None = None


class NetworkingConfig(Struct):
    EndpointsConfig: dict[str, EndpointSettings] = {}


class CreateRequest(ContainerConfig):
    """Body of POST /containers/create: a ContainerConfig with two objects beside its fields."""

    HostConfig: "HostConfig" = field(default_factory=HostConfig)
    NetworkingConfig: "NetworkingConfig" = field(default_factory=NetworkingConfig)


Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


class HealthProbe(Struct):
    """A probe's result. `ExitCode` 0 is healthy, -1 when no process ended."""

    Start: str
    End: str
    ExitCode: int
    Output: str


class HealthState(Struct):
    """`Log` has the last five probes, oldest first."""

    Status: Literal["starting", "healthy", "unhealthy"] = "starting"
    FailingStreak: int = 0
    Log: list[HealthProbe] = []


class ContainerState(Struct):
    """`Pid` is the host's; times are RFC 3339 with nanoseconds, ZERO_TIME when it never was."""

    Status: "Status" = "created"
    Running: bool = False
    Paused: bool = False
    Restarting: bool = False
    OOMKilled: bool = False
    Dead: bool = False
    Pid: int = 0
    ExitCode: int = 0
    Error: str = ""
    StartedAt: str = ZERO_TIME
    FinishedAt: str = ZERO_TIME
    Health: HealthState | UnsetType = UNSET


class Attachment(Struct):
    """A container's place on a network: what was asked for, and while it runs what it has.

    `mac` is the address that the user asked for; `settings.MacAddress` the one that it has.
    `interface` is the link's name inside, "" where it has none of its own.
    """

    settings: EndpointSettings
    mac: str = ""
    interface: str = ""


class Snapshot(Struct):
    """A point in a container's life: `layers` are frozen directories, lowest first."""

    Name: str
    Created: str
    layers: list[str] = field(default_factory=list, name="Layers")


class ContainerRecord(Struct):
    """What the engine keeps of a container: the row in its database, encoded as JSON.

    `Id` is 64 hex digits. `Name` has no leading slash. `Image` is the image ID ("sha256:…"),
    `Config.Image` what the user wrote. `Created` is RFC 3339 with nanoseconds. `Path` and `Args`
    are the command after entrypoint and cmd were joined. `layers` are the chain IDs of the image's
    layers, lowest first: what the overlay is made of. `mounts` are the user's and the image's,
    those nearer to the root first. `stopped_by_user` is why a restart policy does not bring it
    back. `networks` are its places by the network's name, the main one first; `ports` are those
    published now, and `sandbox_id` names its network namespace while it has one. `frozen` are the
    directories of its own between the image's layers and its upper one, lowest first, `snapshots`
    what they are named, `layer_change` what is being done to them: see `engine.writable`.
    `for_build`: it is a build's, and goes with it.
    """

    Id: str
    Name: str
    Created: str
    Image: str
    Config: ContainerConfig
    HostConfig: "HostConfig"
    Path: str
    Args: list[str]
    layers: list[str]
    State: ContainerState = field(default_factory=ContainerState)
    RestartCount: int = 0
    Platform: str = "linux"
    mounts: list[MountRecord] = []
    stopped_by_user: bool = False
    networks: dict[str, Attachment] = {}
    ports: dict[str, list[PortBinding] | None] = {}
    sandbox_id: str = ""
    for_build: bool = False
    frozen: list[str] = []
    snapshots: list[Snapshot] = []
    layer_change: Literal["", "freeze", "reset"] = ""

    @property
    def kept_layers(self) -> list[str]:
        """The chain IDs that must stay while it is there: its own, and those of images mounted."""
        return self.layers + [layer for mount in self.mounts for layer in mount.layers]
