"""What the runtime is given: the OCI runtime spec's `config.json`, and Pier's `keeper.json`.

Plain dictionaries with declared keys, since the zygote loads nothing but the standard library.
Names and meanings are those of the OCI runtime specification (config.md, config-linux.md); only
the parts that the runtime reads are declared. `KeeperConfig` says what the specification has no
words for: where the layers are, what happens to stdio, where the log goes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NotRequired, TypedDict
else:

    class TypedDict(dict):
        """In the place of typing's, which takes 4 ms of a start from cold to import."""

        def __init_subclass__(cls, **options: object) -> None:
            """Take `total`."""

        def __new__(cls, *_: object, **__: object) -> type:
            """Take the other way of writing one, for keys that are words of Python's."""
            return dict


class User(TypedDict, total=False):
    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class Rlimit(TypedDict):
    type: str
    hard: int
    soft: int


class Capabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class ConsoleSize(TypedDict):
    height: int
    width: int


class Scheduler(TypedDict, total=False):
    """sched_setattr(2); runtime, deadline and period in nanoseconds."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# "class" is a keyword of Python's.
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)


class CPUAffinity(TypedDict, total=False):
    """Lists such as "0-2,4": before and after an exec enters the container's cgroup."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    terminal: bool
    consoleSize: ConsoleSize
    user: User
    args: list[str]
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    oomScoreAdj: int
    apparmorProfile: str
    selinuxLabel: str
    scheduler: Scheduler
    ioPriority: IOPriority
    execCPUAffinity: CPUAffinity
    commandLine: str


class Mount(TypedDict, total=False):
    """`subpath` is Pier's own: what below the source is mounted, which the source's other users
    may have made, so that no link in it may lead out of the source. So is `mountNamespace`, the
    file of the one in which the source is: /dev/shm of a container whose IPC is joined.
    """

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    mountNamespace: str
    subpath: str


class Namespace(TypedDict, total=False):
    """`type` is pid, network, mount, ipc, uts, user, cgroup or time; `path` joins one."""

    type: str
    path: str


class IDMapping(TypedDict):
    containerID: int
    hostID: int
    size: int


class Device(TypedDict, total=False):
    type: str
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class DeviceCgroup(TypedDict, total=False):
    """An allow or deny rule; `major`/`minor` absent means any, `access` is out of "rwm"."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """Bytes; -1 is unlimited. `swap` is memory plus swap, as in cgroup v1."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool


class CPU(TypedDict, total=False):
    """Quota and periods in microseconds; cpus and mems are lists such as "0-2,4"."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict):
    limit: int


class WeightDevice(TypedDict, total=False):
    major: int
    minor: int
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict):
    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    pageSize: str
    limit: int


class Resources(TypedDict, total=False):
    devices: list[DeviceCgroup]
    memory: Memory
    cpu: CPU
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: dict[str, Any]
    rdma: dict[str, dict[str, int]]
    unified: dict[str, str]


class MemoryPolicy(TypedDict, total=False):
    """set_mempolicy(2): MPOL_* and a list such as "0-2,4"."""

    mode: str
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    domain: str
    flags: list[str]


class TimeOffset(TypedDict, total=False):
    secs: int
    nanosecs: int


class NetDevice(TypedDict, total=False):
    """`name` is what a device of the host's is called inside, "" or absent as outside."""

    name: str


class Linux(TypedDict, total=False):
    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    devices: list[Device]
    cgroupsPath: str
    resources: Resources
    rootfsPropagation: str
    seccomp: dict[str, Any]
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    memoryPolicy: MemoryPolicy
    personality: Personality
    timeOffsets: dict[str, TimeOffset]
    netDevices: dict[str, NetDevice]
    intelRdt: dict[str, Any]


class Root(TypedDict, total=False):
    path: str
    readonly: bool


class _NamedProgram(TypedDict):
    path: str


class Hook(_NamedProgram, total=False):
    """`timeout` in seconds; `args` include argv[0]; `env` is the whole environment."""

    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """What to run at which point of the life cycle: see `hooks`."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class State(TypedDict, total=False):
    """runtime.md, State; `pid` is absent when there is no process."""

    ociVersion: str
    id: str
    status: str
    pid: int
    bundle: str
    annotations: dict[str, str]


class Spec(TypedDict, total=False):
    ociVersion: str
    hooks: Hooks
    process: Process
    root: Root
    hostname: str
    domainname: str
    mounts: list[Mount]
    annotations: dict[str, str]
    linux: Linux


class Overlay(TypedDict):
    """`lower` (top layer first), `upper` and `work` are relative to `base`, an absolute path.

    `volatile` leaves out the sync of the upper file system at the unmount: for a container whose
    layer is thrown away at its end (`--rm`), or becomes one that is synced as such (a build's).
    """

    base: str
    lower: list[str]
    upper: str
    work: str
    volatile: bool


class RemoteLog(TypedDict):
    """Who else gets the log: `log_sender` says what `settings` has for which driver.

    `blocking` lets the container wait once `max_buffer` bytes wait for the other end; otherwise
    what does not fit is dropped.
    """

    driver: Literal["fluentd", "gelf", "journald", "syslog"]
    blocking: bool
    max_buffer: int
    settings: dict[str, Any]


class Log(TypedDict):
    """`path` of the file, "" for none. `max_size` in bytes, 0 for no rotation; `max_file` counts
    the current file; `attributes` stand in every record.
    """

    path: str
    max_size: int
    max_file: int
    compress: bool
    attributes: dict[str, str]
    remote: RemoteLog | None


class KeeperConfig(TypedDict):
    """keeper.json. `user` is "name|uid[:group|gid]", looked up inside the container's root; `trace` asks
    for `marks`.
    """

    id: str
    overlay: Overlay | None
    cgroup: str
    user: str
    groups: list[str]
    stdin_open: bool
    stdin_once: bool
    log: Log
    seccomp_bpf: str | None
    init: bool
    trace: NotRequired[bool]


class ExecConfig(TypedDict):
    """What an exec needs beside its OCI process."""

    process: Process
    user: str
    groups: list[str]
    stdin_open: bool
    seccomp_bpf: str | None


class RuntimeCommand(TypedDict):
    """runtime.json, beside keeper.json: another OCI runtime, which the keeper is the monitor of.

    `path` is a program's, or its name on PATH; `args` come before its own options; `root` is where
    it keeps its state.
    """

    path: str
    args: list[str]
    root: str
