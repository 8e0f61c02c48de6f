"""The HTTP client against a socket that answers as a test tells it; finding and starting an engine."""

import io
import os
import socket
import sys
import threading

import pytest
from cli_fake_engine import Answer, FakeEngine

from pier.cli import engine
from pier.cli.errors import ApiError, Failure, NoEngine
from pier.cli.http import Client, query_string, quote


@pytest.fixture
def fake(tmp_path):
    server = FakeEngine(str(tmp_path / "s"))
    yield server
    server.close()


@pytest.fixture
def client(fake):
    client = Client(fake.path, fake.host)
    yield client
    client.close()


@pytest.fixture
def scripted(tmp_path):
    """A client whose peer reads one request and sends `answer` in the pieces given."""
    path = str(tmp_path / "scripted")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threads = []
    client = Client(path, "unix://" + path)

    def start(*pieces):
        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return client

    yield start
    client.close()
    for thread in threads:
        thread.join()
    listener.close()


def test_query():
    query = {"all": True, "size": False, "t": None, "names": ["a b", "c/d"], "n": 3}
    assert query_string(query) == "?all=1&names=a%20b&names=c%2Fd&n=3"
    assert query_string({}) == ""
    assert quote("aZ0-._~é") == "aZ0-._~%C3%A9"


def test_json_and_reuse(fake, client):
    fake.routes["POST /a"] = Answer(201, {"x": 1})
    assert client.post("/a", body={"é": [1]}).json() == {"x": 1}
    first = client.connect()
    client.give_back(first)
    assert client.post("/a").json() == {"x": 1}
    assert client.connect() is first
    client.give_back(first)
    assert fake.requests[0].json == {"é": [1]}


def test_characters_of_two_halves(fake, client):
    """What the lean encoder escapes goes as json would write it, or not at all."""
    fake.routes = {"POST /a": Answer(body={})}
    client.post("/a", body={"a": "🐳"}).json()
    assert fake.requests[0].json == {"a": "🐳"}
    with pytest.raises(UnicodeEncodeError):
        client.post("/a", body={"a": "\udcff"})


def test_error_is_the_engines_message(fake, client):
    fake.routes["GET /a"] = Answer(409, {"message": "it is in use"})
    with pytest.raises(ApiError, match="Error response from daemon: it is in use") as caught:
        client.get("/a")
    assert caught.value.code == 409


def test_upload_is_chunked(fake, client):
    fake.routes["POST /load"] = Answer(200, {})
    body = os.urandom(3_000_000)
    client.request("POST", "/load", body=io.BytesIO(body), content_type="application/x-tar").read()
    assert fake.requests[0].body == body
    assert fake.requests[0].headers["transfer-encoding"] == "chunked"


def test_chunks_cut_anywhere(scripted):
    wire = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5;x=y\r\n{"a":\r\n4\r\n1}\n{\r\n6\r\n"b":2}\r\n0\r\nTrailer: x\r\n\r\n'
    )
    client = scripted(*(wire[at : at + 3] for at in range(0, len(wire), 3)))
    assert list(client.get("/events").json_lines()) == [{"a": 1}, {"b": 2}]


def test_body_until_close(scripted):
    client = scripted(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def")
    assert client.get("/x").read() == b"abcdef"


def test_hijack_keeps_what_came_early(scripted):
    client = scripted(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
    connection = client.hijack("/attach")
    assert connection.buffer == b"early"
    connection.close()


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection"),
        (b"garbage\r\n\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "unexpected EOF"),
    ],
)
def test_broken_answers(scripted, wire, message):
    client = scripted(wire)
    with pytest.raises(Failure, match=message):
        client.get("/x").read()


def test_refused_while_uploading(scripted):
    """An engine that answers before it has read the body is heard."""
    wire = b'HTTP/1.1 400 Bad\r\nContent-Length: 17\r\n\r\n{"message":"no!"}'
    client = scripted(wire)
    with pytest.raises(ApiError, match="no!"):
        client.request("POST", "/load", body=io.BytesIO(bytes(30_000_000)))


def test_no_engine_at_a_given_address(tmp_path):
    host = f"unix://{tmp_path}/none"
    client = engine.open_client([host])
    with pytest.raises(NoEngine) as caught:
        client.get("/x")
    expected = f"Cannot connect to the Docker daemon at {host}. Is the docker daemon running?"
    assert str(caught.value) == expected
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("variables", "hosts", "path"),
    [
        ({"DOCKER_HOST": "unix:///d"}, [], "/d"),
        ({"DOCKER_HOST": "unix:///d", "PIER_HOST": "unix:///p"}, [], "/p"),
        ({"DOCKER_HOST": "unix:///d"}, ["unix:///h"], "/h"),
    ],
)
def test_addresses(monkeypatch, variables, hosts, path):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("PIER_HOST", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert engine.open_client(hosts).path == path


def test_address_of_another_kind():
    with pytest.raises(Failure, match="unix sockets, tcp and ssh only"):
        engine.open_client(["npipe://x"])
    with pytest.raises(Failure, match="unable to parse docker host `foo`"):
        engine.open_client(["foo"])


# Stands for pierd: answers one thing at the default socket, for as long as `stop` is not there.
STAND_IN = """
import os, socket, sys, time
directory = sys.argv[1]
with open(directory + "/started", "a") as file:
    file.write(f"{os.getpid()} {os.getsid(0)}\\n")
print("stand-in says hello", flush=True)
if len(sys.argv) > 2:
    sys.exit(3)
listener = socket.socket(socket.AF_UNIX)
listener.bind(directory + "/pier.sock")
listener.listen(16)
listener.settimeout(0.05)
while not os.path.exists(directory + "/stop"):
    try:
        listener.accept()
    except TimeoutError:
        pass
"""


@pytest.fixture
def default_directory(tmp_path, monkeypatch):
    for name in ("DOCKER_HOST", "PIER_HOST"):
        monkeypatch.delenv(name, raising=False)
    directory = str(tmp_path / "pier")
    monkeypatch.setattr(engine, "runtime_directory", lambda: directory)
    yield directory
    if os.path.exists(directory + "/pier.sock"):
        open(directory + "/stop", "w").close()
        with open(directory + "/started", encoding="ascii") as file:
            os.waitpid(int(file.read().split()[0]), 0)


def stand_in(monkeypatch, *arguments):
    command = [sys.executable, "-c", STAND_IN, *arguments]
    monkeypatch.setattr(engine, "pierd_command", lambda: command)


def test_two_clients_start_one_engine(default_directory, monkeypatch):
    stand_in(monkeypatch, default_directory)
    clients = []
    threads = [
        threading.Thread(target=lambda: clients.append(engine.open_client([]))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [client.host for client in clients] == [f"unix://{default_directory}/pier.sock"] * 2
    for client in clients:
        client.connect().close()
        client.close()
    with open(default_directory + "/started", encoding="ascii") as file:
        (line,) = file.read().splitlines()
    pid, session = line.split()
    assert pid == session  # it outlives the client's terminal


def test_engine_that_does_not_start(default_directory, monkeypatch):
    stand_in(monkeypatch, default_directory, "fail")
    with pytest.raises(Failure) as caught:
        engine.open_client([])
    assert str(caught.value) == "pierd did not start (status 3):\nstand-in says hello"
