"""Cgroups of `pier-runtime`: what is refused, what rare controllers set, and what stays behind."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import PATIENCE_S
from oci_command import Runtime, ended, wait

from pier.kernel.cgroups import Cgroup, detect


@pytest.fixture
def runtime(rootfs: str, tmp_path: Path) -> Iterator[Runtime]:
    directory = tmp_path / "bundle"
    directory.mkdir()
    made = Runtime(str(directory), rootfs)
    yield made
    made.close()


def parents(runtime: Runtime) -> list[str]:
    """The directories that stand for this state root, in every hierarchy that has one."""
    parent = runtime.cgroup("one").path.rpartition("/")[0]
    return [h.mount + parent for h in detect().all if os.path.isdir(h.mount + parent)]


def test_no_empty_parent_stays(runtime: Runtime) -> None:
    runtime.start("one")
    runtime.start("two")
    assert parents(runtime)
    runtime("delete", "--force", "one")
    assert runtime.cgroup("two").pids()
    runtime("delete", "--force", "two")
    assert parents(runtime) == []


def test_a_parent_that_goes_while_one_is_made_is_made_again() -> None:
    hierarchies = detect()
    if hierarchies.mode == "v2":
        pytest.skip("the directories of cgroup v1 are what is raced for")
    parent, stop = "/pier-test-parents/deep", threading.Event()

    def remove() -> None:
        while not stop.is_set():
            Cgroup(hierarchies, f"{parent}/x").remove_empty_parents(2)

    racer = threading.Thread(target=remove)
    racer.start()
    try:
        for number in range(60):
            group = Cgroup(hierarchies, f"{parent}/{number}")
            group.create({})
            for hierarchy in hierarchies.all:
                if hierarchy.version == 1:
                    assert os.path.isdir(hierarchy.mount + group.path)
            group.remove()
    finally:
        stop.set()
        racer.join()
        Cgroup(hierarchies, parent.rpartition("/")[0]).remove()


def test_a_frozen_cgroup_is_refused(runtime: Runtime) -> None:
    group = Cgroup(detect(), "/pier-test-frozen/one")
    group.create({})
    group.freeze()
    try:
        runtime.change(lambda spec: spec["linux"].update(cgroupsPath=group.path))
        done = runtime("create", "one", ok=False)
        assert f"container's cgroup unexpectedly frozen: {group.path}" in done.stderr
        assert runtime("list", "-q").stdout == ""
    finally:
        group.thaw()
        group.remove()
        Cgroup(detect(), "/pier-test-frozen").remove()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_waits_at_its_gate(runtime: Runtime, number: signal.Signals) -> None:
    runtime.script("exit 0")
    runtime("create", "one")
    pid = runtime.state("one")["pid"]
    runtime("kill", "one", str(int(number)))
    wait(lambda: ended(pid))
    assert runtime.status("one") == "stopped"
    runtime("delete", "one")


def test_kills_of_one_that_ends_agree(runtime: Runtime) -> None:
    """Whoever comes too late is told so, and nobody's process is hit instead."""
    for _ in range(5):
        pid = runtime.start("one", "exec sleep 0.2")
        processes = [
            subprocess.Popen(
                runtime.command("kill", "one", "KILL"), cwd=runtime.bundle, stderr=subprocess.PIPE
            )
            for _ in range(4)
        ]
        for process in processes:
            said = process.communicate(timeout=PATIENCE_S)[1].decode()
            assert process.returncode == 0 or "container not running" in said, said
        wait(lambda pid=pid: ended(pid))
        runtime("delete", "--force", "one")


def test_unified_is_refused_where_there_is_v1(runtime: Runtime) -> None:
    if detect().mode == "v2":
        pytest.skip("cgroup v2 has it")
    runtime.change(lambda spec: spec["linux"].update(resources={"unified": {"memory.max": "1"}}))
    done = runtime("create", "one", ok=False)
    assert "invalid configuration: cannot use unified on cgroup v1" in done.stderr


def test_huge_pages(runtime: Runtime) -> None:
    home = detect().home("hugetlb")
    limits = [{"pageSize": "2MB", "limit": 1 << 21}]
    runtime.change(lambda spec: spec["linux"].update(resources={"hugepageLimits": limits}))
    if home is None:
        done = runtime("create", "one", ok=False)
        assert "cgroup controller hugetlb is not available on this host" in done.stderr
        return
    if not os.path.isdir("/sys/kernel/mm/hugepages/hugepages-2048kB"):
        pytest.skip("no huge pages of this size")
    runtime.start("one")
    name = "hugetlb.2MB.limit_in_bytes" if home.version == 1 else "hugetlb.2MB.max"
    file = Path(home.mount + runtime.cgroup("one").path, name)
    assert file.read_text() == f"{1 << 21}\n"


# In a mount namespace of its own: nobody else sees the hierarchies, which go with it.
MARKED = """
set -e
for name in net_cls net_prio; do
    mkdir "$1/$name"
    mount -t cgroup -o $name $name "$1/$name" || exit 77
done
shift
"$@" run --detach one
cat "$0"/net_cls/pier-test-marks/one/net_cls.classid
grep lo "$0"/net_prio/pier-test-marks/one/net_prio.ifpriomap
"$@" delete --force one
rmdir "$0"/net_*/pier-test-marks
"""


def test_packets_are_marked(runtime: Runtime, tmp_path: Path) -> None:
    if detect().mode == "v2" or not shutil.which("unshare"):
        pytest.skip("net_cls and net_prio are controllers of cgroup v1")
    marks = {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 7}]}
    runtime.script("exec sleep 60")
    runtime.change(
        lambda spec: spec["linux"].update(
            resources={"network": marks}, cgroupsPath="/pier-test-marks/one"
        )
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", MARKED, str(tmp_path), str(tmp_path), *runtime.command()],
        cwd=runtime.bundle, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    Cgroup(detect(), "/pier-test-marks").remove()
    if done.returncode == 77:
        pytest.skip(f"this kernel has no net_cls or net_prio: {done.stderr}")
    assert done.returncode == 0, done
    assert done.stdout.split() == [str(0x100001), "lo", "7"]
