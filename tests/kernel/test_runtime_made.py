"""File systems that are made ahead: used where they fit, made at the start where they do not."""

import errno
import os

import pytest
from bundles import DEV, MQUEUE, PROC, PTS, SHM, SYS, Room
from inside import apart

from pier.engine import defaults
from pier.kernel import mount as mnt
from pier.kernel.cgroups import detect
from pier.runtime import made as made_module
from pier.runtime import mounts
from pier.runtime.made import IN_DEV, MASKED, READONLY, make_all

MOUNTED = "cut -d' ' -f5 /proc/self/mountinfo"


def test_what_the_engine_asks_for_is_what_is_made() -> None:
    asked = {
        mounts.key(m) for m in (defaults.PROC, defaults.DEV, defaults.DEV_PTS, defaults.MQUEUE)
    }
    made = {mounts.key(m) for m in made_module.MOUNTS}
    assert asked <= made
    assert set(defaults.masked_paths()) >= MASKED
    assert set(defaults.READONLY_PATHS) >= READONLY


def test_a_container_that_wants_less_gets_less(room: Room) -> None:
    """No message queues, nothing masked, another size of /dev/shm."""
    small = {**SHM, "options": [*SHM["options"][:-1], "size=4096"]}
    out = room.sh(f"{MOUNTED}; ls -ld /dev/null /dev/pts/ptmx >/dev/null && stat -fc '%b %S' /dev/shm",
                  mounts=[PROC, DEV, PTS, SYS, small],
                  linux={"maskedPaths": [], "readonlyPaths": []})  # fmt: skip
    lines = out.splitlines()
    assert lines[-1] == "1 4096"
    assert "/dev/mqueue" not in lines
    assert [line for line in lines if line.startswith("/proc")] == ["/proc"]


def test_every_mount_is_there_once(room: Room) -> None:
    masked, readonly = sorted(MASKED), [*sorted(READONLY), "/proc/sys"]
    out = room.sh(MOUNTED, linux={"maskedPaths": masked, "readonlyPaths": readonly})
    found = out.split()
    assert len(found) == len(set(found))
    assert {path for path in (*masked, *readonly) if os.path.exists(path)} <= set(found)
    assert {"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"} <= set(found)


def test_what_is_covered_ahead_holds(room: Room) -> None:
    masked, readonly = sorted(MASKED), [*sorted(READONLY), "/proc/sys"]
    out = room.sh(
        "cat /proc/keys /proc/timer_list; ls -A /proc/acpi; echo 1 > /proc/irq/default_smp_affinity; echo $?",
        linux={"maskedPaths": masked, "readonlyPaths": readonly},
    )
    assert out.split()[-1] != "0"
    assert len(out.split()) == 1


def test_a_kernel_that_nests_no_detached_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.15: everything is made, and attached one by one."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def work() -> None:
        monkeypatch.setattr(mnt, "move_mount", refuse)
        made = make_all(detect())
        assert made.nested == made.covered == frozenset()
        assert {mounts.key(m) for m in made_module.MOUNTS} <= made.fds.keys()
        made.fit({})
        assert {mounts.key(m) for m in made_module.MOUNTS} <= made.fds.keys()

    apart(work)


def test_what_does_not_fit_is_given_up() -> None:
    def work() -> None:
        made = make_all(detect())
        if not made.nested:
            return
        before = len(os.listdir("/proc/self/fd"))
        made.fit({"mounts": [PROC, DEV, PTS, MQUEUE]})
        assert made.nested == made.covered == frozenset()
        assert not IN_DEV & made.fds.keys()
        assert len(os.listdir("/proc/self/fd")) == before - 5

    apart(work)
