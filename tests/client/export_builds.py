"""Builds with outputs over the API: what `pier build -o` and whoever speaks HTTP does."""

import contextlib
import http.client
import io
import json
import socket
import subprocess
import tarfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from engine_process import EngineProcess


class Failed(Exception):
    """The build's error."""


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


class Built:
    """What a build told: its answers' keys, one a output, and the files it sent."""

    def __init__(self) -> None:
        self.answers: list[dict[str, str]] = []
        self.files: dict[int, bytes] = {}
        self.text = ""


def build(
    engine: EngineProcess,
    files: Mapping[str, str | bytes],
    outputs: Sequence[Mapping[str, str]] = (),
    **query: str,
) -> Built:
    """Build `files`; each output is a type and attributes. Raises Failed."""
    path = engine.env["DOCKER_HOST"].removeprefix("unix://")
    with contextlib.closing(Connection(path)) as connection:
        response = begin(connection, files, outputs, **query)
        return _follow(response, path)


def begin(
    connection: "Connection",
    files: Mapping[str, str | bytes],
    outputs: Sequence[Mapping[str, str]] = (),
    **query: str,
) -> http.client.HTTPResponse:
    """Begin a build; the answer is its stream. Raises Failed."""
    orders = [
        {"Type": one["type"], "Attrs": {k: v for k, v in one.items() if k != "type"}}
        for one in outputs
    ]
    words = {"networkmode": "none", **query}
    if orders:
        words["outputs"] = json.dumps(orders)
    connection.request(
        *("POST", f"/build?{urlencode(words)}", _context(files)),
        headers={"Content-Type": "application/x-tar"},
    )
    response = connection.getresponse()
    if response.status != 200:
        raise Failed(json.loads(response.read())["message"])
    return response


def _follow(response: http.client.HTTPResponse, path: str) -> Built:
    built = Built()
    fetching: list[threading.Thread] = []
    for line in response:
        record = json.loads(line)
        if "error" in record:
            raise Failed(record["error"])
        built.text += record.get("stream", "")
        aux = record.get("aux", {})
        if "Exported" in aux:
            built.answers.append(aux["Exported"])
        if "Export" in aux:
            thread = threading.Thread(target=_fetch, args=(path, aux["Export"], built))
            thread.start()
            fetching.append(thread)
    for thread in fetching:
        thread.join()
    return built


def _fetch(path: str, told: Mapping[str, Any], built: Built) -> None:
    with contextlib.closing(Connection(path)) as connection:
        connection.request("GET", f"/pier/build/export?id={told['ID']}")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        built.files[told["Number"]] = response.read()


def _context(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Layout:
    """An OCI image layout out of an archive."""

    def __init__(self, data: bytes) -> None:
        self.members: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                self.members[member.name] = file.read() if file else b""
        self.index: dict[str, Any] = json.loads(self.members["index.json"])
        self.top: dict[str, Any] = self.index["manifests"][0]

    def blob(self, descriptor: Mapping[str, Any]) -> bytes:
        data = self.members["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(data) == descriptor["size"]
        return data

    def json(self, descriptor: Mapping[str, Any]) -> Any:
        return json.loads(self.blob(descriptor))


def inspected(engine: EngineProcess, name: str) -> Any:
    """What a registry has under a name, as skopeo gets it."""
    done = subprocess.run(
        [
            *engine.in_network,
            "skopeo",
            "inspect",
            "--raw",
            "--tls-verify=false",
            f"docker://{name}",
        ],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)
