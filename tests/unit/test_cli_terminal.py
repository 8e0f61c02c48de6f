"""Interactive sessions under a pty: raw mode, detach keys, window size, signals."""

import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from contextlib import suppress

import pexpect
import pytest
from cli_fake_engine import Answer, FakeEngine, frame

ID = "ab" * 32
EXEC = "ee" * 32
CONTAINER = {
    "Id": ID,
    "Name": "/c",
    "State": {"Running": True, "Status": "running"},
    "Config": {"Tty": True, "OpenStdin": True},
    "HostConfig": {"AutoRemove": False},
}


class HeldEngine(FakeEngine):
    """Answers the head of /wait at once and the rest when `exited` is set, as an engine does.

    A hijacked stream greets, and ends when the container has exited or the client has gone.
    """

    def __init__(self, path):
        self.exited = threading.Event()
        self.killed = threading.Event()
        super().__init__(path)

    def _respond(self, request, connection, reader):
        if request.path.endswith("/kill"):
            self.killed.set()
            self.exited.set()
        if request.path.endswith("/wait"):
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            self.exited.wait(20)
            connection.sendall(b'11\r\n{"StatusCode":9}\n\r\n0\r\n\r\n')
            return False
        return super()._respond(request, connection, reader)

    def _hijacked(self, connection, reader):
        def end():
            self.exited.wait(20)
            with suppress(OSError):  # the client was first
                connection.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=end, daemon=True).start()
        super()._hijacked(connection, reader)


@pytest.fixture
def fake(tmp_path):
    engine = HeldEngine(str(tmp_path / "s"))
    engine.routes = {
        "POST /containers/create": Answer(201, {"Id": ID, "Warnings": []}),
        "GET /containers/c/json": Answer(body=CONTAINER),
        "POST /containers/c/exec": Answer(201, {"Id": EXEC}),
        f"POST /exec/{EXEC}/start": Answer(hijack=b"hello\r\n"),
        f"POST /exec/{EXEC}/resize": Answer(200),
        f"GET /exec/{EXEC}/json": Answer(body={"ExitCode": 4}),
        f"POST /containers/{ID}/start": Answer(204),
        f"POST /containers/{ID}/kill": Answer(204),
    }
    for name in ("c", ID):
        engine.routes[f"POST /containers/{name}/attach"] = Answer(hijack=b"hello\r\n")
        engine.routes[f"POST /containers/{name}/resize"] = Answer(200)
    yield engine
    engine.exited.set()
    engine.close()


def spawn(fake, *arguments):
    program = ["-m", "pier.cli.main", "-H", fake.host, *arguments]
    child = pexpect.spawn(sys.executable, program, timeout=20, dimensions=(33, 77))
    child.expect("hello")
    return child


def finish(child):
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, child.before.decode().strip()


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        ("run -it img", 0, ""),
        ("start -ai c", 0, ""),
        ("attach c", 1, "read escape sequence"),
        ("exec -it c sh", 1, "read escape sequence"),
    ],
)
def test_detach_keys(fake, line, status, text):
    child = spawn(fake, *line.split())
    child.send("x\x10\x11")
    assert finish(child) == (status, text)
    assert fake.stdin == b"x"


def test_other_detach_keys(fake):
    child = spawn(fake, "run", "-it", "--detach-keys", "ctrl-a,d", "img")
    child.send("\x10\x11\x01d")
    assert finish(child) == (0, "")
    assert fake.stdin == b"\x10\x11"
    assert fake.sent("POST", f"/containers/{ID}/attach")[0].query["detachKeys"] == "ctrl-a,d"


def test_terminal_is_raw_and_given_back(fake):
    child = spawn(fake, "run", "-it", "img")
    flags = termios.tcgetattr(child.child_fd)[3]
    assert not flags & (termios.ECHO | termios.ICANON | termios.ISIG)
    child.send("\x03\x04\r")
    child.send("\x10\x11")
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd)[3] & termios.ECHO
    child.close()
    assert fake.stdin == b"\x03\x04\r"


def test_window_size(fake):
    child = spawn(fake, "run", "-it", "img")
    child.setwinsize(44, 99)
    child.send("\x10\x11")
    finish(child)
    body = fake.sent("POST", "/containers/create")[0].json
    assert body["HostConfig"]["ConsoleSize"] == [33, 77]
    sizes = [r.query for r in fake.sent("POST", f"/containers/{ID}/resize")]
    assert sizes[0] == {"h": "33", "w": "77"}
    assert sizes[-1] == {"h": "44", "w": "99"}


def test_exit_status_of_the_container(fake):
    child = spawn(fake, "run", "-it", "img")
    fake.exited.set()
    assert finish(child) == (9, "")


def test_exit_status_of_an_exec(fake):
    child = spawn(fake, "exec", "-it", "c", "sh")
    fake.exited.set()
    assert finish(child) == (4, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_forwarded(fake, number):
    fake.routes[f"POST /containers/{ID}/attach"] = Answer(hijack=frame(1, b"ready\n"))
    program = [sys.executable, "-m", "pier.cli.main", "-H", fake.host, "run", "img"]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    with child:
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, number)
        assert child.wait(20) == 9
    kills = fake.sent("POST", f"/containers/{ID}/kill")
    assert kills[0].query == {"signal": number.name.removeprefix("SIG")}


def test_interrupt_of_a_plain_command(fake):
    program = [sys.executable, "-m", "pier.cli.main", "-H", fake.host, "wait", "c"]
    child = subprocess.Popen(program, stderr=subprocess.PIPE)
    with child:
        while not fake.sent("POST", "/containers/c/wait"):
            pass
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(20) == 130
        assert child.stderr.read() == b""


def test_reader_that_goes_away(fake):
    fake.routes["GET /containers/json"] = Answer(body=[])
    program = [sys.executable, "-m", "pier.cli.main", "-H", fake.host, "ps"]
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    result = subprocess.run(program, stdout=write_fd, stderr=subprocess.PIPE, check=False)
    os.close(write_fd)
    assert result.stderr == b""
    assert result.returncode == 141
