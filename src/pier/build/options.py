"""What a build is asked for: the parameters of POST /build, parsed."""

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from pier.build.caches.entry import CacheEntry
from pier.build.result import Order
from pier.build.session import ClientSession
from pier.model.container import Ulimit
from pier.model.platform import Platform
from pier.model.reference import Reference

NETWORK_HOST, INSECURE = "network.host", "security.insecure"

# What BuildKit calls the host of every step, so that it makes no difference.
SANDBOX = "buildkitsandbox"


class Limits(Struct, frozen=True):
    """Limits of the steps' containers, as in `HostConfig`; 0 and "" are none."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    shm_size: int = 0
    ulimits: Sequence[Ulimit] = ()


class BuildOptions(Struct, frozen=True):
    """`arguments` with None take nothing: the client's environment does not have them.

    `session` is the client's side of the build, None where it has none. `allowed` are entitlements:
    "network.host", "security.insecure". `uncached` are stages that take nothing from the cache
    (--no-cache-filter), by name or number.
    `contexts` are named contexts, see `named`.
    `explain` is told for each step that misses the cache what it is and why. `shell` is told the ID of a container for each step
    that fails, with a shell in its state which the client starts; `has_terminal` gives it one.
    `remove` takes the containers of steps away that succeeded, `force_remove` all of them.

    `platforms` are several to be built for, instead of `platform`; `is_list` makes an index of one
    as well. `outputs` are what is made of the result, an image with the names of `references` when
    there are none. `provenance` and `sbom` as in `BuildResult`. `cache_imports` and
    `cache_exports` are caches elsewhere. `frontend_attributes` are those of BuildKit's client,
    for provenance, None where it is no such client. With `is_cache_from_alone` images of
    `cache_from` are all the cache there is, as with Docker's classic builder. `remote`
    is the URL of a context that is fetched. `hostname` is that of steps, each its own for "".
    """

    dockerfile: str = ""
    references: Sequence[Reference] = ()
    arguments: Mapping[str, str | None] = {}
    labels: Mapping[str, str] = {}
    target: str = ""
    platform: Platform | None = None
    network: str = ""
    extra_hosts: Sequence[str] = ()
    security_opts: Sequence[str] = ()
    cache_from: Sequence[str] = ()
    is_cache_from_alone: bool = False
    limits: Limits = Limits()
    session: ClientSession | None = None
    allowed: Collection[str] = (NETWORK_HOST,)
    uncached: Collection[str] = ()
    contexts: Mapping[str, str] = {}
    explain: Callable[[str, str], None] | None = None
    shell: Callable[[str], None] | None = None
    has_terminal: bool = False
    use_cache: bool = True
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    quiet: bool = False
    platforms: Sequence[Platform] = ()
    is_list: bool = False
    outputs: Sequence[Order] = ()
    provenance: Mapping[str, str] | None = None
    sbom: Mapping[str, str] | None = None
    cache_imports: Sequence[CacheEntry] = ()
    cache_exports: Sequence[CacheEntry] = ()
    frontend_attributes: Mapping[str, str] | None = None
    remote: str = ""
    hostname: str = ""


def attributes_of(options: BuildOptions) -> dict[str, str]:
    """Return what is asked for under the names that BuildKit's frontend has for it."""
    found = {f"build-arg:{k}": v for k, v in options.arguments.items() if v is not None}
    found |= {f"label:{name}": value for name, value in options.labels.items()}
    if options.target:
        found["target"] = options.target
    if options.network:
        found["force-network-mode"] = options.network
    if options.extra_hosts:
        found["add-hosts"] = ",".join(options.extra_hosts)
    return found
