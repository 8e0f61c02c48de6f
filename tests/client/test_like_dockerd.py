"""The same requests to dockerd and to pierd: status, message and the fields of what is answered.

dockerd comes out of a root file system that PIER_PEERS_ROOT names; both speak API 1.51 here. Where
they differ for a reason, `DIFFERENT` says which.
"""

import http.client
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from requests_to_compare import Request, requests

from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client, EngineProcess

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench"))

API = "/v1.51"
ID = re.compile(r"[0-9a-f]{64}|(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])")
# What need not be the same, by method and path: why.
DIFFERENT = {
    "POST /auth": "each says in its own words that there is no network",
    "GET /containers/over/logs?stdout=1&tail=1": "which of two lines came last is a race",
    "POST /containers/held/kill?signal=SIGWINCH": "any signal thaws with dockerd",
    "POST /containers/held/start": "… after which it runs",
    "POST /containers/held/pause": "… and can be paused",
    "POST /images/{image}/tag?": "dockerd answers 200 and does nothing",
    "GET /images/search?term=x&limit=-1": "dockerd answers 200 with nothing",
    "POST /images/create": "the name of no host",
    "POST /build?dockerfile=../x": "the builders' own words",
    "POST /build?version=9": "the builders' own words",
    "POST /build?buildargs=x": "the builders' own words",
    "POST /networks/nothing/connect": "dockerd takes any name for a container that does not run",
    "GET /containers/runs/stats?stream=0&one-shot=1": "dockerd leaves out the container's name",
    "GET /containers/held/stats?stream=0&one-shot=1": "dockerd leaves out the container's name",
}
# Bodies that dockerd has other words for: parts of the requests.
OTHER_WORDS = (
    "/networks?filters=%7B%22dangling%22%3A%5B%22x", "/volumes?filters=x",
    '"Cmd": 5', '"Cmd": [5]', '"EnableIPv6": "x"', '"EndpointsConfig": 5',  # Go's names of types
    '"Rate": -5', '"BlkioWeight": 70000', '"Driver": "nothing"}', '"Binds": ["x"]',
    '"awslogs"', '"splunk"', '"syslog-address"', '"gelf-address": "http', '"fluentd-address"',
    '"Type": "nothing"', '"a:b:c:d"', "platform=x", "build/prune",
)  # fmt: skip
# Answers whose fields depend on the host, the storage, or what is installed.
OTHER_FIELDS = re.compile(
    r"\.(FirewallBackend|Containerd\b|Runtimes\.|RegistryConfig\.Mirrors|RepoDigests|MergedDir|WorkDir"
    r"|memory_stats|Warnings|VolumesDeleted|GraphDriver|KernelMemoryTCP|DefaultAddressPools)"
)
Answer = tuple[int, Any]


class Engine:
    """One of the two, with the same containers, networks and volumes made in it."""

    def __init__(self, docker: Client, host: str) -> None:
        self.docker = docker
        self._path = host.removeprefix("unix://")
        self.names: dict[str, str] = {}

    def make(self) -> None:
        docker = self.docker
        docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))
        docker("network", "create", "net1")
        docker("network", "create", "net2")
        docker("volume", "create", "vol1", "--label", "a=b")
        docker("volume", "create", "vol2")
        labels = ("--label", "a=b", "-v", "vol1:/v", "--stop-signal", "SIGKILL")
        docker("create", "--name", "made", *labels, "--expose", "80", NAME, "sleep", "900")
        docker(
            "run", "--name", "over", NAME, "sh", "-c", "echo out; echo err >&2; exit 3", check=False
        )
        docker("run", "-d", "--name", "runs", "--stop-signal", "SIGKILL", NAME, "sleep", "900")
        docker("run", "-d", "--name", "held", NAME, "sleep", "900")
        docker("pause", "held")
        _, made = self.ask("POST", "/containers/runs/exec", {"Cmd": ["true"], "Tty": True})
        self.names = {"{image}": NAME, "{exec}": made["Id"]}

    def clear(self) -> None:
        docker = self.docker
        docker("rm", "-fv", "made", "runs", "over", "held", "new", check=False)
        docker("network", "rm", "net1", "net2", check=False)
        docker("volume", "rm", "vol1", "vol2", check=False)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request; the answer's JSON, its lines, or its text."""
        connection = http.client.HTTPConnection("engine", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(self._path)
        text = self._filled(json.dumps(body)) if body is not None else None
        headers = {"Content-Type": "application/json"} if text else {}
        connection.request(method, API + self._filled(path), text, headers)
        response = connection.getresponse()
        content = b"" if response.status == 101 else response.read()
        connection.close()
        try:
            return response.status, json.loads(content) if content else None
        except ValueError:
            return response.status, content.decode(errors="replace")

    def _filled(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(name, value)
        return text


@pytest.fixture(scope="module")
def engines(engine: EngineProcess) -> Iterator[tuple[Engine, Engine]]:
    root = os.environ.get("PIER_PEERS_ROOT")
    if not root or not os.path.exists(f"{root}/usr/sbin/dockerd"):
        pytest.skip("PIER_PEERS_ROOT names no root with dockerd in it")
    from dockerd import Dockerd

    with Dockerd(root, "--iptables=false", "--ip6tables=false") as peer:
        theirs = Engine(Client("docker", {**engine.env, "DOCKER_HOST": peer.host}), peer.host)
        ours = Engine(engine.docker, engine.host)
        for each in (ours, theirs):
            each.make()
        yield ours, theirs
        for each in (ours, theirs):
            each.clear()


def test_both_answer_alike(engines: tuple[Engine, Engine]) -> None:
    """All in one: each request may depend on what those before it did."""
    found = []
    for request in requests():
        ours, theirs = (_asked(engine, request) for engine in engines)
        if problem := _difference(request, ours, theirs):
            found.append(problem)
    assert not found, f"{len(found)} differ\n" + "\n".join(found)


def _asked(engine: Engine, request: Request) -> Answer:
    """Send a request, and take away what it made, for the next one to find all as it was."""
    method, path, body = request
    status, answer = engine.ask(method, path, body)
    if status == 201 and "/create" in path and isinstance(answer, dict) and "Id" in answer:
        noun = path.split("/")[1]
        engine.ask(
            "DELETE", f"/{noun}/{answer['Id']}" + ("?force=1&v=1" if noun == "containers" else "")
        )
    return status, answer


def _difference(request: Request, ours: Answer, theirs: Answer) -> str:
    method, path, body = request
    text = f"{method} {path} {json.dumps(body) if body is not None else ''}"
    if f"{method} {path}" in DIFFERENT or any(part in text for part in OTHER_WORDS):
        return ""
    told = f"{text}\n  ours   {_short(ours)}\n  theirs {_short(theirs)}"
    if ours[0] == 400 and theirs[0] == 201:
        return ""  # pierd says at the creation what dockerd says at the start
    if _message(ours) != _message(theirs):
        return told
    if ours[0] != theirs[0]:
        # What the client did wrong has a status of its own here, where dockerd says 500.
        return "" if 400 <= ours[0] < 500 == theirs[0] else told
    if _message(ours) is None and (other := _shape(ours[1]) ^ _shape(theirs[1])):
        mine = {field for field in other if not OTHER_FIELDS.search(field)}
        return f"{text}\n  fields {sorted(mine)[:20]}" if mine else ""
    return ""


def _message(answer: Answer) -> str | None:
    status, value = answer
    if status < 400:
        return None
    return ID.sub("<id>", value["message"] if isinstance(value, dict) else value or "").strip()


def _short(answer: Answer) -> str:
    return f"{answer[0]} {_message(answer) or str(answer[1])[:200]}"


def _shape(value: Any, at: str = "") -> set[str]:
    """The fields of an answer with the types of their values."""
    if isinstance(value, dict):
        found = set()
        for key, item in value.items():
            name = f"{at}.{ID.sub('<id>', key)}"
            found |= {name} | _shape(item, name)
        return found
    if isinstance(value, list):
        return set().union(*(_shape(item, f"{at}[]") for item in value))
    return {f"{at}:{type(value).__name__}"}
