"""Starts that fail, execs, and keepers, zygotes and pierds that die."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import bundles
import pytest
from bundles import Heard, Room

from pier.engine.keepers import SPARES
from pier.errors import Conflict, StartFailed, Unavailable
from pier.runtime import protocol

NOT_FOUND = 'exec: "nosuch": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("options", "step", "number", "text"),
    [
        ({"args": ["nosuch"]}, "exec", 2, NOT_FOUND),
        ({"args": ["/no/such"]}, "exec", 2, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ({"args": ["/etc"]}, "exec", 21, 'exec: "/etc": is a directory'),
        ({"args": ["/etc/passwd"]}, "exec", 13, 'exec: "/etc/passwd": permission denied'),
        ({"args": [""]}, "exec", 2, 'exec: "": executable file not found in $PATH'),
        ({"args": ["sh"], "user": "nobody-at-all"}, "user", 0,
         "unable to find user nobody-at-all: no matching entries in passwd file"),
        ({"args": ["sh"], "user": "root:none"}, "user", 0,
         "unable to find group none: no matching entries in group file"),
        ({"args": ["sh"], "cwd": "/etc/passwd"}, "chdir", 20,
         'chdir to cwd ("/etc/passwd") set in config.json failed: not a directory'),
        ({"args": ["sh"], "more_mounts": ({"destination": "/x", "type": "bind",
                                           "source": "/not/there", "options": ["rbind"]},)},
         "mount", 2, 'error mounting "/not/there" to rootfs at "/x": no such file or directory'),
        ({"args": ["sh"], "more_mounts": ({"destination": "/etc/passwd", "type": "tmpfs",
                                           "source": "tmpfs"},)},
         "mount", 20, "not a directory"),
        ({"args": ["sh"], "more_mounts": ({"destination": "/x", "type": "tmpfs", "source": "tmpfs",
                                           "options": ["nonsense=1"]},)},
         "mount", 22, "nonsense"),
        ({"args": ["sh"], "more_mounts": ({"destination": "/", "type": "tmpfs",
                                           "source": "tmpfs"},)},
         "mount", 1, "the root itself is no mount point"),
        ({"args": ["sh"], "hostname": "x" * 65}, "hostname", 22, "Invalid argument"),
        ({"args": ["sh"], "selinuxLabel": "system_u:system_r:x"}, "selinux", 0, "not supported"),
        ({"args": ["sh"], "linux": {"mountLabel": "system_u:object_r:x"}}, "selinux", 0,
         "not supported"),
        ({"args": ["sh"], "layers": ["none-such"]}, "rootfs", 2, "No such file"),
        ({"args": ["sh"], "env": ["PATH=/bin", "X=" + "y" * (1 << 18)]}, "exec", 7,
         "argument list too long"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("init", [False, True])
def test_a_start_that_fails(room: Room, options, step, number, text, init):
    options = dict(options)
    box = room.container(options.pop("args"), init=init, **options)
    client = box.attach()
    with pytest.raises(StartFailed) as info:
        box.start()
    assert (info.value.step, info.value.errno) == (step, number), info.value
    assert text in info.value.message
    # Nobody is left hanging, and nothing behind.
    assert client.read_all() == b""
    box.wait_gone()
    assert box.cgroup().pids() == []
    assert not any(os.path.exists(h.mount + box.cgroup().path) for h in room.hierarchies.all)


@pytest.mark.skipif(os.path.exists("/sys/module/apparmor"), reason="this kernel has AppArmor")
def test_a_profile_that_the_kernel_cannot_apply_is_no_start(room: Room):
    box = room.container(["true"], apparmorProfile="docker-default")
    with pytest.raises(StartFailed, match="unable to apply apparmor profile 'docker-default'"):
        box.start()


def test_not_executable_format(room: Room):
    top = (
        room.layer("formats")
        if os.path.exists(room.layer("formats"))
        else room.add_layer("formats")
    )
    with open(f"{top}/broken", "w") as file:
        file.write("no program at all")
    os.chmod(f"{top}/broken", 0o755)
    with pytest.raises(StartFailed, match="exec format error") as info:
        room.started(["/broken"], layers=["formats", "base"])
    assert (info.value.step, info.value.errno) == ("exec", 8)


def test_a_working_directory_may_be_roots_alone(room: Room):
    """As runc has it: entered while there still are capabilities."""
    top = room.add_layer("closed")
    os.makedirs(f"{top}/closed", mode=0o700)
    out = room.run(
        ["sh", "-c", "ls || pwd"], user="alice", cwd="/closed", layers=["closed", "base"]
    )
    assert "Permission denied" in out.stderr


def test_a_second_start_is_refused(room: Room):
    box = room.started(["sleep", "100"])
    with pytest.raises(StartFailed, match="started already"):
        room.do(box.keeper.start())
    assert box.state().status == "running"


# Execs


def test_exec(room: Room):
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["sh", "-c", "echo out; echo err >&2; exit 5"])
    assert client.streams() == (b"out\n", b"err\n")
    assert box.exec_code("x") == 5
    assert box.state().execs == {}


def test_exec_shares_every_namespace_and_the_cgroup(room: Room):
    box = room.started(["sleep", "100"])
    names = ("mnt", "pid", "uts", "ipc", "net", "cgroup", "user")
    script = "".join(f"readlink /proc/self/ns/{name};" for name in names) + "cat /proc/self/cgroup"
    lines = box.exec("x", ["sh", "-c", script]).streams()[0].decode().splitlines()
    assert lines[: len(names)] == [os.readlink(f"/proc/{box.pid}/ns/{name}") for name in names]
    assert {line.split(":", 2)[2] for line in lines[len(names) :]} == {"/"}


def test_exec_with_a_terminal(room: Room):
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["sh", "-c", "tty; stty size; read x; stty size"], tty=True, stdin=True,
                      consoleSize={"height": 12, "width": 34})  # fmt: skip
    out = client.read_until(b"12 34")
    assert b"/dev/pts/0" in out
    room.do(box.keeper.resize(56, 78, "x"))
    client.send(b"\n")
    client.read_until(b"56 78")
    assert box.exec_code("x") == 0


def test_exec_detach_keys(room: Room):
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["cat"], tty=True, stdin=True)
    client.send(bundles.DETACH_KEYS)
    client.read_all()
    room.until(lambda: box.heard.detaches == ["x"])
    assert list(box.state().execs) == ["x"]


def test_exec_as_a_user_with_stdin(room: Room):
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["sh", "-c", "id -un; cat"], user="alice", stdin=True)
    client.send(b"typed")
    client.end_input()
    assert client.streams()[0] == b"alice\ntyped"


@pytest.mark.parametrize(
    ("options", "step", "text"),
    [
        ({"args": ["nosuch"]}, "exec", NOT_FOUND),
        ({"args": ["sh"], "user": "nobody-at-all"}, "user", "unable to find user nobody-at-all"),
        ({"args": ["sh"], "cwd": "/not/there"}, "chdir", "no such file or directory"),
        ({"args": ["sh"], "rlimits": [{"type": "RLIMIT_KARMA", "soft": 1, "hard": 1}]}, "start",
         "RLIMIT_KARMA"),
    ],
)  # fmt: skip
def test_an_exec_that_fails(room: Room, options, step, text):
    box = room.started(["sleep", "100"])
    options = dict(options)
    keeper = f"/proc/{bundles.keeper_pid(box.pid)}/fd"
    before = len(os.listdir(keeper))
    for _ in range(3):
        with pytest.raises(StartFailed) as info:
            box.exec(
                "x", list(options["args"]), **{k: v for k, v in options.items() if k != "args"}
            )
        assert info.value.step == step
        assert text in info.value.message
        said = info.value.client.streams()[0].decode()
        assert said == f"no luck: {info.value.message}\r\n"
    assert box.state().execs == {}
    assert len(os.listdir(keeper)) == before


def test_an_exec_with_a_huge_environment(room: Room):
    box = room.started(["sleep", "100"])
    env = ["PATH=/bin", *(f"V{number}=" + "x" * 1000 for number in range(1000))]
    client = box.exec("x", ["sh", "-c", "env | wc -l"], env=env)
    assert int(client.streams()[0]) >= 1001


def test_much_pending_input_that_is_no_text(room: Room):
    data = bytes(range(256)) * 256
    box = room.container(["cat"], stdin=True)
    client = box.attach(stdin=True, pending=data)
    client.end_input()
    box.start()
    assert client.streams()[0] == data


def test_exec_after_the_end(room: Room):
    box = room.started(["true"])
    box.wait()
    with pytest.raises(Unavailable):
        box.exec("x", ["true"])
    with pytest.raises(Conflict, match="container is not running"):
        box.kill()


def test_execs_end_with_the_container(room: Room):
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["sh", "-c", "echo up; sleep 100"])
    client.read_until(b"up")
    box.kill()
    box.wait()
    assert box.heard.exec_codes == {"x": 137}
    assert box.heard.order[-3:] == ["exec-exit", "exit", "gone"]


def test_a_writer_that_an_exec_leaves_behind_holds_nobody(room: Room):
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["sh", "-c", "trap '' PIPE; (while :; do echo yyyyyyyyyyyyyyyyyyyyy; done 2>/dev/null) & echo up"])  # fmt: skip
    client.read_all()
    assert box.exec_code("x") == 0
    assert box.state().status == "running"


def test_the_keeper_forgets_what_was_closed(room: Room):
    box = room.started(["sleep", "100"])
    descriptors = f"/proc/{bundles.keeper_pid(box.pid)}/fd"
    before = len(os.listdir(descriptors))
    for number in range(10):
        box.exec(f"x{number}", ["true"], tty=bool(number % 2), stdin=True).read_all()
        box.exec_code(f"x{number}")
        box.attach(stdin=True).close()
    box.state()
    room.until(lambda: len(os.listdir(descriptors)) == before)


def test_bad_requests_do_not_end_the_container(room: Room):
    box = room.started(["sh", "-c", "sleep 100"], tty=True)
    peer = box.keeper._peer
    for packet in (
        {"op": "no such"}, {}, {"op": "attach"}, {"op": "exec"}, {"op": "kill", "signal": 9999},
        {"op": "kill", "signal": "9"}, {"op": "resize", "height": 1 << 20, "width": -1},
        {"op": "exec", "exec": "x", "config": {}}, {"op": "update", "resources": {"memory": 3}},
    ):  # fmt: skip
        with pytest.raises(StartFailed):
            room.do(peer.request(packet))
    assert box.state().status == "running"


# Deaths


def test_a_killed_keeper_takes_the_container_along(room: Room):
    box = room.started(["sh", "-c", "sleep 100 & sleep 200"])
    room.until(lambda: len(box.cgroup().pids()) == 2)
    pids = box.cgroup().pids()
    os.kill(bundles.keeper_pid(box.pid), signal.SIGKILL)
    box.wait_gone()
    assert box.heard.record is None
    assert room.keepers.exit_record(box.id) is None
    for pid in pids:
        bundles.wait_ended(pid)
    room.keepers.clean(box.id, room.cgroup_path(box.id))
    assert not os.path.exists(box.bundle)
    assert not any(os.path.exists(h.mount + box.cgroup().path) for h in room.hierarchies.all)


def test_clean_kills_what_outlived_its_keeper(room: Room):
    """A program may ask not to be killed with its parent; then pierd does it."""
    box = room.started(["sleep", "100"], namespaces=[{"type": "mount"}])
    client = box.exec("x", ["sh", "-c", "sleep 100 & echo up; wait"])
    client.read_until(b"up")
    os.kill(bundles.keeper_pid(box.pid), signal.SIGKILL)
    box.wait_gone()
    room.keepers.clean(box.id, room.cgroup_path(box.id))
    assert box.cgroup().pids() == []


def test_a_killed_zygote_is_replaced(room: Room):
    box = room.started(["sleep", "100"])
    first = room.keepers.zygote_pid
    os.kill(first, signal.SIGKILL)
    room.until(lambda: room.keepers.zygote_pid != first)
    assert room.sh("echo again") == "again\n"
    assert room.keepers.zygote_pid != first
    assert box.state().status == "running"


def test_the_zygote_survives_bad_requests(room: Room):
    room.sh("true")
    pid = room.keepers.zygote_pid
    peer = room.keepers._zygote
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for packet, fds in (
        ({}, ()),
        ({"op": "fork"}, ()),
        ({"op": "fork"}, (theirs.fileno(), theirs.fileno())),
    ):
        protocol.send(peer._sock, {**packet, "seq": 0}, fds)
    peer._sock.send(b"no json")
    theirs.close()
    ours.settimeout(bundles.PATIENCE_S)
    assert ours.recv(10) == b""
    ours.close()
    assert room.sh("echo still") == "still\n"
    assert room.keepers.zygote_pid == pid


def test_a_keeper_ends_over_a_bad_bundle(room: Room):
    async def first(packet: dict[str, Any]) -> bytes:
        channel = room.keepers._fork()
        protocol.send(channel, packet)
        channel.settimeout(bundles.PATIENCE_S)
        with channel:
            return channel.recv(10)

    for packet in ({"op": "keep", "bundle": "/not/there"}, {"op": "keep", "bundle": 3}, {}):
        assert room.do(first(packet)) == b""
    assert room.sh("echo still") == "still\n"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spares(room: Room) -> list[int]:
    """The keepers that wait, once all of them do, each with the process that it cloned ahead."""

    def found() -> list[int]:
        return [
            pid
            for pid in children(room.keepers.zygote_pid)
            if b"(spare)" in Path(f"/proc/{pid}/cmdline").read_bytes() and children(pid)
        ]

    room.until(lambda: len(found()) == SPARES)
    return found()


def test_a_killed_spare_is_none(room: Room):
    for spare in spares(room):
        os.kill(spare, signal.SIGKILL)
        bundles.wait_ended(spare)
    assert room.sh("echo still") == "still\n"


def test_a_killed_prepared_process_is_none(room: Room):
    """The keeper has lost it, and clones another."""
    for spare in spares(room):
        (prepared,) = children(spare)
        os.kill(prepared, signal.SIGKILL)
        bundles.wait_ended(prepared)
    assert room.sh("echo still") == "still\n"


def test_a_restarted_pierd_finds_the_keeper(room: Room):
    box = room.started(["sh", "-c", "sleep 0.2; exit 8"])
    room.do(box.keeper.bye())
    heard = Heard()
    keeper = room.do(room.keepers.reconnect(box.id, heard))
    assert keeper is not None
    state = room.do(keeper.state())
    assert (state.pid, state.status) == (box.pid, "running")
    room.until(lambda: heard.is_gone)
    assert heard.record is not None
    assert heard.record.code == 8


def test_the_exit_is_known_when_no_pierd_was_there(room: Room):
    box = room.started(["sh", "-c", "exit 9"])
    room.do(box.keeper.bye())
    room.until(lambda: room.keepers.exit_record(box.id) is not None)
    bundles.wait_ended(box.pid)
    assert room.keepers.exit_record(box.id).code == 9
    room.until(lambda: not box.cgroup().pids())


def test_a_keeper_that_was_never_started_ends_with_its_pierd(room: Room):
    box = room.container(["true"])
    client = box.attach()
    room.do(box.keeper.bye())
    assert client.read_all() == b""
