"""The v2 ways, in the host's v2 hierarchy: also where it is the one of a hybrid host."""

import os
import signal
import subprocess

import pytest

from pier.kernel import bpf
from pier.kernel.cgroups import Cgroup, Hierarchies, Hierarchy, detect
from pier.kernel.process import clone3

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make cgroups")

DENY_ALL = {"allow": False, "access": "rwm"}
NULL = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
ZERO = {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}


@pytest.fixture
def v2():
    """The v2 hierarchy alone, without controllers, so that the root's are left as they are."""
    found = detect().v2
    if found is None:
        pytest.skip("no cgroup v2 is mounted here")
    return Hierarchies([Hierarchy(found.mount, 2, ())])


@pytest.fixture
def group(v2):
    parent = Cgroup(v2, f"/pier-test-v2-{os.getpid()}")
    yield Cgroup(v2, f"{parent.path}/one")
    parent.kill()
    parent.remove()
    assert not os.path.exists(v2.all[0].mount + parent.path)


def born_inside(group: Cgroup) -> int:
    """Start a process that sleeps, by clone3 with CLONE_INTO_CGROUP."""
    cgroup_fd = group.open_fd()
    assert cgroup_fd is not None
    pid, pidfd = clone3(0, cgroup_fd)
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(1)
    os.close(pidfd)
    os.close(cgroup_fd)
    return pid


def attached(group: Cgroup) -> list[int]:
    fd = group.open_fd()
    assert fd is not None
    try:
        return bpf.prog_query(fd, bpf.BPF_CGROUP_DEVICE)
    finally:
        os.close(fd)


def shell(group: Cgroup, script: str) -> int:
    done = subprocess.run(
        ["sh", "-c", script],
        preexec_fn=lambda: group.add(os.getpid()),
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def test_a_child_is_born_inside(v2, group):
    group.create({})
    pid = born_inside(group)
    try:
        assert group.pids() == [pid]
        with open(f"/proc/{pid}/cgroup") as file:
            assert f"0::{group.path}\n" in file.readlines()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_freeze_and_thaw(group):
    group.create({})
    pid = born_inside(group)
    try:
        assert not group.frozen()
        group.freeze()
        assert group.frozen()
        group.thaw()
        assert not group.frozen()
    finally:
        group.kill()
        os.waitpid(pid, 0)


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("atomic", [False, True], ids=["signals", "cgroup.kill"])
def test_kill_empties_a_tree(v2, group, paused, atomic, monkeypatch):
    mount = v2.all[0].mount
    group.create({})
    if atomic and not os.path.exists(f"{mount}{group.path}/cgroup.kill"):
        pytest.skip("cgroup.kill is of Linux 5.14")
    if not atomic:

        def without_cgroup_kill(path, value):
            if path.endswith("cgroup.kill"):
                raise FileNotFoundError(path)
            real_write(path, value)

        from pier.kernel.cgroups import manager

        real_write = manager.write
        monkeypatch.setattr(manager, "write", without_cgroup_kill)
    child = Cgroup(v2, f"{group.path}/two")
    child.create({})
    pids = [born_inside(group), born_inside(child), born_inside(child)]
    assert group.pids() == sorted(pids)
    if paused:
        group.freeze()
    group.kill()
    assert group.pids() == []
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    group.remove()
    assert not os.path.exists(mount + group.path)


def test_cpu_time_is_counted_without_controllers(group):
    group.create({})
    assert shell(group, "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done") == 0
    stats = group.stats()
    assert stats["version"] == 2
    assert stats["cpu"]["usage_ns"] > 0
    assert "memory" not in stats


def test_a_limit_without_its_controller_is_refused(group):
    with pytest.raises(OSError, match="controller memory"):
        group.create({"memory": {"limit": 1 << 20}})


def test_device_program_allows_and_denies(group):
    group.create({"devices": [DENY_ALL, NULL, ZERO]})
    assert len(attached(group)) == 1
    assert shell(group, ": < /dev/null") == 0
    assert shell(group, ": > /dev/null") == 0
    assert shell(group, ": < /dev/zero") == 0
    assert shell(group, ": > /dev/zero") != 0
    assert shell(group, ": < /dev/urandom") != 0


def test_device_program_of_mknod(group, tmp_path):
    group.create({"devices": [DENY_ALL, NULL]})
    assert shell(group, f"mknod {tmp_path}/null c 1 3") == 0
    assert shell(group, f"mknod {tmp_path}/zero c 1 5") != 0


def test_device_program_is_replaced_not_added(group):
    group.create({"devices": [DENY_ALL]})
    first = attached(group)
    assert shell(group, ": < /dev/null") != 0
    group.update({"devices": [DENY_ALL, NULL]})
    second = attached(group)
    assert len(first) == len(second) == 1
    assert first != second
    assert shell(group, ": < /dev/null") == 0
    group.create({"devices": [DENY_ALL, ZERO]})  # a second create finds the cgroup there
    assert len(attached(group)) == 1
    assert shell(group, ": < /dev/null") != 0
    group.update({"devices": [{"allow": True, "access": "rwm"}]})
    assert attached(group) == []
    assert shell(group, ": < /dev/urandom") == 0


def test_everything_allowed_needs_no_program(group):
    group.create({"devices": [{"allow": True, "type": "a", "access": "rwm"}]})
    assert attached(group) == []


@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_the_verifier_accepts(group, count):
    rules = [
        {"allow": n % 3 != 0, "type": "bc"[n % 2], "major": n, "minor": 0xFFFFFFFF - n}
        for n in range(count)
    ]
    group.create({"devices": [DENY_ALL, *rules]})
    assert len(attached(group)) == 1


def test_the_verifier_is_quoted():
    with pytest.raises(OSError, match="R0") as caught:
        bpf.prog_load(bpf.instruction(bpf.EXIT), bpf.BPF_PROG_TYPE_CGROUP_DEVICE, "bad")
    assert caught.value.errno in {13, 22}


def test_a_controller_that_only_v2_has_on_a_hybrid_host():
    """Its limit makes the v2 directory, which is otherwise left out."""
    found = detect()
    v2 = found.v2
    if found.mode != "hybrid" or v2 is None or found.home("hugetlb") is not v2:
        pytest.skip("the hugetlb controller is not in the v2 hierarchy of a hybrid host")
    subtree_control = f"{v2.mount}/cgroup.subtree_control"
    with open(subtree_control) as file:
        enabled_before = "hugetlb" in file.read()
    parent = Cgroup(found, f"/pier-test-hybrid-{os.getpid()}")
    try:
        plain = Cgroup(found, f"{parent.path}/plain")
        plain.create({})
        assert plain.open_fd() is None
        group = Cgroup(found, f"{parent.path}/huge")
        group.create({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
        with open(f"{v2.mount}{group.path}/hugetlb.2MB.max") as file:
            assert file.read() == f"{4 << 20}\n"
        assert group.stats()["hugetlb"]["2MB"] == {"usage": 0, "max_usage": 0, "failcnt": 0}
        done = subprocess.run(
            ["cat", "/proc/self/cgroup"],
            preexec_fn=group.join,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"0::{group.path}\n" in done.stdout
    finally:
        parent.kill()
        parent.remove()
        if not enabled_before:
            with open(subtree_control, "w") as file:
                file.write("-hugetlb")
