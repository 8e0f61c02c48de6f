"""GET /version and GET /info: what the engine is, and what it found on its host."""

import asyncio
import os
import platform
import re
import uuid

from msgspec import UNSET

from pier import __version__
from pier.engine import log_options
from pier.engine.cdi import devices
from pier.engine.services import Services
from pier.engine.settings import Settings
from pier.engine.settings_runtimes import STOCK
from pier.engine.volume_plugins import VolumePlugins
from pier.kernel.cgroups import Hierarchies
from pier.model.api_system import (
    Component,
    DeviceInfo,
    FirewallInfo,
    IndexInfo,
    Info,
    Platform,
    Plugins,
    RegistryConfig,
    Runtime,
    Version,
)
from pier.model.gotime import now
from pier.model.platform import host_platform
from pier.model.version import API_VERSION, ENGINE_VERSION, MIN_API_VERSION
from pier.storage.database import Database

_ID_KEY = "engine-id"
# How /proc names file systems, where dockerd names them by their kernel module.
_FILE_SYSTEMS = {"ext4": "extfs", "ext3": "extfs", "ext2": "extfs"}
_ALWAYS_INSECURE = ("::1/128", "127.0.0.0/8")
_NETWORKS = ["bridge", "dummy", "host", "ipvlan", "macvlan", "null"]
_OWN_RUNTIME = "pier-runtime"


class System:
    def __init__(self, services: Services, database: Database) -> None:
        self._services = services
        self.id = database.get_metadata(_ID_KEY) or str(uuid.uuid4())
        database.set_metadata(_ID_KEY, self.id)
        self._backing = _backing_file_system(services.settings.data_root)

    def version(self) -> Version:
        """The engine's version. `Version` is dockerd's that it stands in for."""
        host = os.uname()
        architecture = host_platform().architecture
        python = f"Python {platform.python_version()}"
        details = {
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "Arch": architecture,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": __version__,
            "GoVersion": python,
            "KernelVersion": host.release,
            "Os": "linux",
        }
        return Version(
            Platform=Platform(Name=f"Pier {__version__}"),
            Components=[Component(Name="Engine", Version=ENGINE_VERSION, Details=details)],
            Version=ENGINE_VERSION,
            ApiVersion=API_VERSION,
            MinAPIVersion=MIN_API_VERSION,
            GitCommit=__version__,
            GoVersion=python,
            Os="linux",
            Arch=architecture,
            KernelVersion=host.release,
            BuildTime="",
        )

    async def info(self) -> Info:
        """What `docker info` shows. Reads a few files of /proc, which do not block."""
        services, settings = self._services, self._services.settings
        groups = services.hierarchies
        host = os.uname()
        release = _os_release()
        statuses = [container.record.State.Status for container in services.store]
        running = statuses.count("running") + statuses.count("restarting")
        paused = statuses.count("paused")
        return Info(
            ID=self.id,
            Containers=len(statuses),
            ContainersRunning=running,
            ContainersPaused=paused,
            ContainersStopped=len(statuses) - running - paused,
            Images=services.images.count(),
            Driver="overlay2",
            DriverStatus=[
                ("Backing Filesystem", self._backing),
                ("Supports d_type", "true"),
                ("Using metacopy", "false"),
                ("Native Overlay Diff", "true"),
                ("userxattr", "false"),
            ],
            CDISpecDirs=list(settings.cdi_spec_dirs),
            FirewallBackend=FirewallInfo(Driver="nftables"),
            KernelMemoryTCP=_has(groups, "memory", "memory.kmem.tcp.limit_in_bytes", version=1)
            or UNSET,
            DiscoveredDevices=_devices(settings) or UNSET,
            Plugins=Plugins(
                Volume=["local", *VolumePlugins(settings.plugin_dirs).names()],
                Network=_NETWORKS,
                Log=list(log_options.DRIVERS),
            ),
            MemoryLimit=groups.home("memory") is not None,
            SwapLimit=groups.has_swap_limit(),
            CpuCfsPeriod=_has_cfs(groups),
            CpuCfsQuota=_has_cfs(groups),
            CPUShares=groups.home("cpu") is not None,
            CPUSet=groups.home("cpuset") is not None,
            PidsLimit=groups.home("pids") is not None,
            OomKillDisable=_has(groups, "memory", "memory.oom_control", version=1),
            IPv4Forwarding=_read("/proc/sys/net/ipv4/ip_forward") == "1",
            Debug=settings.debug,
            NFd=len(os.listdir("/proc/self/fd")),
            NGoroutines=len(asyncio.all_tasks()),
            SystemTime=now(),
            LoggingDriver=settings.log_driver,
            CgroupDriver="cgroupfs",
            CgroupVersion="2" if groups.mode == "v2" else "1",
            NEventsListener=services.events.listener_count,
            KernelVersion=host.release,
            OperatingSystem=release.get("PRETTY_NAME", "Linux"),
            OSVersion=release.get("VERSION_ID", ""),
            OSType="linux",
            Architecture=host.machine,
            NCPU=len(os.sched_getaffinity(0)),
            MemTotal=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            DockerRootDir=settings.data_root,
            Name=host.nodename,
            HttpProxy=_masked(os.environ.get("HTTP_PROXY", "")),
            HttpsProxy=_masked(os.environ.get("HTTPS_PROXY", "")),
            NoProxy=os.environ.get("NO_PROXY", ""),
            Labels=list(settings.labels),
            ServerVersion=ENGINE_VERSION,
            Runtimes=_runtimes(settings),
            DefaultRuntime=settings.default_runtime,
            SecurityOptions=_security_options(settings),
            RegistryConfig=_registry_config(settings),
            Warnings=(_warnings(groups) + _listening_warnings(settings)) or None,
        )


def _masked(url: str) -> str:
    """A proxy without its user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "xxxxx:xxxxx@", url)


def _devices(settings: Settings) -> list[DeviceInfo]:
    """What `--device` and `--gpus` may ask for by a name that a file describes."""
    return [DeviceInfo(Source="cdi", ID=name) for name in sorted(devices(settings.cdi_spec_dirs))]


def _runtimes(settings: Settings) -> dict[str, Runtime]:
    own = {name: Runtime(path=_OWN_RUNTIME) for name in STOCK}
    others = {
        name: Runtime(path=entry.path or _OWN_RUNTIME, runtimeArgs=list(entry.args))
        for name, entry in settings.runtimes.items()
    }
    return own | others


def _security_options(settings: Settings) -> list[str]:
    found = []
    if _read("/sys/module/apparmor/parameters/enabled") == "Y":
        found.append("name=apparmor")
    if os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        profile = settings.seccomp_profile
        named = profile if profile in ("", "unconfined") else "custom"
        found.append(f"name=seccomp,profile={named or 'builtin'}")
    if os.path.exists("/proc/self/ns/cgroup"):
        found.append("name=cgroupns")
    if settings.no_new_privileges:
        found.append("name=no-new-privileges")
    return found


def _registry_config(settings: Settings) -> RegistryConfig:
    """Registries that are trusted without TLS: networks, and hosts, as dockerd divides them."""
    networks = [entry for entry in settings.insecure_registries if "/" in entry]
    hosts = [entry for entry in settings.insecure_registries if "/" not in entry]
    indexes = {
        host: IndexInfo(Name=host, Mirrors=[], Secure=False, Official=False) for host in hosts
    }
    mirrors = [url.rstrip("/") + "/" for url in settings.registry_mirrors]
    indexes["docker.io"] = IndexInfo(Name="docker.io", Mirrors=mirrors, Secure=True, Official=True)
    return RegistryConfig(
        InsecureRegistryCIDRs=[*networks, *_ALWAYS_INSECURE],
        IndexConfigs=indexes,
        Mirrors=mirrors,
    )


def _listening_warnings(settings: Settings) -> list[str]:
    """In dockerd's words: a TCP socket that asks nobody for a certificate is root for everybody."""
    if settings.tlsverify:
        return []
    how = (
        "[DEPRECATION NOTICE]: API is accessible on {} without encryption.\n"
        "         Access to the remote API is equivalent to root access on the host."
    )
    if settings.tls:
        how = (
            "[DEPRECATION NOTICE]: API is accessible on {} without TLS client verification.\n"
            "         Access to the remote API is equivalent to root access on the host."
        )
    return [how.replace("{}", host) for host in settings.hosts if host.startswith("tcp://")]


def _warnings(groups: Hierarchies) -> list[str]:
    """What this host cannot limit, in dockerd's words."""
    missing = {
        "memory": "WARNING: No memory limit support",
        "cpu": "WARNING: No cpu shares support",
        "cpuset": "WARNING: No cpuset support",
        "pids": "WARNING: No pids limit support",
        "blkio": "WARNING: No blkio throttle support",
        "devices": "WARNING: No device cgroup support",
        "freezer": "WARNING: No freezer support: containers cannot be paused",
    }
    found = [text for controller, text in missing.items() if groups.home(controller) is None]
    if groups.home("memory") is not None and not groups.has_swap_limit():
        found.append("WARNING: No swap limit support")
    if groups.home("cpu") is not None and not _has_cfs(groups):
        found.append("WARNING: No cpu cfs quota support")
    return found


def _has_cfs(groups: Hierarchies) -> bool:
    home = groups.home("cpu")
    return home is not None and (
        home.version == 2 or _has(groups, "cpu", "cpu.cfs_quota_us", version=1)
    )


def _has(groups: Hierarchies, controller: str, file: str, *, version: int) -> bool:
    home = groups.home(controller)
    return home is not None and home.version == version and os.path.exists(f"{home.mount}/{file}")


def _backing_file_system(path: str) -> str:
    """The type of the file system that `path` is on, from proc_pid_mountinfo(5)."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                kind = after.split()[0]
                return _FILE_SYSTEMS.get(kind, kind)
    return "unknown"


def _os_release() -> dict[str, str]:
    """os-release(5), from the first of its two places."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
