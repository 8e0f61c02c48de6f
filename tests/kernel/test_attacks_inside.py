"""Attacks by what an image or a running container holds: files that the set-up might trust."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import bundles
import pytest
from bundles import MOUNTS, Room
from oci_command import Runtime

from pier.errors import StartFailed
from pier.kernel.process import prctl
from pier.runtime import userns

PR_GET_DUMPABLE = 3
SECRET = "of the host alone"


@pytest.fixture
def layer(room: Room, tmp_path) -> Path:
    return Path(room.add_layer(f"attack-{tmp_path.name}"))


def layers(layer: Path) -> list[str]:
    return [layer.parent.name, "base"]


def test_the_images_python_is_never_imported(room: Room, layer: Path):
    """Whatever the keeper's fork would still load past the pivot, it would find the image's there."""
    evil = "open('/pwned', 'w').close()\n"
    marked = set()
    for directory in {os.path.dirname(os.__file__), *filter(os.path.isdir, sys.path)}:
        inside = layer / directory.lstrip("/")
        for name in (*sys.stdlib_module_names, "sitecustomize", "usercustomize"):
            (inside / name).mkdir(parents=True, exist_ok=True)
            (inside / name / "__init__.py").write_text(evil)
            marked.add(str(inside))
        pier = inside / "pier" / "runtime"
        pier.mkdir(parents=True, exist_ok=True)
        for name in ("hooks", "scheduling", "listener", "userns", "copyup", "reaper"):
            (pier / f"{name}.py").write_text(evil)
    assert marked
    hooks = {"startContainer": [{"path": "/bin/true"}]}
    failures: list[str] = []
    for options in (
        {}, {"init": True}, {"tty": True}, {"user": "nobody-at-all"}, {"cwd": "/etc/passwd"},
        {"rlimits": [{"type": "RLIMIT_KARMA", "soft": 1, "hard": 1}]}, {"top": {"hooks": hooks}},
        {"scheduler": {"policy": "SCHED_BATCH"}}, {"readonly": True},
    ):  # fmt: skip
        box = room.container(["sleep", "100"], layers=layers(layer), **options)
        try:
            box.start()
        except StartFailed as exc:
            failures.append(exc.message)
        else:
            for number, args in enumerate((["true"], ["nosuch"], ["/etc"])):
                try:
                    box.exec(f"x{number}", args, user="alice", tty=bool(number % 2))
                except StartFailed as exc:
                    failures.append(exc.message)
        assert not os.path.exists(f"{box.upper}/pwned"), options
    # And nothing was about to be: an import fails now, and would have said so.
    assert not [text for text in failures if "No module" in text or "meta_path" in text]


def test_a_fake_proc_is_written_by_nobody(room: Room, layer: Path):
    """An exec sets what it sets through the host's /proc, before it is inside."""
    fake = layer / "proc" / "self"
    (fake / "attr" / "apparmor").mkdir(parents=True)
    for name in ("attr/exec", "attr/apparmor/exec", "oom_score_adj", "uid_map", "setgroups"):
        (fake / name).write_text("untouched")
        (fake / name).chmod(0o666)
    mounts = [m for m in MOUNTS if m["destination"] != "/proc"]
    box = room.started(["sleep", "100"], layers=layers(layer), mounts=mounts,
                       linux={"maskedPaths": [], "readonlyPaths": []})  # fmt: skip
    out = box.exec("x", ["sh", "-c", "sleep 1; cat /proc/self/*_adj /proc/self/attr/exec"],
                   oomScoreAdj=345)  # fmt: skip
    pid = next(iter(set(box.cgroup().pids()) - {box.pid}))
    with open(f"/proc/{pid}/oom_score_adj") as file:
        assert file.read() == "345\n"
    assert out.streams()[0] == b"untoucheduntouched"


@pytest.mark.parametrize(
    "key",
    ["net/../kernel/hostname", "../sysrq-trigger", "net.ipv4./../../../sysrq-trigger", "kernel",
     "net/ipv4/../../../1/oom_score_adj", "/kernel/hostname", "kernel.core_pattern",
     "net/../kernel/core_pattern", "kernel.hostname", "vm.swappiness"],
)  # fmt: skip
def test_a_sysctl_leads_nowhere_else(room: Room, key: str):
    with pytest.raises(StartFailed) as info:
        room.started(["true"], linux={"sysctl": {key: "x"}})
    assert info.value.step == "sysctl"


def test_sysctls_with_either_separator(room: Room):
    keys = {"net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/log_martians": "1"}
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/log_martians"
    assert room.sh(script, linux={"sysctl": keys}) == "1\n1\n"


@pytest.mark.parametrize(
    "target", ["/proc/sys/kernel/core_pattern", "/etc/passwd", "/host", "null"]
)
def test_the_console_is_no_link(room: Room, layer: Path, target: str):
    """CVE-2025-52565: the terminal would cover what the link leads to."""
    (layer / "dev").mkdir()
    os.symlink(target, layer / "dev" / "console")
    mounts = [m for m in MOUNTS if m["destination"] != "/dev"]
    with pytest.raises(StartFailed, match="/dev/console must be no symbolic link"):
        room.started(["sleep", "9"], tty=True, layers=layers(layer), mounts=mounts)


@pytest.mark.parametrize("name", ["null", "zero", "tty", "full"])
@pytest.mark.parametrize("kind", ["link", "file", "other device", "directory"])
def test_devices_of_the_image_are_not_taken_for_ours(room: Room, layer: Path, name: str, kind: str):
    (layer / "dev").mkdir()
    path = layer / "dev" / name
    match kind:
        case "link":
            path.symlink_to("/proc/kcore")
        case "file":
            path.write_text("")
        case "directory":
            path.mkdir()
        case _:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 1))
    mounts = [m for m in MOUNTS if m["destination"] != "/dev"]
    with pytest.raises(StartFailed) as info:
        room.started(["true"], layers=layers(layer), mounts=mounts)
    assert info.value.step == "device"


@pytest.mark.parametrize("kind", ["fifo", "huge", "loop", "device"])
def test_etc_group(room: Room, layer: Path, kind: str):
    (layer / "etc").mkdir()
    path = layer / "etc" / "group"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
        case "loop":
            path.symlink_to("group")
        case _:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with pytest.raises(StartFailed) as info:
        room.started(["true"], layers=layers(layer), user="alice:evil")
    assert info.value.step == "user"


def test_no_descriptor_is_left_open(room: Room, tmp_path):
    """Hooks, sources of mounts, idmaps: each opens something of the host's on the way."""
    mapping = [{"containerID": 0, "hostID": 1, "size": 9}]
    entries = tuple(
        {"destination": f"/m{number}", "type": "bind", "source": str(tmp_path), **more}
        for number, more in enumerate((
            {"options": ["rbind", "rshared"]},
            {"options": ["bind", "idmap"], "uidMappings": mapping, "gidMappings": mapping},
            {"options": ["bind"]},
        ))
    )  # fmt: skip
    hooks = {
        kind: [{"path": "/bin/true"}]
        for kind in ("createRuntime", "createContainer", "startContainer")
    }
    script = "ls -l /proc/self/fd; echo done; sleep 100"
    box = room.container(["sh", "-c", script], more_mounts=entries, top={"hooks": hooks})
    client = box.attach()
    box.start()
    shown = client.read_until(b"done")
    inherited = set(os.listdir(f"/proc/{box.pid}/fd")) - {"0", "1", "2", "10"}
    assert inherited == set()
    assert str(tmp_path).encode() not in shown
    # stdio; the directory that ls itself read is closed when it looks where it leads.
    assert shown.count(b" -> ") == 3


def test_a_file_swapped_while_it_is_copied_up(room: Room, tmp_path):
    """A volume's other user puts a link to the host's file where tmpcopyup is reading."""
    volume, secret = tmp_path / "volume", tmp_path / "secret"
    (volume / "full").mkdir(parents=True)
    secret.write_text(SECRET)
    file, link, turn = volume / "full" / "file", volume / "link", volume / "turn"
    file.write_text("harmless")
    link.symlink_to("../" * 30 + str(secret).lstrip("/"))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(file, turn)
            os.rename(link, file)
            os.rename(file, link)
            os.rename(turn, file)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(15):
            entries = (
                {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]},
                {"destination": "/v/full", "type": "tmpfs", "source": "tmpfs",
                 "options": ["tmpcopyup"]},
            )  # fmt: skip
            box = room.container(["sleep", "100"], more_mounts=entries)
            try:
                box.start()
            except StartFailed as exc:
                seen.add(exc.step)
            else:
                copy = Path(box.inside("/v/full/file"))
                if copy.is_file() and not copy.is_symlink():
                    assert SECRET not in copy.read_text()
            box.clean()
            room.boxes.remove(box)
    finally:
        stop.set()
        thread.join()
    assert seen <= {"mount"}


def test_the_first_process_cannot_be_looked_into_by_its_start_hook(runtime: Runtime):
    """The image's program, with the rights that the process has by then, and our descriptors in it."""
    look = "readlink /proc/1/exe || readlink /proc/1/fd/0 || head -c 1 /proc/1/environ | grep -q ."
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"if {look}; then exit 7; fi; exit 8"]}
    runtime.change(lambda spec: spec.update(hooks={"startContainer": [hook]}))
    assert "exit status 8" in runtime("run", "one", ok=False).stderr


def test_who_joins_a_user_namespace_cannot_be_looked_into():
    """Root of that namespace could trace it, with the host's files still open, if it were dumpable."""
    answer, told = os.pipe()
    other = subprocess.Popen(["unshare", "--user", "--map-root-user", "cat"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"ready\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"ready\n"

        def child() -> NoReturn:
            os.write(told, b"%d" % prctl(PR_GET_DUMPABLE))
            os._exit(0)

        pid, pidfd = userns.clone_through(f"/proc/{other.pid}/ns/user", 0, None, None, child)
        os.waitpid(pid, 0)
        os.close(pidfd)
        assert os.read(answer, 9) == b"0"
    finally:
        other.communicate()
        os.close(answer)
        os.close(told)


def test_a_working_directory_that_is_a_descriptor(room: Room):
    """CVE-2024-21626 by exec."""
    box = room.started(["sleep", "100"])
    for number in range(3, 12):
        with pytest.raises(StartFailed) as info:
            box.exec(f"x{number}", ["pwd"], cwd=f"/proc/self/fd/{number}")
        assert info.value.step == "chdir"
    assert bundles.keeper_pid(box.pid)


def test_a_sysctl_of_a_network_namespace_that_is_joined(room: Room):
    """It is no other's, also when the process is in it already: that is how engines do it."""
    first = room.started(["sleep", "100"])
    kinds = [entry for entry in bundles.NAMESPACES if entry != "network"]
    for path, refused in (
        (f"/proc/{first.pid}/ns/net", False),
        (f"/proc/{os.getpid()}/ns/net", True),
    ):
        namespaces = [*({"type": kind} for kind in kinds), {"type": "network", "path": path}]
        linux = {"sysctl": {"net.ipv4.ping_group_range": "0 7"}}
        box = room.container(["sleep", "100"], namespaces=namespaces, linux=linux)
        if refused:
            with pytest.raises(StartFailed, match="not allowed in host network namespace"):
                box.start()
        else:
            box.start()
