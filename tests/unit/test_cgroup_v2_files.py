"""Cgroup on a directory that looks like cgroup v2, for machines that have v1."""

import os
import select

import pytest

from pier.kernel.cgroups import Cgroup, Hierarchies, Hierarchy

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids", "hugetlb", "misc")
FILES = {
    "cgroup.controllers": "cpuset cpu io memory pids hugetlb misc\n",
    "cgroup.procs": "",
    "cgroup.freeze": "0\n",
    "cgroup.events": "populated 1\nfrozen 0\n",
    "cpu.max": "max 100000\n",
    "cpu.weight": "100\n",
    "cpu.stat": "usage_usec 3000\nuser_usec 1000\nsystem_usec 2000\n"
    "nr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
    "cpuset.cpus": "\n",
    "io.weight": "",
    "io.max": "",
    "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.low": "0\n",
    "memory.current": "123456\n",
    "memory.peak": "234567\n",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n",
    "memory.stat": "anon 100\nfile 200\ninactive_file 50\n",
    "pids.max": "max\n",
    "pids.current": "3\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.current": "0\n",
    "hugetlb.2MB.rsvd.max": "max\n",
    "hugetlb.2MB.rsvd.current": "0\n",
    "hugetlb.2MB.events": "max 6\n",
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "cgroup.subtree_control").touch()
    (tmp_path / "pier").mkdir()
    (tmp_path / "pier" / "cgroup.subtree_control").touch()
    leaf = tmp_path / "pier" / "x"
    leaf.mkdir()
    for name, text in FILES.items():
        (leaf / name).write_text(text)
    return tmp_path


@pytest.fixture
def group(root):
    return Cgroup(Hierarchies([Hierarchy(str(root), 2, CONTROLLERS)]), "/pier/x")


def value(root, name):
    return (root / "pier" / "x" / name).read_text().splitlines()[0]


def empty(root, *names):
    for name in names:
        (root / "pier" / "x" / name).write_text("")


def test_limits_arrive_in_the_files(root, group):
    empty(root, "memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "io.max")
    group.create(
        {
            "memory": {"limit": 1 << 20, "swap": 3 << 20},
            "cpu": {"shares": 2, "quota": 5000, "period": 10000, "cpus": "0"},
            "pids": {"limit": 9},
            "blockIO": {
                "weight": 10,
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.low": "77"},
        }
    )
    for name, expected in {
        "memory.max": str(1 << 20),
        "memory.swap.max": str(2 << 20),
        "cpu.weight": "1",
        "cpu.max": "5000 10000",
        "cpuset.cpus": "0",
        "pids.max": "9",
        "io.weight": "default 1",
        "io.max": "8:0 rbps=5",
        "memory.low": "77",
    }.items():
        assert value(root, name) == expected, name


def test_controllers_are_enabled_from_the_top_down_only_when_missing(root, group):
    group.create({})
    assert (root / "cgroup.subtree_control").read_text() == ""
    (root / "pier" / "x" / "cgroup.controllers").write_text("cpu io pids\n")
    group.create({})
    for directory in (root, root / "pier"):
        text = (directory / "cgroup.subtree_control").read_text()
        assert text == "+cpuset +hugetlb +memory +misc"


def test_a_controller_that_cannot_be_enabled_matters_when_it_is_asked_for(root, group):
    (root / "pier" / "x" / "cgroup.controllers").write_text("")
    os.unlink(root / "cgroup.subtree_control")
    os.mkdir(root / "cgroup.subtree_control")  # opening it for writing fails: EISDIR
    group.create({})
    with pytest.raises(OSError, match="controller memory cannot be enabled"):
        group.create({"memory": {"limit": 4096}})


def test_unified_keys_stay_inside_the_cgroup(group):
    with pytest.raises(ValueError, match="not a file name"):
        group.update({"unified": {"../y/memory.max": "1"}})
    with pytest.raises(OSError, match="nonsense"):
        group.update({"unified": {"nonsense": "1"}})


def test_add_kill_and_freeze_write_the_core_files(root, group):
    group.add(42)
    assert value(root, "cgroup.procs") == "42"
    assert group.pids() == [42]
    assert not group.frozen()
    (root / "pier" / "x" / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    group.freeze()
    assert value(root, "cgroup.freeze") == "1"
    assert group.frozen()


def test_processes_of_other_pid_namespaces_are_never_pid_zero(root, group):
    (root / "pier" / "x" / "cgroup.procs").write_text("0\n0\n7\n")
    child = root / "pier" / "x" / "deep" / "er"
    child.mkdir(parents=True)
    (child / "cgroup.procs").write_text("8\n")
    assert group.pids() == [7, 8]


def test_open_fd_is_the_directory(root, group):
    fd = group.open_fd()
    assert fd is not None
    try:
        assert os.path.samestat(os.fstat(fd), os.stat(root / "pier" / "x"))
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_stats(group):
    stats = group.stats()
    assert stats["version"] == 2
    assert stats["cpu"] == {
        "usage_ns": 3_000_000,
        "user_ns": 1_000_000,
        "system_ns": 2_000_000,
        "percpu_ns": [],
        "periods": 5,
        "throttled_periods": 2,
        "throttled_ns": 7000,
    }
    assert stats["memory"] == {
        "usage": 123456,
        "max_usage": 234567,
        "limit": -1,
        "failcnt": 4,
        "oom_kills": 1,
        "stat": {"anon": 100, "file": 200, "inactive_file": 50},
    }
    assert stats["pids"] == {"current": 3, "limit": -1}
    assert stats["blkio"] == {
        "service_bytes": [
            {"major": 8, "minor": 0, "op": "read", "value": 4096},
            {"major": 8, "minor": 0, "op": "write", "value": 8192},
        ],
        "serviced": [
            {"major": 8, "minor": 0, "op": "read", "value": 1},
            {"major": 8, "minor": 0, "op": "write", "value": 2},
        ],
    }
    assert stats["hugetlb"] == {"2MB": {"usage": 0, "max_usage": 0, "failcnt": 6}}


def test_stats_without_a_controller_have_no_such_section(root, group):
    os.unlink(root / "pier" / "x" / "memory.current")
    os.unlink(root / "pier" / "x" / "io.stat")
    stats = group.stats()
    assert "memory" not in stats
    assert "blkio" not in stats
    assert stats["pids"]["current"] == 3


def test_oom_events_and_kills(root, group):
    assert group.oom_kills() == 1
    fd = group.oom_event_fd()
    try:
        with pytest.raises(BlockingIOError):
            os.read(fd, 4096)
        (root / "pier" / "x" / "memory.events").write_text("oom_kill 2\n")
        assert select.select([fd], [], [], 5)[0] == [fd]
        assert os.read(fd, 4096)
        assert group.oom_kills() == 2
    finally:
        os.close(fd)


def test_a_missing_cgroup(root):
    group = Cgroup(Hierarchies([Hierarchy(str(root), 2, CONTROLLERS)]), "/pier/gone")
    assert group.pids() == []
    assert group.oom_kills() == 0
    group.kill()
    group.remove()
    for call in (group.stats, group.open_fd, group.frozen, lambda: group.add(1)):
        with pytest.raises(FileNotFoundError):
            call()
    with pytest.raises(FileNotFoundError):
        group.update({"pids": {"limit": 1}})
    with pytest.raises(OSError, match="No such file"):
        group.oom_event_fd()
