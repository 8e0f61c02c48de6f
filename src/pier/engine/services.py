"""What the parts of the engine share: made once, by `engine`, and handed to each."""

from concurrent.futures import Executor
from dataclasses import dataclass

from pier.engine.directories import ContainerDirectories
from pier.engine.events import Events
from pier.engine.keepers import Keepers
from pier.engine.log_followers import LogFollowers
from pier.engine.networks import Networks
from pier.engine.seccomp_profile import SeccompFilters
from pier.engine.settings import Settings
from pier.engine.store import ContainerStore
from pier.engine.tasks import Tasks
from pier.engine.traces import Traces
from pier.engine.volume_mounts import VolumeMounts
from pier.engine.volumes import Volumes
from pier.engine.writable import WritableLayers
from pier.images.store import ImageStore
from pier.kernel.cgroups import Hierarchies


@dataclass(frozen=True, slots=True)
class Services:
    """`executor` runs what blocks: reading logs, measuring trees, images."""

    settings: Settings
    store: ContainerStore
    directories: ContainerDirectories
    keepers: Keepers
    events: Events
    tasks: Tasks
    images: ImageStore
    networks: Networks
    volumes: Volumes
    volume_mounts: VolumeMounts
    filters: SeccompFilters
    hierarchies: Hierarchies
    writable: WritableLayers
    traces: Traces
    log_followers: LogFollowers
    executor: Executor
