"""The engine put together. Only wiring: what is made, in which order it opens and closes."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

from pier.engine.builds import Builds
from pier.engine.commit import Committer
from pier.engine.containers import Containers
from pier.engine.cow import CopyOnWrite
from pier.engine.directories import ContainerDirectories
from pier.engine.disk_usage import DiskUsages
from pier.engine.events import Events
from pier.engine.execs import Execs
from pier.engine.exits import Exits
from pier.engine.health import HealthChecks
from pier.engine.image_budget import ImageBudget
from pier.engine.images import Images
from pier.engine.keepers import Keepers
from pier.engine.launch import Launcher
from pier.engine.log_followers import LogFollowers
from pier.engine.networks import Networks
from pier.engine.recovery import Recovery
from pier.engine.registries import Registries
from pier.engine.reload import reload
from pier.engine.removal import Remover
from pier.engine.seccomp_profile import SeccompFilters
from pier.engine.services import Services
from pier.engine.settings import Settings
from pier.engine.snapshots import Snapshots
from pier.engine.stats import Stats
from pier.engine.stopping import Stopper
from pier.engine.store import ContainerStore
from pier.engine.system import System
from pier.engine.tasks import Tasks
from pier.engine.time_limits import TimeLimits
from pier.engine.traces import Traces
from pier.engine.volume_keeping import VolumeKeeping
from pier.engine.volume_mounts import VolumeMounts
from pier.engine.volume_plugins import VolumePlugins
from pier.engine.volumes import Volumes
from pier.engine.watch import HealthAction, Watch
from pier.engine.writable import WritableLayers
from pier.errors import InvalidParameter
from pier.images.store import ImageStore
from pier.kernel.cgroups import detect
from pier.storage.database import Database
from pier.storage.root import DataRoot
from pier.storage.volumes import VolumeStore

THREADS = 8


class Engine:
    """`open` before anything else; the nouns (`containers`, `execs`, …) exist from then on."""

    settings: Settings
    builds: Builds
    containers: Containers
    execs: Execs
    images: Images
    committer: Committer
    disk_usages: DiskUsages
    registries: Registries
    stats: Stats
    events: Events
    networks: Networks
    system: System
    volumes: Volumes
    snapshots: Snapshots
    cow: CopyOnWrite
    traces: Traces
    volume_keeping: VolumeKeeping

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._closers = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Open the data root, find the containers that run, apply restart policies.

        Raises Unavailable when another engine holds the data root. Undone on failure.
        """
        try:
            await self._open()
        except BaseException:
            await self._closers.aclose()
            raise

    def reload(self, settings: Settings) -> None:
        """Take over what can change while the engine runs: see `reload`."""
        reload(
            self.settings,
            settings,
            engine_id=self.system.id,
            registries=self.registries,
            events=self.events,
        )

    async def close(self) -> None:
        """End what pierd does. Containers go on: the next pierd finds them."""
        await self._closers.aclose()

    async def _open(self) -> None:
        closers = self._closers
        settings = self.settings
        os.makedirs(settings.exec_root, mode=0o711, exist_ok=True)
        root = DataRoot(settings.data_root)
        closers.callback(root.close)
        if settings.layer_size and not root.quotas.offered():
            raise InvalidParameter(
                "Storage option overlay2.size not supported. Filesystem does not support Project"
                " Quota"
            )
        database = Database(root.join("pier.db"), later=root.later)
        closers.callback(database.close)
        executor = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        closers.callback(executor.shutdown)
        tasks = Tasks()
        closers.push_async_callback(tasks.close)
        keepers = Keepers(settings.exec_root)
        await keepers.open()
        closers.push_async_callback(keepers.close)
        self.events = Events()
        store = ContainerStore(database)
        store.load()
        directories = ContainerDirectories(root, settings.exec_root)
        closers.callback(directories.close)
        volume_store = VolumeStore(root, database)
        plugins = VolumePlugins(settings.plugin_dirs)
        mounts = VolumeMounts(
            volume_store, containers=store, events=self.events, executor=executor, plugins=plugins
        )
        self.volumes = Volumes(
            volume_store,
            mounts,
            containers=store,
            events=self.events,
            executor=executor,
            plugins=plugins,
        )
        self.networks = Networks(
            settings, database=database, containers=store, events=self.events, tasks=tasks
        )
        closers.callback(self.networks.close)
        self.networks.open()
        self.traces = Traces(settings.trace_dir)
        log_followers = LogFollowers(executor)
        closers.callback(log_followers.close)
        services = Services(
            settings=settings,
            store=store,
            directories=directories,
            keepers=keepers,
            events=self.events,
            tasks=tasks,
            images=ImageStore(root, database),
            networks=self.networks,
            volumes=self.volumes,
            volume_mounts=mounts,
            writable=WritableLayers(root, directories, store),
            filters=SeccompFilters(root.join("seccomp")),
            hierarchies=detect(),
            traces=self.traces,
            log_followers=log_followers,
            executor=executor,
        )
        await self._wire(services, database)

    async def _wire(self, services: Services, database: Database) -> None:
        remover = Remover(services)
        exits = Exits(services, remover)
        self._closers.push_async_callback(exits.close)
        launcher = Launcher(services, exits, remover)
        self.execs = Execs(services)
        stopper = Stopper(services, exits, launcher)
        health = HealthChecks(services, exits, self.execs, HealthAction(services, stopper))
        watch = Watch(services, health, TimeLimits(services, stopper), self.execs)
        launcher.connect(run_started=watch.begin)
        exits.connect(
            restart_later=launcher.restart_later,
            exec_exited=self.execs.exited,
            run_ended=watch.end,
        )
        self.containers = Containers(
            services,
            exits=exits,
            launcher=launcher,
            stopper=stopper,
            remover=remover,
            watch=watch,
        )
        self.stats = Stats(services)
        self.committer = Committer(services, self.containers)
        self.snapshots = Snapshots(services, self.containers)
        self.cow = CopyOnWrite(services)
        self.volume_keeping = VolumeKeeping(services, self.containers)
        self.images = Images(services)
        self._closers.callback(self.images.close)
        ImageBudget(services, self.images, services.settings.image_budget).open()
        self.registries = Registries(services, self.images, database)
        self._closers.push_async_callback(self.registries.close)
        self.builds = Builds(services, self.containers, self.registries, database)
        self._closers.push_async_callback(self.builds.close)
        self.disk_usages = DiskUsages(
            services, self.containers, self.images, self.volumes, self.builds
        )
        self.system = System(services, database)
        await Recovery(services, exits, launcher, self.execs).run()
        await self.builds.clear_left()
        self.networks.settle()
