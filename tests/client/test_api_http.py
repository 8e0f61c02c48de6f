"""The HTTP API of a real pierd: raw requests, and docker-py."""

import gc
import http.client
import json
import socket
import threading
import urllib.parse
import warnings

import docker
import pytest

from busybox_image import docker_archive, layer_tar
from engine_process import wait_until

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """Raw requests over one kept connection."""

    def __init__(self, path):
        self.path = path
        self.connection = UnixConnection(path)

    def __call__(self, method, target, body=None, headers=None):
        """Return the status, the headers and the body, decoded if it is JSON."""
        headers = dict(headers or {})
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        self.connection.request(method, target, body, headers)
        response = self.connection.getresponse()
        content = response.read()
        if response.headers.get("Content-Type") == "application/json" and content:
            content = json.loads(content)
        return response.status, response.headers, content

    def create(self, image, *cmd, name="", **config):
        status, _, body = self(
            "POST",
            "/v1.51/containers/create?name=" + name,
            {"Image": image, "Cmd": list(cmd), **config},
        )
        assert status == 201, body
        return body["Id"]


def api_path(engine):
    return engine.host.removeprefix("unix://")


@pytest.fixture
def api(engine):
    api = Api(api_path(engine))
    yield api
    api.connection.close()


@pytest.fixture
def client(engine):
    client = docker.DockerClient(engine.host, version="auto", timeout=20)
    yield client
    client.close()
    # docker-py leaves hijacked sockets to the collector: here, and without its warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_every_answer_says_who_answers(api):
    for target, expected in (("/_ping", 200), ("/v1.24/version", 200), ("/nothing", 404)):
        status, headers, _ = api("GET", target)
        assert status == expected
        assert headers["Api-Version"] == "1.55"
        assert headers["Docker-Experimental"] == "false"
        assert headers["Ostype"] == "linux"
        assert headers["Server"] == "Docker/29.7.2 (linux)"


def test_versions(api):
    # Of JSON such a client knows nothing.
    status, headers, text = api("GET", "/v1.23/version")
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert text.startswith(b"client version 1.23 is too old")
    assert api("GET", "/v1.99/version")[2]["message"].startswith("client version 1.99 is too new")
    status, _, version = api("GET", "/version")
    assert (status, version["ApiVersion"], version["MinAPIVersion"]) == (200, "1.55", "1.24")
    assert version["Platform"]["Name"].startswith("Pier ")


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("GET", "/containers/nope/json", 404, "No such container: nope"),
        ("POST", "/containers/nope/start", 404, "No such container: nope"),
        ("DELETE", "/containers/nope", 404, "No such container: nope"),
        ("GET", "/images/nope/json", 404, "No such image: nope:latest"),
        ("GET", "/exec/nope/json", 404, "No such exec instance: nope"),
        ("POST", "/exec/nope/start", 404, "No such exec instance: nope"),
        ("GET", '/containers/json?filters={"x":["1"]}', 400, "invalid filter 'x'"),
        ("GET", "/containers/json?limit=x", 400, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("GET", "/services", 503, "This node is not a swarm manager."),
        ("GET", "/containers", 404, "page not found"),
    ],
)
def test_errors(api, method, target, status, message):
    got, _, body = api(method, urllib.parse.quote(target, safe="/?&="))
    assert got == status
    assert body["message"].startswith(message)


def test_an_attach_that_fails_says_so_in_the_stream(api):
    status, headers, body = api("POST", "/containers/nope/attach?stream=1")
    assert (status, headers["Content-Type"]) == (404, "application/vnd.docker.raw-stream")
    assert body == b"No such container: nope\r\n"


def test_options_are_answered_anywhere(api):
    for target in ("/", "/v1.40/containers/json", "/nothing"):
        assert api("OPTIONS", target)[0::2] == (200, b"")


def test_bodies_of_create(api, image):
    target = "/v1.51/containers/create"
    for body, message in (
        (b"", "invalid JSON: got EOF while reading request body"),
        ({}, "config cannot be empty in order to create a container"),
        ({"Image": image, "HostConfig": {"Memory": "1g"}}, "invalid JSON: json: cannot unmarshal"),
        ({"Image": 1}, "invalid JSON: json: cannot unmarshal number into Go struct field .Image"),
    ):
        status, _, answer = api("POST", target, body)
        assert (status, answer["message"][: len(message)]) == (400, message)
    status, _, answer = api("POST", target, {"Image": "nope"})
    assert (status, answer["message"]) == (404, "No such image: nope:latest")


def test_statuses_of_the_life_cycle(api, image):
    container = api.create(image, "sleep", "60")
    path = f"/v1.51/containers/{container}"
    for method, verb, expected in (
        ("POST", "/start", 204),
        ("POST", "/start", 304),
        ("POST", "/pause", 204),
        ("POST", "/pause", 409),
        ("POST", "/unpause", 204),
        ("POST", "/rename?name=api-renamed", 204),
        ("DELETE", "", 409),
        ("POST", "/kill", 204),
        ("POST", "/wait", 200),
        ("POST", "/kill", 409),
        ("POST", "/stop", 304),
        ("GET", "/json?size=1", 200),
        ("DELETE", "", 204),
        ("DELETE", "", 404),
    ):
        status, _, body = api(method, path + verb)
        assert status == expected, (method, verb, body)


def read_frames(sock):
    """Return what comes until the end of a multiplexed stream, by stream number."""
    streams = {}
    with sock.makefile("rb") as file:
        while head := file.read(8):
            number, size = head[0], int.from_bytes(head[4:], "big")
            streams[number] = streams.get(number, b"") + file.read(size)
    return streams


def hijack(connection, target, body=b"", behind=b""):
    """Send an upgrade request with bytes right behind it; return the answer's head, and the socket."""
    if connection.sock is None:
        connection.connect()
    sock = connection.sock
    head = (
        f"POST {target} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode() + body + behind)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    return answer.decode(), sock


@pytest.mark.parametrize("is_kept", [True, False])
def test_attach_takes_over_the_connection(api, engine, image, is_kept):
    container = api.create(image, "cat", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    connection = api.connection if is_kept else UnixConnection(api_path(engine))
    target = f"/v1.51/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    head, sock = hijack(connection, target, behind=b"GET / HTTP/1.1\r\n\r\n")
    assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
    assert "application/vnd.docker.multiplexed-stream" in head
    starter = Api(api_path(engine))
    assert starter("POST", f"/containers/{container}/start")[0] == 204
    sock.sendall(b"more")
    sock.shutdown(socket.SHUT_WR)
    assert read_frames(sock) == {1: b"GET / HTTP/1.1\r\n\r\nmore"}
    assert starter("POST", f"/containers/{container}/wait")[2]["StatusCode"] == 0
    starter.connection.close()
    connection.close()


def test_exec_takes_over_the_connection(api, engine, image):
    container = api.create(image, "sleep", "60")
    api("POST", f"/containers/{container}/start")
    script = "cat; echo wrong >&2; exit 3"
    config = {"Cmd": ["sh", "-c", script]} | {
        f"Attach{name}": True for name in ("Stdin", "Stdout", "Stderr")
    }
    status, _, body = api("POST", f"/v1.51/containers/{container}/exec", config)
    assert status == 201
    connection = UnixConnection(api_path(engine))
    target = f"/v1.51/exec/{body['Id']}/start"
    head, sock = hijack(connection, target, b'{"Detach":false}', b"early ")
    assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
    sock.sendall(b"late")
    sock.shutdown(socket.SHUT_WR)
    assert read_frames(sock) == {1: b"early late", 2: b"wrong\n"}
    connection.close()
    _, _, state = api("GET", f"/exec/{body['Id']}/json")
    assert (state["Running"], state["ExitCode"]) == (False, 3)


def test_wait_answers_before_the_end(api, engine, image):
    container = api.create(image, "sleep", "60")
    api("POST", f"/containers/{container}/start")
    waiting = UnixConnection(api_path(engine))
    waiting.request("POST", f"/containers/{container}/wait")
    response = waiting.getresponse()
    assert response.status == 200
    assert api("POST", f"/containers/{container}/kill")[0] == 204
    assert json.loads(response.read()) == {"StatusCode": 137}
    waiting.close()


def test_events_are_lines(api, engine, image):
    listening = UnixConnection(api_path(engine))
    listening.request("GET", "/events?filters=" + urllib.parse.quote('{"type":["container"]}'))
    response = listening.getresponse()
    container = api.create(image, "true", name="api-events", Labels={"a": "b"})
    event = json.loads(response.readline())
    assert (event["Type"], event["Action"], event["scope"]) == ("container", "create", "local")
    assert event["Actor"]["ID"] == container
    assert event["Actor"]["Attributes"] == {"a": "b", "image": image, "name": "api-events"}
    assert event["timeNano"] // 10**9 == event["time"]
    # The stream is endless: reading it to the end would wait for ever.
    listening.sock.shutdown(socket.SHUT_RDWR)
    response.close()
    listening.close()


def test_logs_by_content_type(api, image):
    container = api.create(image, "sh", "-c", "echo out; echo wrong >&2")
    api("POST", f"/containers/{container}/start")
    api("POST", f"/containers/{container}/wait")
    status, headers, body = api("GET", f"/containers/{container}/logs?stdout=1")
    assert (status, body) == (200, b"\1\0\0\0\0\0\0\4out\n")
    assert headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    _, headers, _ = api("GET", f"/v1.41/containers/{container}/logs?stdout=1")
    assert headers["Content-Type"] == "application/vnd.docker.raw-stream"
    status, _, body = api("GET", f"/containers/{container}/logs")
    assert (status, body["message"]) == (
        400,
        "Bad parameters: you must choose at least one stream",
    )


def test_docker_py_runs(client, image):
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.55"
    assert client.info()["OSType"] == "linux"
    assert client.containers.run(image, ["echo", "hello"], remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run(image, ["sh", "-c", "exit 7"], remove=True)
    assert caught.value.exit_status == 7
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nope")


def test_docker_py_handles_a_container(client, image):
    container = client.containers.run(
        image,
        ["sh", "-c", "echo one; exec sleep 60"],
        detach=True,
        name="api-py",
        labels={"a": "b"},
    )
    assert [found.id for found in client.containers.list(filters={"label": "a=b"})] == [
        container.id
    ]
    code, output = container.exec_run(["sh", "-c", "echo out; echo wrong >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"wrong\n"))
    assert container.exec_run("tty", tty=True).exit_code == 0
    stream = container.logs(stream=True, follow=True)
    assert next(stream) == b"one\n"
    assert container.top()["Titles"][-1] == "CMD"
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("api-py-2")
    waiter = threading.Thread(target=container.stop, kwargs={"timeout": 0})
    waiter.start()
    assert container.wait()["StatusCode"] == 137
    waiter.join()
    assert list(stream) == []
    container.remove()


def test_docker_py_attaches(client, image):
    container = client.containers.create(image, "cat", stdin_open=True)
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw = sock._sock
    raw.sendall(b"hello\n")
    raw.shutdown(socket.SHUT_WR)
    assert sock.read(8) == b"\1\0\0\0\0\0\0\6"
    assert sock.read(6) == b"hello\n"
    assert sock.read() == b""
    sock.close()
    raw.close()  # docker-py leaves it open
    assert container.wait()["StatusCode"] == 0


def test_docker_py_handles_images(client, image):
    found = client.images.get(image)
    assert image in found.tags
    assert found.tag("api-py/copy", "1")
    assert "api-py/copy:1" in [tag for item in client.images.list() for tag in item.tags]
    assert found.history()
    client.images.remove("api-py/copy:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("api-py/copy:1")


def test_a_quiet_load_is_over_when_its_head_arrives(engine, docker):
    # Docker's own tests look at nothing else, and close the connection.
    connection = UnixConnection(engine.host.removeprefix("unix://"))
    archive = docker_archive("made/quiet:1", [layer_tar({"a": bytes(1 << 22)})])
    connection.request("POST", "/images/load?quiet=1", archive)
    assert connection.getresponse().status == 200
    connection.close()
    docker("rmi", "made/quiet:1")


def test_execs_go_with_their_container(api, image):
    container = api.create(image, "sleep", "99")
    assert api("POST", f"/containers/{container}/start")[0] == 204

    def make():
        return api("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})[2]["Id"]

    def start(exec_id):
        status, _, body = api("POST", f"/exec/{exec_id}/start", {"Detach": True})
        return status, body["message"] if body else ""

    ran, waiting = make(), make()
    assert start(ran)[0] == 200
    wait_until(lambda: not api("GET", f"/exec/{ran}/json")[2]["Running"], "the exec ends")
    assert start(ran) == (409, f"exec command {ran} has already run")
    status, _, body = api("POST", f"/exec/{ran}/resize?h=1&w=1")
    assert (status, body) == (
        404,
        {"message": f"NotFound: process does not exist {ran}: not found"},
    )
    assert api("POST", f"/containers/{container}/kill")[0] == 204
    assert api("POST", f"/containers/{container}/wait")[0] == 200
    assert api("GET", f"/exec/{ran}/json")[0] == 200
    assert start(ran) == (409, f"container {container} is not running")
    assert start(waiting) == (404, f"No such exec instance: {waiting}")
    assert api("DELETE", f"/containers/{container}?force=1")[0] == 204
    assert api("GET", f"/exec/{ran}/json")[0] == 404
    assert start(ran) == (404, f"No such container: {ran}")


def test_a_device_request_is_shown_as_it_was(api, image):
    host = {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["a/b=c"]}]}
    _, _, made = api("POST", "/containers/create", {"Image": image, "HostConfig": host})
    shown = api("GET", f"/containers/{made['Id']}/json")[2]["HostConfig"]["DeviceRequests"]
    expected = {"Driver": "cdi", "Count": 0, "DeviceIDs": ["a/b=c"]}
    assert shown == [{**expected, "Capabilities": None, "Options": None}]


def test_joining_who_does_not_run(api, image):
    """Of a process namespace it is the engine's own fault, as with dockerd: 500."""
    donor = api.create(image, "true")
    for mode, status in (("PidMode", 500), ("IpcMode", 409), ("NetworkMode", 409)):
        host = {mode: f"container:{donor}"}
        _, _, made = api("POST", "/containers/create", {"Image": image, "HostConfig": host})
        assert api("POST", f"/containers/{made['Id']}/start")[0] == status, mode


def test_an_exec_is_not_resized_after_its_container(api, image):
    container = api.create(image, "sleep", "99")
    assert api("POST", f"/containers/{container}/start")[0] == 204
    _, _, made = api("POST", f"/containers/{container}/exec", {"Cmd": ["sleep", "99"], "Tty": True})
    start = {"Detach": True, "Tty": True}
    assert api("POST", f"/exec/{made['Id']}/start", start)[0] == 200
    assert api("POST", f"/containers/{container}/kill")[0] == 204
    assert api("POST", f"/containers/{container}/wait")[0] == 200
    status, _, body = api("POST", f"/exec/{made['Id']}/resize?h=40&w=40")
    assert (status, body) == (409, {"message": f"container {container} is not running"})
