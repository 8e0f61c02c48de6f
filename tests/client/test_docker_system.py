"""version, info and ping: what clients learn of the engine before they do anything."""

import http.client
import json
import socket
from typing import Any

import pytest

from engine_process import Client, EngineProcess


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def request(
    engine: EngineProcess, method: str, path: str, body: Any = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = UnixConnection(engine.host.removeprefix("unix://"))
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, body and json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_version(docker: Client) -> None:
    found = json.loads(docker("version", "--format", "{{json .Server}}").stdout)
    assert found["Os"] == "linux"
    assert found["MinAPIVersion"] == "1.24"
    assert tuple(map(int, found["ApiVersion"].split("."))) >= (1, 51)
    assert "Server:" in docker("version").stdout


def test_info(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    found = json.loads(docker("info", "--format", "{{json .}}").stdout)
    assert (found["Containers"], found["ContainersRunning"]) == (1, 1)
    assert found["Images"] >= 1
    assert found["OSType"] == "linux"
    assert found["Driver"] == "overlay2"
    assert found["NCPU"] >= 1
    assert found["MemTotal"] > 1 << 28
    assert found["LoggingDriver"] == "json-file"
    assert found["CgroupDriver"] == "cgroupfs"
    assert any("seccomp" in option for option in found["SecurityOptions"])
    assert "Server:" in docker("info").stdout


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.51"])
def test_every_version_answers(engine: EngineProcess, prefix: str) -> None:
    response, content = request(engine, "GET", f"{prefix}/_ping")
    assert (response.status, content) == (200, b"OK")
    assert response.getheader("Api-Version")
    assert response.getheader("Ostype") == "linux"
    response, content = request(engine, "GET", f"{prefix}/containers/json?all=1")
    assert (response.status, json.loads(content)) == (200, [])


# method, path, body; status; message
REFUSALS = [
    ("GET", "/nothing", None, 404, "page not found"),
    ("GET", "/v1.51/nothing", None, 404, "page not found"),
    ("GET", "/v1.51/containers/nobody9/json", None, 404, "No such container: nobody9"),
    ("GET", "/v1.51/images/nothere9/json", None, 404, "No such image: nothere9"),
    ("GET", "/v1.51/exec/nothere9/json", None, 404, "No such exec instance: nothere9"),
    ("POST", "/v1.51/containers/nobody9/start", None, 404, "No such container: nobody9"),
    ("POST", "/v1.51/containers/create", {"Image": "nothere9"}, 404, "No such image: nothere9"),
    ("POST", "/v1.51/containers/create", {"Image": 3}, 400, "cannot unmarshal number"),
    ("POST", "/v1.51/containers/create", {"Hostname": "x"}, 400, "no command specified"),
    ("GET", "/v1.51/containers/json?filters=%7Bx", None, 400, ""),
    ("GET", "/v1.51/volumes?filters={%22dangling%22:[%22x%22]}", None, 400, "invalid filter"),
    ("GET", "/v1.10/containers/json", None, 400, "client version 1.10 is too old"),
    ("GET", "/v9.99/containers/json", None, 400, "client version 9.99 is too new"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "message"), REFUSALS)
def test_refusal(
    engine: EngineProcess, method: str, path: str, body: object, status: int, message: str
) -> None:
    response, content = request(engine, method, path, body)
    assert message in content.decode()
    assert response.status == status


def test_ping_by_head(engine: EngineProcess) -> None:
    response, content = request(engine, "HEAD", "/_ping")
    assert (response.status, content) == (200, b"")


def test_not_modified(engine: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    assert request(engine, "POST", "/containers/it/start")[0].status == 304
    docker("kill", "it")
    docker("wait", "it")
    assert request(engine, "POST", "/containers/it/stop")[0].status == 304
