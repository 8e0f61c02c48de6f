"""Answer of GET /containers/{id}/stats (docker-engine-api-v1.55.yaml, ContainerStatsResponse).

Times are nanoseconds, sizes bytes. A container that does not run has the shape with its zeros.
"""

from msgspec import UNSET, Struct, UnsetType, field

from pier.model.container import ZERO_TIME


class PidsStats(Struct):
    current: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class BlkioEntry(Struct):
    """`op` is the kernel's word: "Read" on cgroup v1, "read" on v2."""

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(Struct):
    """None for what the hierarchy does not count; [] for what was counted and is nothing yet."""

    io_service_bytes_recursive: list[BlkioEntry] | None = None
    io_serviced_recursive: list[BlkioEntry] | None = None
    io_queue_recursive: list[BlkioEntry] | None = None
    io_service_time_recursive: list[BlkioEntry] | None = None
    io_wait_time_recursive: list[BlkioEntry] | None = None
    io_merged_recursive: list[BlkioEntry] | None = None
    io_time_recursive: list[BlkioEntry] | None = None
    sectors_recursive: list[BlkioEntry] | None = None


class CpuUsage(Struct):
    """`percpu_usage` is cgroup v1's."""

    total_usage: int = 0
    percpu_usage: list[int] | UnsetType = UNSET
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class ThrottlingData(Struct):
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CpuStats(Struct):
    """`system_cpu_usage` is the time of all the host's CPUs together, idle or not."""

    cpu_usage: CpuUsage = field(default_factory=CpuUsage)
    throttling_data: ThrottlingData = field(default_factory=ThrottlingData)
    system_cpu_usage: int | UnsetType = UNSET
    online_cpus: int | UnsetType = UNSET


class MemoryStats(Struct):
    """`stats` is memory.stat, whose keys differ between cgroup v1 and v2."""

    usage: int | UnsetType = UNSET
    max_usage: int | UnsetType = UNSET
    stats: dict[str, int] | UnsetType = UNSET
    failcnt: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class NetworkStats(Struct):
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class Pressure(Struct):
    """A line of a pressure file: percent of the last seconds, and microseconds in all."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


class ResourcePressure(Struct):
    some: Pressure
    full: Pressure | UnsetType = UNSET


class NetShape(Struct):
    """Limits of a container's interfaces, as `network.shaping` has them: bits per second, bytes."""

    rate_in: int
    rate_out: int
    burst: int
    delay_us: int
    jitter_us: int
    loss: float


class StatsResponse(Struct):
    """`pressure_stats` is Pier's own: stalls (PSI) by "cpu", "memory", "io", on cgroup v2.

    So is `net_shape`: the limits of its interfaces, for a container that has some.
    """

    name: str
    id: str
    os_type: str | UnsetType = "linux"
    read: str = ZERO_TIME
    preread: str = ZERO_TIME
    pids_stats: PidsStats = field(default_factory=PidsStats)
    blkio_stats: BlkioStats = field(default_factory=BlkioStats)
    num_procs: int = 0
    storage_stats: dict[str, int] = {}
    cpu_stats: CpuStats = field(default_factory=CpuStats)
    precpu_stats: CpuStats = field(default_factory=CpuStats)
    memory_stats: MemoryStats = field(default_factory=MemoryStats)
    networks: dict[str, NetworkStats] | UnsetType = UNSET
    pressure_stats: dict[str, ResourcePressure] | UnsetType = UNSET
    net_shape: NetShape | UnsetType = UNSET
