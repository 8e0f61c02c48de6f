"""SIGKILL for pierd, for the zygote, for a keeper, each once and where it hurts."""

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3

from busybox_image import NAME
from engine_process import EngineProcess, wait_until


def state(engine: EngineProcess, name: str) -> dict:
    return json.loads(engine.docker("inspect", "--format", "{{json .State}}", name).stdout)


def parent(pid: int) -> int:
    """The parent's PID, 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and parent(int(name)) == pid
    ]


def run(engine: EngineProcess, name: str, script: str, *options: str) -> int:
    """Run a container in the background; return the PID of its first process."""
    engine.docker("run", "-d", "--name", name, *options, NAME, "sh", "-c", script)
    return state(engine, name)["Pid"]


def attach(engine: EngineProcess, name: str) -> socket.socket:
    """Attach as a client does that, other than docker's, does not also wait for the exit."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(engine.socket)
    path = f"/v1.51/containers/{name}/attach?stream=1&stdin=1&stdout=1"
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0"
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: pier\r\n{upgrade}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return sock


def say(sock: socket.socket, word: str) -> str:
    """Send a line; return the line that comes back, out of its frame."""
    sock.sendall(word.encode() + b"\n")
    frame = sock.recv(8, socket.MSG_WAITALL)
    return sock.recv(int.from_bytes(frame[4:], "big"), socket.MSG_WAITALL).decode()


def test_a_container_whose_start_was_not_recorded_goes_on(engine):
    pid = run(engine, "unrecorded", "sleep 300")
    engine.kill()
    # As a pierd leaves it that is killed between the start of the process and the record.
    with contextlib.closing(sqlite3.connect(f"{engine.data_root}/pier.db")) as db, db:
        ((record,),) = db.execute("SELECT record FROM containers").fetchall()
        changed = json.loads(record)
        changed["State"].update(Status="created", Running=False, Pid=0)
        db.execute("UPDATE containers SET record = ?", (json.dumps(changed).encode(),))
    engine.start()
    found = state(engine, "unrecorded")
    assert (found["Running"], found["Pid"]) == (True, pid)
    assert engine.docker("exec", "unrecorded", "echo", "in").stdout == "in\n"
    engine.docker("rm", "-f", "unrecorded")
    assert parent(pid) == 0


def test_containers_and_streams_go_on_without_pierd(engine):
    script = "while read line; do echo got $line; done; exit 6"
    engine.docker("create", "-i", "--name", "talker", NAME, "sh", "-c", script)
    with attach(engine, "talker") as sock:
        engine.docker("start", "talker")
        assert say(sock, "one") == "got one\n"
        engine.kill()
        assert say(sock, "two") == "got two\n", "the stream goes on while nobody listens"
        engine.start()
        assert state(engine, "talker")["Running"]
        assert say(sock, "three") == "got three\n"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert engine.docker("wait", "talker").stdout == "6\n"
    assert engine.docker("logs", "talker").stdout == "got one\ngot two\ngot three\n"


def test_log_followers_go_on_without_pierd(engine, tmp_path):
    script = (
        "i=0; while [ ! -e /end ]; do echo $((i += 1)); usleep 10000; done; sleep 0.2; echo over"
    )
    run(engine, "counter", script)
    with (tmp_path / "all").open("wb") as out, (tmp_path / "stamped").open("wb") as stamped:
        followers = [
            engine.docker.popen("logs", "--follow", "counter", stdin=None, stdout=out, stderr=None),
            engine.docker.popen("logs", "-ft", "counter", stdin=None, stdout=stamped, stderr=None),
        ]
        for end in (engine.kill, engine.stop):
            written = wait_for_growth(out.name, 0)
            wait_for_growth(stamped.name, 0)
            end()
            wait_for_growth(out.name, written)
            engine.start()
        engine.docker("exec", "counter", "touch", "/end")
        assert [process.wait(30) for process in followers] == [0, 0]
    lines = (tmp_path / "all").read_text().split()
    assert lines == [*map(str, range(1, len(lines))), "over"]
    words = (tmp_path / "stamped").read_text().split()
    assert words[1::2] == lines


def wait_for_growth(path: str, size: int) -> int:
    wait_until(lambda: os.path.getsize(path) > size, f"{path} grows")
    return os.path.getsize(path)


def test_a_follower_ends_with_its_keeper(engine):
    pid = run(engine, "sleeper", "echo here; sleep 300")
    with engine.docker.popen("logs", "--follow", "sleeper") as follower:
        assert follower.stdout.readline() == b"here\n"
        engine.kill()
        os.kill(parent(pid), signal.SIGKILL)
        assert follower.communicate(timeout=30)[0] == b""
        assert follower.returncode == 0
    engine.start()
    assert not state(engine, "sleeper")["Running"]


def test_a_new_pierd_serves_the_containers_of_the_old_one(engine):
    run(engine, "server", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    engine.docker("pause", "server")
    engine.kill()
    engine.start()
    assert state(engine, "server")["Status"] == "paused"
    engine.docker("unpause", "server")
    assert engine.docker("exec", "server", "echo", "hello").stdout == "hello\n"
    assert "trap" in engine.docker("top", "server").stdout
    engine.docker("stop", "server")
    assert state(engine, "server")["ExitCode"] == 9
    engine.docker("start", "server")
    assert state(engine, "server")["Running"]


def test_an_exit_while_pierd_was_down(engine):
    pid = run(engine, "short", "sleep 600")
    removed = run(engine, "removed", "sleep 1; exit 1", "--rm")
    engine.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not parent(pid) and not parent(removed), "both containers have ended")
    engine.start()
    found = state(engine, "short")
    assert (found["Status"], found["ExitCode"], found["Error"]) == ("exited", 137, "")
    assert engine.docker("ps", "-aq", "--filter", "name=removed").stdout == ""


def test_an_exit_code_from_while_pierd_was_down(engine):
    pid = run(engine, "coded", "trap 'exit 42' USR1; while :; do sleep 0.05; done")
    engine.kill()
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: not parent(pid), "the container has ended")
    engine.start()
    assert state(engine, "coded")["ExitCode"] == 42
    assert engine.docker("wait", "coded").stdout == "42\n"


def test_restart_policies_after_a_crash(engine):
    pids = {
        name: run(engine, name, "sleep 600", "--restart", policy)
        for name, policy in (
            ("always", "always"),
            ("never", "no"),
            ("unless", "unless-stopped"),
            ("stopped", "unless-stopped"),
            ("stopped-always", "always"),
        )
    }
    engine.docker("kill", "stopped", "stopped-always")
    engine.kill()
    for pid in pids.values():
        if parent(pid):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(parent, pids.values())), "all containers have ended")
    engine.start()

    def running() -> set[str]:
        return set(engine.docker("ps", "--format", "{{.Names}}").stdout.split())

    expected = {"always", "unless", "stopped-always"}
    wait_until(lambda: running() == expected, "policies have been applied")
    assert state(engine, "never")["ExitCode"] == 137


def test_a_keeper_that_is_killed_takes_its_container_with_it(engine):
    pid = run(engine, "orphan", "sleep 601 & sleep 602")
    other = run(engine, "other", "sleep 603")
    os.kill(parent(pid), signal.SIGKILL)
    assert engine.docker("wait", "orphan").stdout == "137\n"
    found = state(engine, "orphan")
    assert found["Status"] == "exited"
    assert "keeper" in found["Error"]
    wait_until(lambda: not parent(pid), "its processes are gone")
    assert state(engine, "other")["Pid"] == other
    engine.docker("start", "orphan")
    assert state(engine, "orphan")["Running"]


def test_a_keeper_that_is_killed_while_pierd_is_down(engine):
    pid = run(engine, "orphan", "sleep 601 & sleep 602")
    keeper = parent(pid)
    engine.kill()
    os.kill(keeper, signal.SIGKILL)
    engine.start()
    found = state(engine, "orphan")
    assert (found["Status"], found["ExitCode"]) == ("exited", 137)
    assert "keeper" in found["Error"]
    wait_until(lambda: not parent(pid), "its processes are gone")


def test_the_zygote_is_replaced(engine):
    pid = run(engine, "before", "sleep 600")
    (zygote,) = children(engine.pid)
    os.kill(zygote, signal.SIGKILL)
    assert engine.docker("run", "--rm", NAME, "echo", "hello").stdout == "hello\n"
    assert children(engine.pid) != [zygote]
    assert state(engine, "before")["Pid"] == pid


def test_what_a_crash_left_half_made_is_cleared(engine):
    """Directories that no row knows, in both roots, as a pierd killed in mid-create leaves them."""
    known = run(engine, "known", "sleep 600")
    engine.kill()
    stranger = "f" * 64
    os.makedirs(f"{engine.data_root}/containers/{stranger}/upper/deep")
    os.makedirs(f"{engine.exec_root}/containers/{stranger}/rootfs")
    os.makedirs(f"{engine.data_root}/trash/{stranger}/upper")
    engine.start()
    for root in (engine.data_root, engine.exec_root):
        assert stranger not in os.listdir(f"{root}/containers")
    assert state(engine, "known")["Pid"] == known


def test_execs_go_on_without_pierd(engine):
    run(engine, "busy", "sleep 300")
    script = "echo begun; while ! test -e /go-$0; do sleep 0.05; done; echo over; exit $0"
    with contextlib.ExitStack() as stack:
        clients = {}
        for code in (7, 8):
            client = engine.docker.popen("exec", "-i", "busy", "sh", "-c", script, str(code))
            stack.callback(client.communicate)
            stack.callback(client.kill)
            assert client.stdout.readline() == b"begun\n"
            clients[code] = client
        engine.kill()
        # One ends while there is no pierd; its client asks when there is one again.
        with open(f"/proc/{_pid_of(engine, 'busy')}/root/go-7", "w"):
            pass
        assert clients[7].stdout.readline() == b"over\n"
        engine.start()
        known = json.loads(engine.docker("inspect", "-f", "{{json .ExecIDs}}", "busy").stdout)
        assert len(known) == 1, "that which runs is known"
        engine.docker("exec", "busy", "touch", "/go-8")
        assert clients[8].stdout.readline() == b"over\n"
        assert clients[8].wait(30) == 8
        found = engine.docker("exec", "busy", "true", check=False)
        assert found.returncode == 0
    engine.docker("rm", "-f", "busy")


def _pid_of(engine: EngineProcess, name: str) -> int:
    """The container's first process, from its record: there is no pierd to ask."""
    with contextlib.closing(sqlite3.connect(f"{engine.data_root}/pier.db")) as db:
        for (record,) in db.execute("SELECT record FROM containers").fetchall():
            found = json.loads(record)
            if found["Name"] == name:
                return int(found["State"]["Pid"])
    raise AssertionError(f"no container {name}")


def test_an_exec_that_ended_without_pierd_has_its_exit_code(engine):
    run(engine, "busy", "sleep 300")
    with socket.socket(socket.AF_UNIX) as sock:
        body = json.dumps(
            {"Cmd": ["sh", "-c", "echo begun; sleep 0.5; exit 5"], "AttachStdout": True}
        )
        exec_id = json.loads(_post(engine, "/containers/busy/exec", body))["Id"]
        sock.settimeout(30)
        sock.connect(engine.socket)
        start = f"POST /v1.51/exec/{exec_id}/start HTTP/1.1\r\nHost: pier\r\n"
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{start}{upgrade}Content-Length: 2\r\n\r\n{{}}".encode())
        answer = b""
        while b"begun" not in answer:
            # Before that, pierd may not have passed it on yet.
            answer += (piece := sock.recv(4096))
            assert piece, answer
        engine.kill()
        while sock.recv(4096):
            pass
    engine.start()
    found = json.loads(_post(engine, f"/exec/{exec_id}/json", None))
    assert (found["Running"], found["ExitCode"]) == (False, 5)
    assert found["ProcessConfig"]["entrypoint"] == "sh"
    engine.docker("rm", "-f", "busy")


def _post(engine: EngineProcess, path: str, body: str | None) -> str:
    """Ask the engine; the answer's body. Without a body it is a GET."""
    connection = http.client.HTTPConnection("pier")
    with contextlib.closing(connection):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(engine.socket)
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", f"/v1.51{path}", body, headers)
        return connection.getresponse().read().decode()
