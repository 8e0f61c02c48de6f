"""What the statistics of v1 are read from, on directories that look like it."""

import os

import pytest

from pier.kernel.cgroups import Cgroup, Hierarchies, Hierarchy, blkio, hugetlb

FILES = {
    "cpu,cpuacct": {
        "cpu.stat": "nr_periods 4\nnr_throttled 1\nthrottled_time 99\n",
        "cpuacct.usage": "5000000\n",
        "cpuacct.usage_percpu": "2000000 3000000 \n",
        "cpuacct.stat": "user 2\nsystem 1\n",
    },
    "memory": {
        "memory.usage_in_bytes": "4096\n",
        "memory.max_usage_in_bytes": "8192\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.failcnt": "3\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory.stat": "cache 1\nrss 2\ntotal_inactive_file 3\n",
    },
}
THROTTLE = "8:0 Read 4096\n8:0 Write 0\n8:0 Sync 4096\n8:0 Total 4096\nTotal 4096\n"
READ = {"major": 8, "minor": 0, "op": "Read", "value": 4096}


@pytest.fixture
def group(tmp_path):
    hierarchies = []
    for controllers, files in FILES.items():
        directory = tmp_path / controllers / "pier" / "x"
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text)
        mount = str(tmp_path / controllers)
        hierarchies.append(Hierarchy(mount, 1, tuple(controllers.split(","))))
    return Cgroup(Hierarchies(hierarchies), "/pier/x")


def test_stats_with_cpu_and_cpuacct_in_one_hierarchy(group):
    stats = group.stats()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert stats == {
        "version": 1,
        "cpu": {
            "usage_ns": 5_000_000,
            "user_ns": 2 * tick_ns,
            "system_ns": tick_ns,
            "percpu_ns": [2_000_000, 3_000_000],
            "periods": 4,
            "throttled_periods": 1,
            "throttled_ns": 99,
        },
        "memory": {
            "usage": 4096,
            "max_usage": 8192,
            "limit": -1,
            "failcnt": 3,
            "oom_kills": 2,
            "stat": {"cache": 1, "rss": 2, "total_inactive_file": 3},
        },
    }
    assert group.oom_kills() == 2


def test_stats_of_a_removed_cgroup(group):
    gone = Cgroup(group._hierarchies, "/pier/gone")
    with pytest.raises(FileNotFoundError):
        gone.stats()
    assert gone.oom_kills() == 0


@pytest.mark.parametrize("bfq", [None, "Total 0\n"])
def test_blkio_is_counted_by_the_throttle_layer_when_bfq_schedules_nothing(tmp_path, bfq):
    for name in ("io_service_bytes_recursive", "io_serviced_recursive"):
        (tmp_path / f"blkio.throttle.{name}").write_text(THROTTLE)
        if bfq is not None:
            (tmp_path / f"blkio.bfq.{name}").write_text(bfq)
    entries = blkio.stats_v1(str(tmp_path))["service_bytes"]
    assert entries[0] == READ
    assert [e["op"] for e in entries] == ["Read", "Write", "Sync", "Total"]


def test_hugetlb_is_counted_by_page_size(tmp_path):
    for size in ("2MB", "2MB.rsvd", "1GB"):
        for name in ("usage_in_bytes", "max_usage_in_bytes", "failcnt"):
            (tmp_path / f"hugetlb.{size}.{name}").write_text("1\n")
    assert hugetlb.stats_v1(str(tmp_path)) == {
        size: {"usage": 1, "max_usage": 1, "failcnt": 1} for size in ("2MB", "1GB")
    }
