"""A container's namespaces, stdio, exit and files, through the real zygote and keeper."""

import json
import os
import signal
import socket
import termios

import bundles
import pytest
from bundles import MOUNTS, NAMESPACES, Room

NS_FILES = {"mount": "mnt", "pid": "pid", "uts": "uts", "ipc": "ipc", "network": "net",
            "cgroup": "cgroup", "user": "user"}  # fmt: skip


def test_every_namespace_is_its_own(room: Room):
    box = room.started(["sleep", "100"])
    for kind in NAMESPACES:
        name = NS_FILES[kind]
        ours, theirs = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in ("self", box.pid))
        assert ours != theirs, kind
    assert os.readlink("/proc/self/ns/user") == os.readlink(f"/proc/{box.pid}/ns/user")


def test_namespaces_that_are_left_out_are_the_hosts(room: Room):
    box = room.started(["sleep", "100"], namespaces=[{"type": "mount"}])
    for kind in set(NAMESPACES) - {"mount"}:
        name = NS_FILES[kind]
        assert os.readlink(f"/proc/self/ns/{name}") == os.readlink(f"/proc/{box.pid}/ns/{name}")


def test_join_the_namespaces_of_another_container(room: Room):
    first = room.started(["sleep", "100"], hostname="first")
    joined = ("network", "ipc", "uts", "pid")
    namespaces = [{"type": kind} for kind in NAMESPACES if kind not in joined]
    namespaces += [{"type": k, "path": f"/proc/{first.pid}/ns/{NS_FILES[k]}"} for k in joined]
    second = room.started(["sleep", "100"], namespaces=namespaces)
    for kind in joined:
        name = NS_FILES[kind]
        assert os.readlink(f"/proc/{first.pid}/ns/{name}") == os.readlink(
            f"/proc/{second.pid}/ns/{name}"
        ), kind
    client = second.exec("x", ["sh", "-c", "hostname; ps"])
    lines = client.streams()[0].decode().splitlines()
    assert lines[0] == "first"
    assert sum("sleep 100" in line for line in lines) == 2
    # The second ends without taking the owner of its pid namespace along.
    second.kill()
    assert second.wait().code == 137
    assert first.state().status == "running"


def test_the_end_of_a_pid_namespaces_owner_ends_who_joined_it(room: Room):
    first = room.started(["sleep", "100"])
    namespaces = [{"type": kind} for kind in NAMESPACES if kind != "pid"]
    namespaces.append({"type": "pid", "path": f"/proc/{first.pid}/ns/pid"})
    second = room.started(["sleep", "100"], namespaces=namespaces)
    first.kill()
    assert second.wait().code == 137
    assert first.wait().code == 137


def test_children_die_with_a_container_in_the_hosts_pid_namespace(room: Room):
    namespaces = [{"type": kind} for kind in NAMESPACES if kind != "pid"]
    box = room.started(["sh", "-c", "sleep 100 & exec sleep 200"], namespaces=namespaces)
    room.until(lambda: len(box.cgroup().pids()) == 2)
    children = [pid for pid in box.cgroup().pids() if pid != box.pid]
    box.kill()
    assert box.wait().code == 137
    for pid in children:
        bundles.wait_ended(pid)


def test_loopback_is_up_and_alone(room: Room):
    lines = room.sh("ip -o link").splitlines()
    assert len([x for x in lines if ": lo:" in x and "LOWER_UP" in x]) == 1
    assert "127.0.0.1" in room.sh("ip -o addr show lo")


def test_hostname_and_domainname(room: Room):
    assert room.sh("hostname", hostname="a-box") == "a-box\n"
    assert room.sh("cat /proc/sys/kernel/domainname; cat /proc/self/mounts >/dev/null") != ""


def test_the_hosts_name_stays(room: Room):
    before = socket.gethostname()
    room.sh("true", hostname="other")
    assert socket.gethostname() == before


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 0), ("sleep 1 & kill -9 $!; wait $!", 137)],
)  # fmt: skip
def test_exit_codes(room: Room, script: str, code: int):
    # SIGKILL from within the namespace does not reach its pid 1 (pid_namespaces(7)).
    assert room.run(["sh", "-c", script]).code == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_becomes_128_plus_its_number(room: Room, number: signal.Signals):
    box = room.started(["sleep", "100"], init=True)
    room.until(lambda: len(box.cgroup().pids()) == 2)
    box.kill(number)
    assert box.wait().code == 128 + number


def test_stdout_and_stderr_apart_and_the_log(room: Room):
    box = room.container(["sh", "-c", "echo out; echo err >&2; printf end"])
    client = box.attach()
    box.start()
    assert client.streams() == (b"out\nend", b"err\n")
    box.wait()
    with open(box.log_path) as file:
        records = [json.loads(line) for line in file]
    assert {(r["stream"], r["log"]) for r in records} == {
        ("stdout", "out\n"), ("stderr", "err\n"), ("stdout", "end"),
    }  # fmt: skip
    assert all(r["time"].endswith("Z") for r in records)
    assert os.stat(box.log_path).st_mode & 0o777 == 0o640


def test_several_clients_hear_the_same(room: Room):
    box = room.container(["sh", "-c", "read x; echo got $x"], stdin=True)
    listeners = [box.attach() for _ in range(3)]
    talker = box.attach(stdin=True, typed=b"hello\n")
    box.start()
    for client in (*listeners, talker):
        assert client.streams() == (b"got hello\n", b"")


def test_a_client_may_take_one_stream_only(room: Room):
    box = room.container(["sh", "-c", "echo out; echo err >&2"])
    only_err = box.attach(stdout=False)
    only_out = box.attach(stderr=False)
    box.start()
    assert only_err.streams() == (b"", b"err\n")
    assert only_out.streams() == (b"out\n", b"")


def test_stdin_in_order_from_before_and_after_the_start(room: Room):
    box = room.container(["cat"], stdin=True)
    client = box.attach(stdin=True, pending=b"one ", typed=b"two ")
    box.start()
    client.send(b"three")
    client.end_input()
    assert client.streams()[0] == b"one two three"
    assert box.wait().code == 0


def test_stdin_closed_before_the_start_is_closed(room: Room):
    assert room.run(["cat"], typed=b"").stdout == ""
    assert room.run(["cat"], typed=b"all of it").stdout == "all of it"


def test_much_stdin_arrives_whole(room: Room):
    data = os.urandom(1 << 20).hex().encode()
    box = room.container(["md5sum"], stdin=True)
    client = box.attach(stdin=True)
    box.start()
    client.send(data)
    client.end_input()
    import hashlib

    assert client.streams()[0].split()[0].decode() == hashlib.md5(data).hexdigest()


def test_without_stdin_it_is_the_null_device(room: Room):
    assert room.sh("cat; readlink /proc/self/fd/0") == "/dev/null\n"


def test_stdin_stays_open_unless_once(room: Room):
    box = room.container(["cat"], stdin=True, stdin_once=False)
    first = box.attach(stdin=True)
    box.start()
    first.send(b"first ")
    first.read_until(b"first ")
    first.close()
    second = box.attach(stdin=True)
    second.send(b"second")
    second.read_until(b"second")
    assert box.state().status == "running"


def test_stdin_ends_with_the_client_that_was_killed(room: Room):
    box = room.container(["sh", "-c", "sleep 0.2; cat >/dev/null; exit 3"], stdin=True)
    client = box.attach(stdin=True)
    box.start()
    client.sock.settimeout(0.1)
    try:
        for _ in range(100):
            client.send(b"x" * 65536)
    except TimeoutError:
        pass
    # The keeper does not read from it now, so that it sees a hang-up and no end of file.
    client.close()
    assert box.wait().code == 3


def test_a_client_goes_on_when_the_program_closes_its_stdin(room: Room):
    box = room.container(["sh", "-c", "exec 0<&-; echo closed; sleep 0.3; echo end"], stdin=True)
    client = box.attach(stdin=True)
    box.start()
    client.read_until(b"closed")
    client.send(b"x" * 300_000)
    client.read_until(b"end")
    assert box.wait().code == 0


def test_terminal(room: Room):
    box = room.container(
        ["sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && stty size; read x; stty size"],
        tty=True, stdin=True, consoleSize={"height": 33, "width": 77},
    )  # fmt: skip
    client = box.attach(stdin=True)
    box.start()
    client.read_until(b"33 77")
    room.do(box.keeper.resize(44, 55))
    client.send(b"\n")
    out = client.read_all().decode()
    assert "/dev/pts/0" in out
    assert "44 55" in out
    assert box.wait().code == 0


def test_terminal_signals(room: Room):
    box = room.container(["sh", "-c", ("trap 'echo winch' WINCH; trap 'echo int; exit 4' INT; "
                          "echo ready; while :; do read x; done")], tty=True, stdin=True)  # fmt: skip
    client = box.attach(stdin=True)
    box.start()
    client.read_until(b"ready")
    room.do(box.keeper.resize(10, 20))
    client.send(b"\n")
    client.read_until(b"winch")
    client.send(b"\x03")
    client.read_until(b"int")
    assert box.wait().code == 4


def test_console_is_the_terminal(room: Room):
    out = room.run(["sh", "-c", "echo through >/dev/console; stat -c %t:%T /dev/console"], tty=True)
    assert "through" in out.stdout
    assert "88:0" in out.stdout


def test_detach_keys_on_a_terminal(room: Room):
    box = room.container(["cat"], tty=True, stdin=True)
    client = box.attach(stdin=True)
    box.start()
    client.send(b"before" + bundles.DETACH_KEYS + b"after")
    out = client.read_all()
    assert b"after" not in out
    room.until(lambda: box.heard.detaches == [None])
    assert box.state().status == "running"
    again = box.attach(stdin=True)
    again.send(b"\x04\x04")
    assert box.wait().code == 0


def test_detach_keys_mean_nothing_without_a_terminal(room: Room):
    text = "a" + bundles.DETACH_KEYS.decode() + "b"
    assert room.run(["cat"], typed=text.encode()).stdout == text


def test_a_terminal_needs_devpts(room: Room):
    mounts = [m for m in MOUNTS if m["destination"] != "/dev/pts"]
    box = room.container(["true"], tty=True, mounts=mounts)
    with pytest.raises(bundles.StartFailed, match="a terminal needs devpts") as info:
        box.start()
    assert info.value.step == "console"


def test_signals_are_as_a_program_expects(room: Room):
    for options in ({}, {"init": True}, {"tty": True}):
        out = room.run(["grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status"], **options).stdout
        assert _masks(out.splitlines()) == [0, 0, 0], options
    box = room.started(["sleep", "100"])
    client = box.exec("x", ["grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status"])
    assert _masks(client.streams()[0].splitlines()) == [0, 0, 0]


def _masks(lines: list[str]) -> list[int]:
    """Read the masks without signals 32 and 33, which are glibc's own.

    Nobody can set them through glibc, and GNU make 4.3 starts its children with them ignored.
    """
    return [int(line.split()[1], 16) & ~(0b11 << 31) for line in lines]


def test_init_reaps_and_passes_on(room: Room):
    box = room.container(
        ["sh", "-c", ("trap 'echo term; exit 9' TERM; (sleep 0.05 &) ; echo up; "
         "while :; do sleep 0.1; done")], init=True,
    )  # fmt: skip
    client = box.attach()
    box.start()
    client.read_until(b"up")
    out = box.exec("x", ["sh", "-c", "cat /proc/1/comm; sleep 0.2; ps -o stat"]).streams()[0]
    assert out.startswith(b"docker-init\n")
    assert b"Z" not in out.replace(b"STAT", b"")
    box.kill(15)
    client.read_until(b"term")
    assert box.wait().code == 9


def test_without_init_the_program_is_pid_1(room: Room):
    assert room.sh("echo $$") == "1\n"
    assert room.sh("test $$ != 1 && echo more", init=True) == "more\n"


def test_init_leads_the_terminal(room: Room):
    box = room.container(["sh", "-c", "trap 'exit 5' INT; echo up; while :; do read x; done"],
                         init=True, tty=True, stdin=True)  # fmt: skip
    client = box.attach(stdin=True)
    box.start()
    client.read_until(b"up")
    client.send(b"\x03")
    assert box.wait().code == 5


def test_the_oom_killer_is_told(room: Room):
    box = room.container(
        ["sh", "-c", "x=a; while :; do x=$x$x; done"], resources={"memory": {"limit": 32 << 20}}
    )
    box.start()
    record = box.wait()
    assert record.code == 137
    assert record.oom
    assert box.heard.ooms >= 1
    assert box.heard.order.index("oom") < box.heard.order.index("exit")


def test_pause_and_resume(room: Room):
    box = room.container(["sh", "-c", "while :; do echo x; sleep 0.01; done"])
    client = box.attach()
    box.start()
    client.read_until(b"x")
    room.do(box.keeper.pause())
    assert box.state().status == "paused"
    assert box.cgroup().frozen()
    room.do(box.keeper.resume())
    assert box.state().status == "running"
    assert not box.cgroup().frozen()


def test_kill_while_paused(room: Room):
    box = room.started(["sleep", "100"])
    room.do(box.keeper.pause())
    box.kill()
    assert box.wait().code == 137


def test_the_record_on_disk_is_what_was_told(room: Room):
    box = room.started(["sh", "-c", "exit 6"])
    record = box.wait()
    assert box.heard.record == record == room.keepers.exit_record(box.id)
    assert box.heard.order[-2:] == ["exit", "gone"]


def test_output_after_much_output_is_not_lost(room: Room):
    result = room.run(["sh", "-c", "seq 1 200000; echo end"])
    assert len(result.stdout.splitlines()) == 200001
    assert result.stdout.endswith("end\n")


def test_window_size_of_the_keepers_own_terminal_is_not_needed(room: Room):
    """The keeper has no controlling terminal that a container could get at."""
    box = room.started(["sleep", "100"])
    with open(f"/proc/{bundles.keeper_pid(box.pid)}/stat") as file:
        assert file.read().rpartition(")")[2].split()[4] == "0"
    assert termios.TIOCGWINSZ
