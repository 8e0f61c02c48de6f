"""Hostile images and processes: each attack is tried, and fails."""

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import bundles
import pytest
from bundles import Box, Room

from pier.errors import StartFailed, Unavailable

HOST_MARK = "of-the-host"


@pytest.fixture
def hostile(room: Room, tmp_path):
    """A layer to be filled with malice; on top of busybox."""
    name = f"hostile-{tmp_path.name}"
    room.add_layer(name)
    return name


def replaced(room: Room, name: str, directory: str, target: str) -> list[str]:
    """Layers of a root whose `directory` is a symbolic link to `target`."""
    path = room.layer(name) + directory
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)
    return [name, "base"]


def host_files(directory: str) -> set[str]:
    return {os.path.join(where, name) for where, dirs, files in os.walk(directory)
            for name in (*dirs, *files)}  # fmt: skip


@pytest.mark.parametrize("directory", ["/proc", "/sys"])
@pytest.mark.parametrize("target", ["/tmp", "../../../../tmp", "/proc/1/root/tmp", "/", "."])
def test_proc_and_sys_must_be_directories(room: Room, hostile: str, directory: str, target: str):
    with pytest.raises(StartFailed, match=f'"{directory}"'):
        room.started(["sleep", "9"], layers=replaced(room, hostile, directory, target))


@pytest.mark.parametrize("directory", ["/dev", "/etc"])
@pytest.mark.parametrize("kind", ["absolute", "dotdot", "magic"])
def test_links_lead_nowhere_outside(room: Room, hostile: str, tmp_path, directory: str, kind: str):
    outside = tmp_path / HOST_MARK
    outside.mkdir()
    (outside / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    target = {
        "absolute": str(outside),
        "dotdot": "../" * 30 + str(outside).lstrip("/"),
        "magic": f"/proc/1/root{outside}",
    }[kind]
    layers = replaced(room, hostile, directory, target)
    bind = {"destination": "/etc/hosts", "type": "bind", "source": "/etc/hostname",
            "options": ["bind"]}  # fmt: skip
    before = host_files(str(outside))
    with contextlib.suppress(StartFailed):
        room.run(
            ["sh", "-c", "touch /dev/made /etc/made; true"], layers=layers, more_mounts=(bind,)
        )
    with pytest.raises(StartFailed):
        room.started(["true"], layers=layers, user="evil")
    assert host_files(str(outside)) == before


def test_mount_targets_through_links(room: Room, hostile: str, tmp_path):
    outside = tmp_path / HOST_MARK
    outside.mkdir()
    top = room.layer(hostile)
    os.symlink(str(outside), f"{top}/absolute")
    os.symlink("../" * 30 + str(outside).lstrip("/"), f"{top}/dotdot")
    os.symlink("/proc/1/root", f"{top}/magic")
    os.symlink("/proc/self/fd", f"{top}/fds")
    for destination in ("/absolute/x", "/dotdot/x", "/magic/x", "/magic" + str(outside), "/fds/3/x",
                        "/../../.." + str(outside)):  # fmt: skip
        entry = {"destination": destination, "type": "tmpfs", "source": "tmpfs"}
        box = room.container(["sleep", "9"], layers=[hostile, "base"], more_mounts=(entry,))
        with contextlib.suppress(StartFailed):
            box.start()
        assert os.listdir(outside) == [], destination


@pytest.mark.parametrize("kind", ["fifo", "huge", "loop", "kmsg", "device", "directory", "outside"])
def test_etc_passwd(room: Room, hostile: str, tmp_path, kind: str):
    etc = room.layer(hostile) + "/etc"
    os.makedirs(etc)
    path = f"{etc}/passwd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        with open(path, "w") as file:
            file.truncate(1 << 40)
    elif kind == "loop":
        os.symlink("passwd", path)
    elif kind == "kmsg":
        os.symlink("/proc/kmsg", path)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "directory":
        os.mkdir(path)
    else:
        (tmp_path / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
        os.symlink(str(tmp_path / "passwd"), path)
    with pytest.raises(StartFailed) as info:
        room.started(["true"], layers=[hostile, "base"], user="evil")
    assert info.value.step == "user", info.value


def test_the_working_directory_makes_nothing_on_the_host(room: Room):
    """CVE-2024-21626, and its kin: a directory made through a descriptor of the host's."""
    before = {path for path in host_files(room.exec_root) if "keeper" not in path}
    steps = set()
    for number in range(3, 40):
        for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/pwned"):
            box = room.container(["sh", "-c", "pwd; ls -d ../../../../etc"], cwd=path)
            client = box.attach()
            try:
                box.start()
            except StartFailed as exc:
                steps.add(exc.step)
            else:
                assert b"etc" in client.read_all()
            box.clean()
    assert steps <= {"chdir"}
    left = {path for path in host_files(room.exec_root) if "keeper" not in path}
    assert not [path for path in left - before if "pwned" in path]
    assert not [path for path in host_files(room.data) if path.endswith("/pwned")]


def test_the_working_directory_is_not_made_through_a_process_of_the_host(room: Room, tmp_path):
    """An image's WORKDIR, in a container that sees the host's processes."""
    namespaces = [{"type": kind} for kind in bundles.NAMESPACES if kind != "pid"]
    path = f"/proc/{os.getpid()}/root{tmp_path}/pwned"
    with pytest.raises(StartFailed) as info:
        room.started(["true"], namespaces=namespaces, cwd=path)
    assert info.value.step == "chdir", info.value
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exec_too", [False, True])
def test_the_interpreter_cannot_be_written(room: Room, exec_too: bool):
    """CVE-2019-5736: /proc/self/exe as entry point, and the host's file behind it."""
    python = os.path.realpath(sys.executable)
    before = os.stat(python)
    script = "import time\ntime.sleep(60)"
    box = None
    try:
        box = room.container(["/proc/self/exe", "-c", script])
        box.start()
    except StartFailed:
        box = room.started(["sleep", "100"])
    if exec_too:
        with contextlib.suppress(StartFailed, Unavailable):
            box.exec("evil", ["/proc/self/exe", "-c", script])
    for pid in box.cgroup().pids():
        try:
            path = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if "busybox" in path:
            continue
        # Even for root of the host with every right, the mount is read-only.
        with pytest.raises(OSError, match=r"Read-only file system|Text file busy"):
            os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
    after = os.stat(python)
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_the_keepers_interpreter_is_a_readonly_copy(room: Room):
    box = room.started(["sleep", "100"], init=True)
    for pid in (bundles.keeper_pid(box.pid), box.pid, room.keepers.zygote_pid):
        # Not only while it is being executed (ETXTBSY).
        assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY


WATCH = r"""
echo watching
while :; do
  for p in /proc/[0-9]*; do
    n=${p#/proc/}
    [ $n = $$ ] && continue
    read c < $p/comm 2>/dev/null || continue
    case "$c" in pier*|docker-init) ;; *) continue ;; esac
    echo "seen $c"
    found=
    for what in exe cwd root fd/0 fd/1 fd/3 fd/4 fd/5 fd/6 fd/7; do
      readlink $p/$what >/dev/null 2>&1 && found="$found $what"
    done
    for what in environ maps auxv; do head -c 1 $p/$what 2>/dev/null | grep -q . && found="$found $what"; done
    dd if=$p/mem of=/dev/null bs=1 count=0 2>/dev/null && found="$found mem"
    # What has become the program meanwhile may be looked at.
    now=; read now < $p/comm 2>/dev/null
    [ "$now" = "$c" ] && [ "$found" ] && echo "LEAK $found"
  done
done
"""


def test_an_exec_cannot_be_looked_into(room: Room):
    box = room.container(["sh", "-c", WATCH])
    client = box.attach()
    box.start()
    client.read_until(b"watching")
    for number in range(60):
        box.exec(f"x{number}", ["true"]).read_all()
    box.kill()
    out = client.streams()[0]
    assert b"LEAK" not in out


def test_the_reaper_cannot_be_looked_into(room: Room):
    box = room.container(["sh", "-c", WATCH], init=True)
    client = box.attach()
    box.start()
    client.read_until(b"seen docker-init")
    box.kill()
    assert b"LEAK" not in client.streams()[0]


def test_a_null_device_that_is_none_masks_nothing_less(room: Room, hostile: str):
    """CVE-2025-31133: masks come from the host's null device, not from the container's."""
    os.makedirs(room.layer(hostile) + "/dev")
    os.symlink("/proc/sys/kernel/core_pattern", room.layer(hostile) + "/dev/null")
    out = room.sh("stat -c %F /proc/keys; cat /proc/keys", layers=[hostile, "base"])
    assert out == "character special file\n"


def test_masked_files_stay_masked(room: Room):
    box = room.started(["sleep", "100"])
    out = box.exec("x", ["sh", "-c", ("umount /proc/kcore; mount -o remount,rw /sys; cat /proc/kcore;"
                         "mount -t proc proc /tmp; unshare -m true")]).streams()  # fmt: skip
    assert out[0] == b""
    assert out[1].lower().count(b"permitted") + out[1].lower().count(b"denied") >= 3, out


@contextlib.contextmanager
def swapped(volume: Path) -> Iterator[None]:
    """Rename the volume's "turn", a directory, and its "link", back and forth, all the time."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for old, new in (
                ("turn", "real"),
                ("link", "turn"),
                ("turn", "link"),
                ("real", "turn"),
            ):
                # The container's set-up makes what is missing, and is then in the way.
                with contextlib.suppress(OSError):
                    os.rename(volume / old, volume / new)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_swapping_a_shared_directory_while_it_is_mounted_into(room: Room, tmp_path):
    """A second container renames a volume's directory and a link to the host, back and forth."""
    volume, outside = tmp_path / "volume", tmp_path / HOST_MARK
    (volume / "real" / "sub").mkdir(parents=True)
    (outside / "sub").mkdir(parents=True)
    os.symlink("../" * 30 + str(outside).lstrip("/"), volume / "link")
    os.rename(volume / "real", volume / "turn")
    with swapped(volume):
        for _ in range(25):
            entries = (
                {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]},
                {"destination": "/v/turn/sub", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/v/turn/new", "type": "tmpfs", "source": "tmpfs"},
            )
            box = room.container(["sh", "-c", "true"], more_mounts=entries)
            with contextlib.suppress(StartFailed):
                box.start()
            box.clean()
            room.boxes.remove(box)
    assert os.listdir(outside) == ["sub"]
    assert os.listdir(outside / "sub") == []


def mount_points_beside(box: Box, prefix: str) -> list[str]:
    with open(f"/proc/{box.pid}/mountinfo") as file:
        points = [line.split()[4] for line in file]
    return sorted(point for point in points if not point.startswith(prefix))


def test_swapping_a_shared_directory_while_its_paths_are_masked(room: Room, tmp_path):
    """CVE-2025-31133's race: what is masked, or made read-only, turns into a link to the host."""
    volume, outside = tmp_path / "volume", tmp_path / HOST_MARK
    for directory in (volume / "real", outside):
        directory.mkdir(parents=True)
        (directory / "secret").write_text("secret")
        (directory / "sub").mkdir()
    os.symlink("../" * 30 + str(outside).lstrip("/"), volume / "link")
    os.rename(volume / "real", volume / "turn")
    entry = {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]}
    linux = {
        "maskedPaths": ["/v/turn/secret", "/v/turn/sub"],
        "readonlyPaths": ["/v/turn"],
    }
    nothing = {"maskedPaths": [], "readonlyPaths": []}
    usual = mount_points_beside(
        room.started(["sleep", "100"], more_mounts=(entry,), linux=nothing), "/v/"
    )
    started = 0
    with swapped(volume):
        for _ in range(25):
            box = room.container(["sleep", "100"], more_mounts=(entry,), linux=linux)
            with contextlib.suppress(StartFailed):
                box.start()
                started += 1
                # Wherever it landed is in the volume: nothing else of the container's is covered.
                assert mount_points_beside(box, "/v/") == usual
            box.clean()
            room.boxes.remove(box)
    assert started
    assert (outside / "secret").read_text() == "secret"
    (outside / "sub" / "new").write_text("not read-only")


def test_the_host_is_not_in_the_mount_namespace(room: Room):
    box = room.started(["sleep", "100"])
    with open(f"/proc/{box.pid}/mountinfo") as file:
        shown = file.read()
    roots = [line.split()[3] for line in shown.splitlines()]
    assert not [root for root in roots if root.startswith(("/var", "/home", "/work"))]


def test_keepers_are_not_dumpable(room: Room):
    """So that what they are, and their copies in a container, belongs to root alone."""
    box = room.started(["sleep", "100"], namespaces=[{"type": "mount"}], user="alice")
    keeper = bundles.keeper_pid(box.pid)
    out = box.exec(
        "x", ["sh", "-c", f"readlink /proc/{keeper}/exe /proc/{keeper}/fd/0 /proc/{keeper}/cwd"]
    )
    assert out.streams()[0] == b""
    assert box.exec_code("x") != 0
