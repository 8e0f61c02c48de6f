"""Cgroups for real, in whatever hierarchies this host has."""

import errno
import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from pier.kernel.cgroups import Cgroup, Hierarchies, detect, namespace_mounts
from pier.kernel.cgroups.pressure import read_pressure

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make cgroups")

MIB = 1 << 20
HOG = "b = []\nwhile True: b.append(bytearray(b'x' * (1 << 20)))"
FORK_UNTIL_REFUSED = """
import os, signal
children = []
try:
    while len(children) < 50:
        pid = os.fork()
        if not pid:
            signal.pause()
        children.append(pid)
except BlockingIOError:
    pass
for pid in children:
    os.kill(pid, 9)
os._exit(len(children))
"""

FORK_FOR_EVER = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def hierarchies():
    return detect()


@pytest.fixture
def parent(hierarchies):
    """A path of our own, removed with everything below it whatever the test did."""
    path = f"/pier-test-{os.getpid()}"
    yield path
    group = Cgroup(hierarchies, path)
    group.kill()
    group.remove()
    assert directories(hierarchies, path) == []


@pytest.fixture
def group(hierarchies, parent):
    return Cgroup(hierarchies, f"{parent}/one")


def directories(hierarchies: Hierarchies, path: str) -> list[str]:
    return [h.mount for h in hierarchies.all if os.path.exists(h.mount + path)]


def require(hierarchies: Hierarchies, controller: str, version: int | None = None) -> str:
    """Return the mount of `controller`, or skip."""
    home = hierarchies.home(controller)
    if home is None or version not in {None, home.version}:
        pytest.skip(f"no {controller} controller{f' of v{version}' if version else ''} here")
    return home.mount


def content(mount: str, group: Cgroup, name: str) -> str:
    with open(f"{mount}{group.path}/{name}") as file:
        return file.read().strip()


def inside(group: Cgroup, *argv: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdout=stdout,
        preexec_fn=group.join,  # noqa: PLW1509  # no threads here while it runs
    )


def drain(fd: int) -> None:
    """Read until nothing is left, BlockingIOError; what `yes` fills is never empty for long."""
    while os.read(fd, 1 << 16):
        pass


def sleeper(group: Cgroup) -> subprocess.Popen[bytes]:
    return inside(group, "sleep", "1000")


def test_this_host_is_described(hierarchies):
    mounted = {h.mount for h in hierarchies.all}
    with open("/proc/self/mountinfo") as file:
        fields = [line.split() for line in file]
    seen = {f[4] for f in fields if f[f.index("-") + 1] in {"cgroup", "cgroup2"}}
    assert mounted <= seen
    versions = {h.version for h in hierarchies.all}
    assert hierarchies.mode == {(1,): "v1", (2,): "v2", (1, 2): "hybrid"}[tuple(sorted(versions))]


def test_create_is_idempotent_and_remove_leaves_only_the_parent(hierarchies, group, parent):
    group.create({"pids": {"limit": 7}})
    group.create({"pids": {"limit": 8}})
    assert directories(hierarchies, group.path)
    group.remove()
    assert directories(hierarchies, group.path) == []
    assert directories(hierarchies, parent)
    group.remove()


def test_add_moves_a_process_everywhere(hierarchies, group):
    group.create({})
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            group.add(process.pid)
            assert group.pids() == [process.pid]
            with open(f"/proc/{process.pid}/cgroup") as file:
                paths = [line.rstrip().split(":", 2) for line in file]
            named = {n for h in hierarchies.all for n in (*h.controllers, f"name={h.name}")}
            moved = {c for _, cs, path in paths for c in cs.split(",") if path == group.path}
            assert moved - {""} == {c for _, cs, _ in paths for c in cs.split(",") if c in named}
        finally:
            process.kill()


def test_join_is_the_same_as_add(hierarchies, parent):
    groups = [Cgroup(hierarchies, f"{parent}/{name}") for name in ("joined", "added")]
    shown = []
    for group, place in zip(groups, (Cgroup.join, lambda g: g.add(os.getpid())), strict=True):
        group.create({})
        done = subprocess.run(
            ["cat", "/proc/self/cgroup"],
            preexec_fn=lambda group=group, place=place: place(group),
            capture_output=True,
            text=True,
            check=True,
        )
        shown.append(done.stdout.replace(group.path, "X"))
    assert shown[0] == shown[1]
    assert "X" in shown[0]


def test_join_with_a_fresh_cpuset_works_below_a_foreign_parent(hierarchies, parent):
    """A parent that others made has empty cpuset.cpus and no clone_children."""
    mount = require(hierarchies, "cpuset", 1)
    os.mkdir(mount + parent)
    group = Cgroup(hierarchies, f"{parent}/one")
    group.create({"cpu": {"cpus": "0"}})
    assert content(mount, group, "cpuset.cpus") == "0"
    assert content(mount, group, "cpuset.mems") == "0"
    assert inside(group, "true").wait() == 0


def test_memory_limit_kills_and_tells(hierarchies, group):
    require(hierarchies, "memory")
    group.create({"memory": {"limit": 32 * MIB}})
    event_fd = group.oom_event_fd()
    try:
        with pytest.raises(BlockingIOError):
            os.read(event_fd, 4096)
        assert group.oom_kills() == 0
        assert inside(group, sys.executable, "-c", HOG).wait() == -signal.SIGKILL
        assert select.select([event_fd], [], [], 5)[0] == [event_fd]
        assert os.read(event_fd, 4096)
        assert group.oom_kills() == 1
    finally:
        os.close(event_fd)
    memory = group.stats()["memory"]
    assert memory["limit"] == 32 * MIB
    assert memory["oom_kills"] == 1
    assert memory["failcnt"] > 0


def test_memory_and_swap_go_up_and_down_in_any_order(hierarchies, group):
    mount = require(hierarchies, "memory", 1)
    if not hierarchies.has_swap_limit():
        pytest.skip("no swap accounting")
    group.create({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}})
    for limit, swap in ((256, 512), (32, 32), (1024, 1024), (16, 64)):
        group.update({"memory": {"limit": limit * MIB, "swap": swap * MIB}})
        assert content(mount, group, "memory.limit_in_bytes") == str(limit * MIB)
        assert content(mount, group, "memory.memsw.limit_in_bytes") == str(swap * MIB)
    group.update({"memory": {"limit": -1}})
    assert group.stats()["memory"]["limit"] == -1


def test_pids_limit_bites(hierarchies, group):
    require(hierarchies, "pids")
    group.create({"pids": {"limit": 5}})
    assert inside(group, sys.executable, "-c", FORK_UNTIL_REFUSED).wait() == 4
    assert group.stats()["pids"]["limit"] == 5
    group.update({"pids": {"limit": -1}})
    assert group.stats()["pids"]["limit"] == -1


def test_cpu_quota_and_shares(hierarchies, group):
    mount = require(hierarchies, "cpu", 1)
    group.create({"cpu": {"shares": 512, "quota": 50000, "period": 100000}})
    group.update({"cpu": {"quota": 20000, "period": 40000, "burst": 10000}})
    group.update({"cpu": {"quota": 8000, "burst": 4000}})  # below the burst of before
    assert content(mount, group, "cpu.shares") == "512"
    assert content(mount, group, "cpu.cfs_quota_us") == "8000"
    assert content(mount, group, "cpu.cfs_period_us") == "40000"
    assert content(mount, group, "cpu.cfs_burst_us") == "4000"


def test_cpu_time_and_throttling_are_counted(hierarchies, group):
    require(hierarchies, "cpu")
    group.create({"cpu": {"quota": 1000, "period": 10000}})
    # A shell: a tenth of a processor is little for an interpreter's start, above all in an emulation.
    count = "i=0; while [ $i -lt 5000 ]; do i=$((i + 1)); done"
    assert inside(group, "sh", "-c", count).wait() == 0
    cpu = group.stats()["cpu"]
    assert cpu["usage_ns"] > 0
    assert cpu["throttled_periods"] > 0
    assert cpu["throttled_ns"] > 0
    if hierarchies.home("cpuacct").version == 1:
        assert sum(cpu["percpu_ns"]) == cpu["usage_ns"]


def test_a_refused_value_is_named(hierarchies, group):
    require(hierarchies, "pids")
    with pytest.raises(
        OSError, match=r"write '99999999999' to /.*/pids\.max: Invalid arg"
    ) as caught:
        group.create({"pids": {"limit": 99999999999}})
    assert caught.value.errno == errno.EINVAL


def test_unified_is_refused_on_v1(hierarchies, group):
    if hierarchies.mode == "v2":
        pytest.skip("this host has v2 alone")
    with pytest.raises(OSError, match="cgroup v2"):
        group.create({"unified": {"memory.max": "1"}})


def test_freeze_stops_everything(hierarchies, group):
    require(hierarchies, "freezer")
    group.create({})
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    process = inside(group, "yes", stdout=write_fd)
    os.close(write_fd)
    try:
        assert select.select([read_fd], [], [], 10)[0]
        assert not group.frozen()
        group.freeze()
        assert group.frozen()
        with pytest.raises(BlockingIOError):
            drain(read_fd)
        group.thaw()
        assert not group.frozen()
        assert select.select([read_fd], [], [], 10)[0]
    finally:
        os.close(read_fd)
        group.kill()
        process.wait()


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_kill_empties_a_tree(hierarchies, parent, paused):
    groups = [Cgroup(hierarchies, f"{parent}/one{sub}") for sub in ("", "/two", "/two/three")]
    for group in groups:
        group.create({})
    # v2 has no internal processes beside controllers: only leaves are filled there
    filled = groups[2:] if hierarchies.mode == "v2" else groups
    processes = [sleeper(group) for group in filled for _ in range(3)]
    assert groups[0].pids() == sorted(p.pid for p in processes)
    if paused:
        groups[0].freeze()
    groups[0].kill()
    assert groups[0].pids() == []
    assert [p.wait() for p in processes] == [-signal.SIGKILL] * len(processes)
    groups[0].remove()
    assert directories(hierarchies, groups[0].path) == []


def test_kill_outruns_a_fork_bomb(hierarchies, group):
    require(hierarchies, "pids")
    group.create({"pids": {"limit": 60}})
    process = inside(group, sys.executable, "-c", FORK_FOR_EVER)
    while len(group.pids()) < 10:
        assert process.poll() is None
    group.kill()
    assert group.pids() == []
    process.wait()
    group.remove()


def test_remove_refuses_while_processes_remain(hierarchies, group, monkeypatch):
    monkeypatch.setattr("pier.kernel.cgroups.tree._REMOVE_TIMEOUT_S", 0.05)
    group.create({})
    process = sleeper(group)
    with pytest.raises(OSError, match="busy"):
        group.remove()
    group.kill()
    process.wait()


def test_remove_waits_for_processes_that_are_leaving(group):
    group.create({})
    process = sleeper(group)
    timer = threading.Timer(0.1, process.kill)
    timer.start()
    group.remove()
    process.wait()
    timer.join()


def test_devices_of_v1(hierarchies, group):
    mount = require(hierarchies, "devices", 1)
    group.create(
        {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            ]
        }
    )
    assert content(mount, group, "devices.list") == "c 1:3 rwm"
    assert inside(group, "sh", "-c", ": < /dev/null").wait() == 0
    assert inside(group, "sh", "-c", ": 2>/dev/null < /dev/zero").wait() != 0
    group.update({"devices": [{"allow": True, "access": "rwm"}]})
    assert inside(group, "sh", "-c", ": < /dev/zero").wait() == 0


def test_disk_io_is_counted(hierarchies, group, tmp_path):
    require(hierarchies, "blkio")
    group.create({})
    script = f"dd if=/dev/zero of={tmp_path}/f bs=64k count=16 oflag=direct 2>/dev/null"
    if inside(group, "sh", "-c", script).wait():
        pytest.skip("no direct I/O here")
    blkio = group.stats()["blkio"]
    written = [e["value"] for e in blkio["service_bytes"] if e["op"].lower() == "write"]
    if not blkio["service_bytes"]:
        pytest.skip("the disk below the temporary directory is not accounted")
    assert sum(written) >= 16 * 65536
    assert blkio["serviced"]


def test_mounts_of_a_cgroup_namespace(hierarchies, group, tmp_path):
    """What namespace_mounts says can be mounted, and shows the cgroup as the root."""
    group.create({"pids": {"limit": 77}})
    script = "set -e\n"
    for kind, target, data in namespace_mounts(hierarchies):
        where = f"{tmp_path}/{target}"
        if kind == "symlink":
            script += f"ln -s '{data}' '{where}'\n"
        else:
            option = f"-o '{data}'" if data else ""
            script += f"mkdir -p '{where}'\nmount -t {kind} {option} none '{where}'\n"
    pids_max = "pids.max" if hierarchies.mode == "v2" else "pids/pids.max"
    script += f"cat {tmp_path}/{pids_max}\ncat /proc/self/cgroup"
    done = subprocess.run(
        ["unshare", "--mount", "--cgroup", "sh", "-c", script],
        preexec_fn=group.join,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *paths = done.stdout.splitlines()
    if hierarchies.home("pids") is not None:
        assert first == "77"
    assert all(line.endswith(":/") for line in paths if not line.startswith("0::"))


def test_pressure(group, hierarchies):
    group.create({})
    found = read_pressure(hierarchies, group.path)
    if hierarchies.mode != "v2" or not os.path.exists("/proc/pressure/cpu"):
        assert found == {}
        return
    assert set(found) == {"cpu", "memory", "io"}
    assert {"avg10", "avg60", "avg300", "total"} == set(found["memory"]["some"])
