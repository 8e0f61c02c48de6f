"""Start, exit, stop, restart and removal, in orders that real keepers give only by chance.

Everything is real (store, database, directories, events) but the keepers, whose processes would
need root: `ScriptedKeepers` answers as a test tells it to.
"""

import asyncio
import errno
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from pier.engine.containers import Containers
from pier.engine.directories import ContainerDirectories
from pier.engine.events import Events
from pier.engine.execs import Execs
from pier.engine.exits import Exits
from pier.engine.health import HealthChecks
from pier.engine.keepers import ExitRecord, KeeperState, Started
from pier.engine.launch import Launcher
from pier.engine.log_followers import LogFollowers
from pier.engine.recovery import Recovery
from pier.engine.removal import Remover
from pier.engine.seccomp_profile import SeccompFilters
from pier.engine.services import Services
from pier.engine.settings import Settings
from pier.engine.stopping import Stopper
from pier.engine.store import ContainerStore
from pier.engine.tasks import Tasks
from pier.engine.time_limits import TimeLimits
from pier.engine.traces import Traces
from pier.engine.volume_mounts import VolumeMounts
from pier.engine.volume_plugins import VolumePlugins
from pier.engine.volumes import Volumes
from pier.engine.watch import HealthAction, Watch
from pier.engine.writable import WritableLayers
from pier.errors import (
    Conflict,
    Internal,
    InvalidParameter,
    NotFound,
    NotModified,
    StartFailed,
    Unavailable,
)
from pier.model.api_containers import AttachOptions
from pier.model.api_execs import ExecCreateRequest
from pier.model.container import ContainerConfig, ContainerRecord, HostConfig, RestartPolicy
from pier.model.filters import Filters
from pier.model.gotime import now, now_ns
from pier.storage.database import Database
from pier.storage.root import DataRoot
from pier.storage.volumes import VolumeStore

SIGTERM, SIGKILL = int(signal.SIGTERM), int(signal.SIGKILL)


class ScriptedKeeper:
    """Ends on SIGKILL, and on the signals in `keepers.deadly`."""

    def __init__(self, keepers, events):
        self.keepers, self.events = keepers, events
        self.signals, self.attached, self.ended, self.closed = [], [], False, False

    def attach_nowait(self, client_fd, **options):
        self.attached.append(os.fstat(client_fd).st_ino)
        answer = asyncio.get_running_loop().create_future()
        answer.set_result({})
        return answer

    async def attach(self, client_fd, **options):
        await self.attach_nowait(client_fd, **options)

    async def start(self):
        await asyncio.sleep(0)
        begun = Started(4711, now_ns())
        if self.keepers.failure is not None:
            raise self.keepers.failure
        if self.keepers.ends_at_once:
            self.end(0)
        return begun

    async def exec(self, exec_id, config, **options):
        if self.keepers.failure is not None:
            raise self.keepers.failure
        if self.keepers.ends_at_once:
            self.events.exec_exited(exec_id, 5)
        return 4712

    async def kill(self, number):
        if self.ended:
            raise Conflict("container is not running")
        self.signals.append(number)
        if number in self.keepers.deadly:
            asyncio.get_running_loop().call_soon(self.end, 128 + number)

    async def pause(self):
        await asyncio.sleep(0)

    resume = pause

    async def state(self):
        if self.closed:
            raise Unavailable("the keeper is gone")
        return KeeperState(4711, "running", {})

    async def bye(self):
        self.vanish()

    def end(self, code, *, oom=False):
        if not self.ended:
            self.ended = True
            self.events.exited(ExitRecord(code, oom, now_ns()))
            self.vanish()

    def vanish(self):
        if not self.closed:
            self.closed = True
            self.events.gone()


class ScriptedKeepers:
    def __init__(self, exec_root):
        self.exec_root = exec_root
        self.failure = None
        self.ends_at_once = False
        self.deadly = {SIGTERM, SIGKILL}
        self.spawned = []
        self.living = {}
        self.records = {}

    async def spawn(self, container_id, events):
        assert "config.json" in os.listdir(f"{self.exec_root}/containers/{container_id}")
        keeper = ScriptedKeeper(self, events)
        self.spawned.append(keeper)
        return keeper

    async def reconnect(self, container_id, events):
        keeper = self.living.get(container_id)
        if keeper is not None:
            keeper.events = events
        return keeper

    def exit_record(self, container_id):
        return self.records.get(container_id)

    def clean_nowait(self, container_id, cgroup):
        self.clean(container_id, cgroup)
        return True

    def clean(self, container_id, cgroup):
        shutil.rmtree(f"{self.exec_root}/containers/{container_id}", ignore_errors=True)


class NoNetworks:
    """Every container has the host's network: nothing is taken, made or given back."""

    def __init__(self):
        self.endpoints = self

    def allocate(self, container):
        return None

    def attach(self, container):
        pass

    def renamed(self, container):
        pass

    def release(self, container):
        pass

    def surroundings(self, record):
        return None


class NoImages:
    """All images were removed by force, long ago."""

    def get(self, ref):
        raise NotFound(f"No such image: {ref}")

    def __contains__(self, image_id):
        return False

    def collect(self, *, in_use):
        return []


class House:
    """An engine without API, images and kernel."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.root = DataRoot(str(tmp_path / "data"))
        self.database = Database(self.root.join("pier.db"), later=self.root.later)
        self.executor = ThreadPoolExecutor(2)
        self.keepers = ScriptedKeepers(str(tmp_path / "run"))
        self.tasks = Tasks()
        self.events = Events()
        self.store = ContainerStore(self.database)
        self.store.load()
        self.directories = ContainerDirectories(self.root, str(tmp_path / "run"))
        stored = VolumeStore(self.root, self.database)
        shared = {
            "containers": self.store,
            "events": self.events,
            "executor": self.executor,
            "plugins": VolumePlugins(()),
        }
        mounts = VolumeMounts(stored, **shared)
        self.services = Services(
            settings=Settings(data_root=self.root.path, exec_root=str(tmp_path / "run")),
            store=self.store,
            directories=self.directories,
            keepers=self.keepers,
            events=self.events,
            tasks=self.tasks,
            images=NoImages(),
            networks=NoNetworks(),
            volumes=Volumes(stored, mounts, **shared),
            volume_mounts=mounts,
            filters=SeccompFilters(self.root.join("seccomp")),
            hierarchies=None,
            writable=WritableLayers(self.root, self.directories, self.store),
            traces=Traces(""),
            log_followers=LogFollowers(self.executor),
            executor=self.executor,
        )
        remover = Remover(self.services)
        self.exits = Exits(self.services, remover)
        self.launcher = Launcher(self.services, self.exits, remover)
        self.execs = Execs(self.services)
        stopper = Stopper(self.services, self.exits, self.launcher)
        health = HealthChecks(
            self.services, self.exits, self.execs, HealthAction(self.services, stopper)
        )
        watch = Watch(self.services, health, TimeLimits(self.services, stopper), self.execs)
        self.launcher.connect(run_started=watch.begin)
        self.exits.connect(
            restart_later=self.launcher.restart_later,
            exec_exited=self.execs.exited,
            run_ended=watch.end,
        )
        self.containers = Containers(
            self.services,
            exits=self.exits,
            launcher=self.launcher,
            stopper=stopper,
            remover=remover,
            watch=watch,
        )

    def add(self, name="web", **host):
        record = ContainerRecord(
            Id=os.urandom(32).hex(),
            Name=self.store.reserve_name(name),
            Created=now(),
            Image="sha256:0",
            Config=ContainerConfig(Image="busybox", Cmd=["true"], Labels={"tier": "a"}),
            HostConfig=HostConfig(SecurityOpt=["seccomp=unconfined"], ShmSize=1 << 20, **host),
            Path="true",
            Args=[],
            layers=[],
        )
        self.directories.make(record.Id)
        return self.store.add(record)

    def actions(self):
        return [event.Action for event in self.events._kept]

    def next_event(self, action):
        """An awaitable for the next such event from now on."""
        stream = self.events.subscribe(
            since=None, until=None, filters=Filters({"event": (action,)})
        )
        return anext(stream)

    def saved(self):
        """What a pierd that starts now would find in the database."""
        store = ContainerStore(self.database)
        store.load()
        return {container.name: container.record.State.Status for container in store}

    async def close(self):
        await self.exits.close()
        await self.tasks.close()
        self.executor.shutdown()
        self.directories.close()
        self.database.close()
        self.root.close()


def scenario(function):
    """Run an async test in a house."""

    def test(tmp_path):
        async def main():
            house = House(tmp_path)
            try:
                async with asyncio.timeout(20):
                    await function(house)
            finally:
                await house.close()

        asyncio.run(main())

    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test


@scenario
async def test_a_life(house):
    container = house.add()
    await house.containers.start("web")
    assert container.record.State.Pid == 4711
    assert house.saved() == {"web": "running"}
    waiting = house.containers.wait("web", "")
    house.keepers.spawned[0].end(3)
    assert (await waiting).StatusCode == 3
    assert house.saved() == {"web": "exited"}
    await house.containers.remove("web", force=False, volumes=False, link=False)
    assert house.saved() == {}
    assert house.directories.data_ids() == []
    assert house.actions() == ["start", "die", "destroy"]
    die = house.events._kept[1].Actor.Attributes
    assert die | {"execDuration": "0"} == {
        "exitCode": "3",
        "execDuration": "0",
        "image": "busybox",
        "name": "web",
        "tier": "a",
    }


@scenario
async def test_an_exit_before_the_answer_to_the_start(house):
    container = house.add()
    house.keepers.ends_at_once = True
    await house.containers.start("web")
    assert (container.record.State.Status, container.record.State.ExitCode) == ("exited", 0)
    assert container.record.State.StartedAt <= container.record.State.FinishedAt
    assert house.actions() == ["start", "die"]
    await house.containers.start("web")
    assert house.actions() == ["start", "die"] * 2


@scenario
async def test_auto_remove_answers_those_who_wait_for_it(house):
    house.add(AutoRemove=True)
    house.keepers.ends_at_once = True
    removed = house.containers.wait("web", "removed")
    ended = house.containers.wait("web", "next-exit")
    await house.containers.start("web")
    assert (await removed).StatusCode == (await ended).StatusCode == 0
    assert house.saved() == {}
    assert house.directories.data_ids() == []


@pytest.mark.parametrize(
    ("step", "number", "code", "kind"),
    [
        ("exec", errno.ENOENT, 127, InvalidParameter),
        ("exec", errno.EACCES, 126, InvalidParameter),
        ("exec", errno.EISDIR, 126, InvalidParameter),
        ("mount", errno.ENOTDIR, 127, InvalidParameter),
        ("mount", errno.EIO, 128, Internal),
        ("user", 0, 128, Internal),
    ],
)
@pytest.mark.parametrize("auto_remove", [False, True])
def test_a_start_that_fails_leaves_nothing(tmp_path, step, number, code, kind, auto_remove):
    async def main(house):
        container = house.add(AutoRemove=auto_remove)
        house.keepers.failure = StartFailed("no way", step=step, errno=number)
        reader, writer = os.pipe()
        attachment = house.containers.prepare_attach("web", AttachOptions(stdout=True, stream=True))
        await attachment.hand_over(writer, b"")
        os.close(writer)
        with pytest.raises(kind, match="no way"):
            await house.containers.start("web")
        assert os.read(reader, 1) == b"", "the client that waited was let go"
        os.close(reader)
        assert house.directories.bundle_ids() == []
        state = container.record.State
        assert (state.ExitCode, "no way" in state.Error) == (code, True)
        assert house.saved() == ({} if auto_remove else {"web": "created"})
        house.keepers.failure = None
        if not auto_remove:
            await house.containers.start("web")
            assert state.Error == ""

    scenario(main)(tmp_path)


@scenario
async def test_stopping(house):
    container = house.add()
    with pytest.raises(NotModified):
        await house.containers.stop("web", signal="", timeout_s=None)
    await house.containers.start("web")
    await house.containers.stop("web", signal="", timeout_s=None)
    assert house.keepers.spawned[0].signals == [SIGTERM]
    assert container.record.State.ExitCode == 143
    assert container.record.stopped_by_user
    assert house.actions() == ["start", "kill", "die", "stop"]
    with pytest.raises(Conflict, match=f"container {container.id} is not running"):
        await house.containers.kill("web", signal="SIGTERM")


@scenario
async def test_stopping_what_does_not_listen(house):
    house.add()
    house.keepers.deadly = {SIGKILL}
    await house.containers.start("web")
    await house.containers.stop("web", signal="SIGINT", timeout_s=0)
    assert house.keepers.spawned[0].signals == [signal.SIGINT, SIGKILL]


@scenario
async def test_killing_what_is_paused_thaws_it(house):
    container = house.add()
    await house.containers.start("web")
    await house.containers.pause("web")
    with pytest.raises(Conflict, match="is already paused"):
        await house.containers.pause("web")
    with pytest.raises(Conflict, match="cannot start a paused container"):
        await house.containers.start("web")
    await house.containers.kill("web", signal="")
    assert container.record.State.Status == "exited"
    with pytest.raises(Conflict, match="is not paused"):
        await house.containers.unpause("web")


@scenario
async def test_a_restart_policy_brings_it_back_until_a_user_stops_it(house):
    container = house.add(RestartPolicy=RestartPolicy("always"))
    await house.containers.start("web")
    restarted = house.next_event("start")
    house.keepers.spawned[0].end(1)
    assert container.record.State.Status == "restarting"
    await restarted
    assert container.record.RestartCount == 1
    await house.containers.stop("web", signal="", timeout_s=None)
    assert container.record.State.Status == "exited"


@scenario
async def test_stopping_between_restarts(house):
    container = house.add(RestartPolicy=RestartPolicy("on-failure"))
    await house.containers.start("web")
    house.keepers.spawned[0].end(1)
    await house.containers.stop("web", signal="", timeout_s=None)
    assert container.record.State.Status == "exited"
    await asyncio.sleep(0.15)
    assert len(house.keepers.spawned) == 1


@scenario
async def test_a_users_restart_is_no_removal(house):
    container = house.add(AutoRemove=True)
    await house.containers.start("web")
    await house.containers.restart("web", signal="", timeout_s=None)
    assert (container.record.State.Status, len(house.keepers.spawned)) == ("running", 2)
    assert house.actions() == ["start", "kill", "die", "stop", "start", "restart"]


@scenario
async def test_removing(house):
    container = house.add()
    await house.containers.start("web")
    with pytest.raises(Conflict) as failure:
        await house.containers.remove("web", force=False, volumes=False, link=False)
    assert failure.value.message == (
        'cannot remove container "web": container is running: '
        "stop the container before removing or force remove"
    )
    removals = await asyncio.gather(
        *(
            house.containers.remove(container.id, force=True, volumes=False, link=False)
            for _ in range(3)
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in removals] == [type(None), Conflict, Conflict]
    with pytest.raises(NotFound):
        await house.containers.start("web")


@scenario
async def test_a_keeper_that_was_killed(house):
    container = house.add()
    await house.containers.start("web")
    waiting = house.containers.wait("web", "")
    house.keepers.spawned[0].vanish()
    answer = await waiting
    assert answer.StatusCode == 137
    assert "keeper" in answer.Error.Message
    assert house.directories.bundle_ids() == []
    assert container.record.State.Status == "exited"


@scenario
async def test_names(house):
    first, second = house.add("web"), house.add("db")
    with pytest.raises(Conflict) as failure:
        house.store.reserve_name("/web")
    assert failure.value.message == (
        f'Conflict. The container name "/web" is already in use by container "{first.id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    await house.containers.rename("db", "cache")
    assert house.store.get("/cache") is second
    with pytest.raises(NotFound, match="No such container: db"):
        house.store.get("db")
    assert house.store.get(first.id[:12]) is first
    with pytest.raises(Conflict, match="Error when allocating new name: Conflict"):
        await house.containers.rename("cache", "web")
    assert set(house.saved()) == {"web", "cache"}


@scenario
async def test_listing(house):
    house.add("old")
    house.add("new")
    await house.containers.start("new")

    async def names(all_=False, limit=0, **filters):
        parsed = Filters({key: tuple(values) for key, values in filters.items()})
        rows = await house.containers.list(all=all_, limit=limit, size=False, filters=parsed)
        return [row.Names[0] for row in rows]

    assert await names() == ["/new"]
    assert await names(all_=True) == ["/new", "/old"]
    assert await names(limit=1) == ["/new"]
    assert await names(status=["created"]) == ["/old"]
    assert await names(name=["^/ol"], all_=True) == ["/old"]
    assert await names(before=["new"]) == []  # of all filters only status shows stopped ones
    assert await names(before=["new"], all_=True) == ["/old"]
    assert await names(since=["old"]) == ["/new"]
    assert await names(label=["tier=a"]) == ["/new"]
    assert await names(label=["tier=b"]) == []
    assert await names(exited=["0"]) == []
    assert await names(volume=["/x"]) == []
    with pytest.raises(InvalidParameter, match="invalid filter 'status=up'"):
        await names(status=["up"])


@scenario
async def test_execs(house):
    house.add()
    with pytest.raises(Conflict, match="is not running"):
        house.execs.create("web", ExecCreateRequest(Cmd=["true"]))
    await house.containers.start("web")
    made = house.execs.create("web", ExecCreateRequest(Cmd=["sh", "-c", "true"]))
    assert (await house.execs.inspect(made.Id)).ExitCode is None
    start = house.execs.prepare_start(made.Id, tty=False, detach=True, console_size=None)
    house.keepers.ends_at_once = True
    await start.detached()
    shown = await house.execs.inspect(made.Id)
    assert (shown.ExitCode, shown.Running) == (5, False)
    with pytest.raises(Conflict, match="has already run"):
        house.execs.prepare_start(made.Id, tty=False, detach=True, console_size=None)
    failing = house.execs.create("web", ExecCreateRequest(Cmd=["nope"]))
    house.keepers.failure = StartFailed("not found", step="exec", errno=errno.ENOENT)
    start = house.execs.prepare_start(failing.Id, tty=False, detach=True, console_size=None)
    with pytest.raises(InvalidParameter, match=r"OCI runtime exec failed: .*not found"):
        await start.detached()
    assert (await house.execs.inspect(failing.Id)).ExitCode == 127
    unstarted = house.execs.create("web", ExecCreateRequest(Cmd=["true"]))
    house.keepers.spawned[0].end(0)
    with pytest.raises(NotFound, match="No such exec instance"):
        await house.execs.inspect(unstarted.Id)


@scenario
async def test_recovery(house):
    """One lives, one ended while nobody looked, one vanished, one is half removed."""
    names = ("living", "ended", "lost", "again")
    for name in names:
        policy = RestartPolicy("always" if name == "again" else "")
        house.add(name, RestartPolicy=policy)
        await house.containers.start(name)
    orphan = "f" * 64
    house.directories.make(orphan)
    os.mkdir(house.directories.bundle(orphan))
    await house.exits.close()
    house.store = ContainerStore(house.database)
    house.store.load()
    object.__setattr__(house.services, "store", house.store)
    house.exits._closing = False
    ids = {container.name: container.id for container in house.store}
    house.keepers.living = {ids["living"]: house.keepers.spawned[0]}
    house.keepers.records = {ids["ended"]: ExitRecord(9, oom=True, at=now_ns())}
    restarted = house.next_event("start")
    await Recovery(house.services, house.exits, house.launcher, house.execs).run()
    states = {container.name: container.record.State for container in house.store}
    assert states["living"].Status == "running"
    assert (states["ended"].Status, states["ended"].ExitCode) == ("exited", 9)
    assert states["ended"].OOMKilled
    assert (states["lost"].Status, states["lost"].ExitCode) == ("exited", 137)
    assert states["again"].Status == "restarting"
    assert orphan not in house.directories.data_ids()
    assert set(house.directories.bundle_ids()) == {ids["living"]}
    await restarted
    assert states["again"].Status == "running"
    house.keepers.spawned[0].end(0)
    assert states["living"].Status == "exited"
