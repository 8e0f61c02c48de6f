"""Requests and answers of the container routes (docker-engine-api-v1.51.yaml, tag Container).

Containers themselves are in `pier.model.container`. Fields typed `X | UnsetType` are left out of
the JSON unless set, as Go's omitempty does.
"""

from msgspec import UNSET, Struct, UnsetType, field

from pier.model.container import (
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    HostConfig,
    Mount,
    PortBinding,
    Resources,
    RestartPolicy,
)


class CreateResponse(Struct):
    Id: str
    Warnings: list[str] = []


class Port(Struct):
    """A port of the list; `IP` and `PublicPort` are there when it is published."""

    PrivatePort: int
    Type: str
    PublicPort: int | UnsetType = UNSET
    IP: str | UnsetType = UNSET


class MountPoint(Struct):
    """A mount as list and inspect show it; `Name` and `Driver` are a volume's."""

    Type: str
    Source: str
    Destination: str
    Mode: str
    RW: bool
    Propagation: str
    Name: str | UnsetType = UNSET
    Driver: str | UnsetType = UNSET


class SummaryHostConfig(Struct):
    NetworkMode: str
    Annotations: dict[str, str] | UnsetType = UNSET


class SummaryNetworkSettings(Struct):
    Networks: dict[str, EndpointSettings] = {}


class SummaryHealth(Struct):
    Status: str
    FailingStreak: int


class ContainerSummary(Struct):
    """One row of GET /containers/json. `Created` is in seconds; names start with a slash."""

    Id: str
    Names: list[str]
    Image: str
    ImageID: str
    Command: str
    Created: int
    Ports: list[Port]
    Labels: dict[str, str]
    State: str
    Status: str
    HostConfig: SummaryHostConfig
    NetworkSettings: SummaryNetworkSettings
    Mounts: list[MountPoint]
    Health: SummaryHealth | UnsetType = UNSET
    SizeRw: int | UnsetType = UNSET
    SizeRootFs: int | UnsetType = UNSET


class GraphDriver(Struct):
    Name: str
    Data: dict[str, str] | None = None


class NetworkSettings(Struct):
    """The network part of inspect; the fields of one address repeat the default bridge's."""

    Bridge: str = ""
    SandboxID: str = ""
    SandboxKey: str = ""
    Ports: dict[str, list[PortBinding] | None] = {}
    HairpinMode: bool = False
    LinkLocalIPv6Address: str = ""
    LinkLocalIPv6PrefixLen: int = 0
    SecondaryIPAddresses: list[str] | None = None
    SecondaryIPv6Addresses: list[str] | None = None
    EndpointID: str = ""
    Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    MacAddress: str = ""
    Networks: dict[str, EndpointSettings] = {}


class ContainerInspect(Struct):
    """Answer of GET /containers/{id}/json. `Name` starts with a slash."""

    Id: str
    Created: str
    Path: str
    Args: list[str]
    State: ContainerState
    Image: str
    ResolvConfPath: str
    HostnamePath: str
    HostsPath: str
    LogPath: str
    Name: str
    RestartCount: int
    Driver: str
    Platform: str
    MountLabel: str
    ProcessLabel: str
    AppArmorProfile: str
    ExecIDs: list[str] | None
    HostConfig: "HostConfig"
    GraphDriver: "GraphDriver"
    Mounts: list[MountPoint]
    Config: ContainerConfig
    NetworkSettings: "NetworkSettings"
    SizeRw: int | UnsetType = UNSET
    SizeRootFs: int | UnsetType = UNSET


class TopResponse(Struct):
    """Answer of GET /containers/{id}/top: the columns of ps, and a row a process."""

    Titles: list[str]
    Processes: list[list[str]]


class WaitError(Struct):
    Message: str


class WaitResponse(Struct):
    StatusCode: int
    Error: WaitError | UnsetType = UNSET


class UpdateRequest(Resources):
    """Body of POST /containers/{id}/update: limits, and what the restart policy is to be.

    Only what is given changes; 0, "" and empty lists are not. Pier's own are
    `Annotations`, of which those of rates (`network.shaping`) may change, and the ports to publish
    and to publish no more, in the shape of PortBindings; there an empty host port means all.
    """

    RestartPolicy: "RestartPolicy" = field(default_factory=RestartPolicy)
    Annotations: dict[str, str] = field(default_factory=dict)
    PublishAdd: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    PublishRemove: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    MountAdd: list[Mount] = field(default_factory=list)


class UpdateResponse(Struct):
    """`Warnings` is null without any, as dockerd has it."""

    Warnings: list[str] | None = None


class ContainerChange(Struct):
    """A row of GET /containers/{id}/changes; `Kind` is 0 changed, 1 added, 2 deleted."""

    Path: str
    Kind: int


class PruneResponse(Struct):
    """Answer of POST /containers/prune; `SpaceReclaimed` in bytes."""

    ContainersDeleted: list[str] | None = None
    SpaceReclaimed: int = 0


class PathStat(Struct):
    """A file of a container's, as HEAD and GET …/archive tell in a header (base64 of its JSON).

    `mode` is Go's os.FileMode; `linkTarget` is where a link leads within the root.
    """

    name: str
    size: int
    mode: int
    mtime: str
    linkTarget: str


class AttachOptions(Struct, frozen=True):
    """What an attach asks for. `logs` replays what was written, `stream` follows from now on.

    `detach_keys` are the bytes that end the attach when typed at a TTY.
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = False
    logs: bool = False
    detach_keys: bytes = b"\x10\x11"


class LogOptions(Struct, frozen=True):
    """What a reader of logs asks for.

    `since` and `until` are nanoseconds since the epoch, None when open. `tail` is the number of
    last lines, None for all. `details` prepends the labels and variables chosen by `--log-opt`.
    `joined` says that the reader does not care where one line's frame ends and the next begins.
    """

    stdout: bool = False
    stderr: bool = False
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    since: int | None = None
    until: int | None = None
    tail: int | None = None
    joined: bool = False
