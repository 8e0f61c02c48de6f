"""POST /build?version=2: BuildKit by way of the classic API, as dockerode and old docker commands use it."""

import asyncio
import base64
import http.client
import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from engine_process import Client, EngineProcess
from llb_client import LlbClient
from pier.buildkit.messages.control import StatusResponse


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = host.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """`image` is the ID that was told; `steps` are vertexes that ended, by name; `error` the last line's."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        self.image = self.error = self.text = ""
        self.output = b""
        self.steps: dict[str, str] = {}
        if status != 200:
            self.error = json.loads(body)["message"]
            return
        for line in body.splitlines():
            self._take(json.loads(line))

    def _take(self, record: dict[str, Any]) -> None:
        match record:
            case {"id": "moby.buildkit.trace", "aux": aux}:
                told = StatusResponse.decode(base64.b64decode(aux))
                self.output += b"".join(log.msg for log in told.logs)
                for vertex in told.vertexes:
                    if vertex.completed:
                        ended = "CACHED" if vertex.cached else "DONE"
                        self.steps[vertex.name] = "ERROR" if vertex.error else ended
            case {"id": "moby.image.id", "aux": {"ID": identifier}}:
                self.image = identifier
            case {"stream": text}:
                self.text += text
            case {"errorDetail": {"message": message}, "error": error}:
                assert message == error
                self.error = message
            case _:
                raise AssertionError(record)


class Classic:
    def __init__(self, host: str, image: str) -> None:
        self.host = host
        self.image = image

    def post(self, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = _Connection(self.host)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def build(self, body: bytes = b"", /, **query: str) -> Answer:
        words = urlencode({"version": "2", "t": "made/it", **query})
        return Answer(*self.post(f"/v1.43/build?{words}", body))

    def context(self, text: str, files: Mapping[str, str] = {}) -> bytes:
        """A context's archive; the base is called BASE."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in {"Dockerfile": self.text(text), **files}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content.encode())
                tar.addfile(entry, io.BytesIO(content.encode()))
        return buffer.getvalue()

    def text(self, text: str) -> str:
        return text.replace("BASE", self.image)


@pytest.fixture
def classic(engine: EngineProcess, image: str) -> Iterator[Classic]:
    before = engine.calls.image_ids()
    yield Classic(engine.env["DOCKER_HOST"], image)
    engine.calls.remove_images_but(before)


def test_an_archive_without_a_session(classic: Classic, docker: Client) -> None:
    text = 'FROM BASE\nARG WHO\nCOPY a.txt /a\nRUN echo "said $WHO" | tee -a /a\n'
    context = classic.context(text, {"a.txt": "one\n"})
    done = classic.build(
        context,
        buildargs=json.dumps({"WHO": "you", "NONE": None}),
        labels=json.dumps({"a": "b"}),
    )
    assert done.error == ""
    assert done.output == b"said you\n"
    assert done.steps["[internal] load remote build context"] == "DONE"
    assert done.steps["copy /context /"] == "DONE"
    assert done.steps["[2/3] COPY a.txt /a"] == "DONE"
    image = json.loads(docker("inspect", "made/it").stdout)[0]
    assert done.image == image["Id"]
    assert image["Config"]["Labels"] == {"a": "b"}
    assert docker("run", "--rm", "made/it", "cat", "/a").stdout == "one\nsaid you\n"
    again = classic.build(
        context,
        buildargs=json.dumps({"WHO": "you"}),
        labels=json.dumps({"a": "b"}),
        t="made/other",
    )
    assert again.steps["[2/3] COPY a.txt /a"] == "CACHED"
    assert again.image == done.image
    fresh = classic.build(context, nocache="1", buildargs=json.dumps({"WHO": "you"}))
    assert fresh.steps["[2/3] COPY a.txt /a"] == "DONE"


def test_a_dockerfile_alone(classic: Classic, docker: Client) -> None:
    """Whatever the content type says: the body tells."""
    text = classic.text("FROM BASE AS one\nRUN echo 1 >/x\nFROM one\nRUN echo 2 >/x\n")
    assert classic.build(text.encode(), target="one").error == ""
    assert docker("run", "--rm", "made/it", "cat", "/x").stdout == "1\n"


def test_quiet(classic: Classic) -> None:
    done = classic.build(classic.context("FROM BASE\nRUN echo hi\n"), q="1")
    assert (done.steps, done.image) == ({}, "")
    assert done.text.startswith("sha256:")
    assert done.text.endswith("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM BASE\nCOPPY a b\n", "dockerfile parse error on line 2: unknown instruction: COPPY"),
        (
            "FROM BASE\nRUN exit 3\n",
            'process "/bin/sh -c exit 3" did not complete successfully: exit code: 3',
        ),
        ("FROM BASE\nCOPY a b\n", '"/a": not found'),
        ("FROM BASE\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM BASE\nRUN --mount=type=secret,id=s,required=true true\n", "s"),
    ],
)
def test_errors(classic: Classic, text: str, message: str) -> None:
    done = classic.build(classic.context(text))
    assert done.status == 200
    assert message in done.error
    assert done.image == ""


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"version": "3"}, 400, 'invalid version "3"'),
        (
            {"outputs": json.dumps([{"Type": "local"}, {"Type": "tar"}])},
            500,
            "multiple outputs not supported",
        ),
        ({"networkmode": "bridge"}, 500, 'network mode "bridge" not supported by buildkit'),
    ],
)
def test_what_is_refused(
    classic: Classic, query: dict[str, str], status: int, message: str
) -> None:
    done = classic.build(classic.context("FROM BASE\n"), **query)
    assert (done.status, done.error) == (status, message)


def test_the_directory_of_a_session(
    engine: EngineProcess, classic: Classic, tmp_path: Path
) -> None:
    """What docker 18.09 to 20.10 does with DOCKER_BUILDKIT=1."""
    (tmp_path / "Dockerfile").write_text(
        classic.text(
            "FROM BASE\nCOPY a.txt /a\nRUN --mount=type=secret,id=s wc -c </run/secrets/s\n"
        )
    )
    (tmp_path / "a.txt").write_text("one\n")
    socket_path = engine.env["DOCKER_HOST"].removeprefix("unix://")

    async def build() -> tuple[Answer, Answer]:
        directories = {"context": tmp_path, "dockerfile": tmp_path}
        async with LlbClient(socket_path, directories, {"s": b"12345"}) as client:
            query = {"session": client.session, "remote": "client-session", "buildid": "b1"}
            first = await asyncio.to_thread(classic.build, **query)
            query["outputs"] = json.dumps([{"Type": "cacheonly", "Attrs": {}}])
            return first, await asyncio.to_thread(classic.build, **query)

    first, second = asyncio.run(build())
    assert first.error == ""
    assert first.output == b"5\n"
    assert first.image.startswith("sha256:")
    assert second.error == ""
    assert second.image == ""
    assert second.steps["[stage-0 2/3] COPY a.txt /a"] == "CACHED"


def test_a_session_that_is_not_there(classic: Classic) -> None:
    done = classic.build(session="nobody", remote="client-session")
    assert "no active session for nobody: context deadline exceeded" in done.error


def test_a_directory_without_a_session(classic: Classic) -> None:
    done = classic.build(remote="client-session")
    assert done.error == (
        "failed to read dockerfile: failed to load cache key: "
        "could not access local files without session"
    )


@pytest.mark.parametrize("first", ["build", "upload"])
def test_a_context_of_another_request(classic: Classic, first: str) -> None:
    answers: dict[str, Answer] = {}

    def build() -> None:
        answers["build"] = classic.build(remote="upload-request", buildid="b2")

    def upload() -> None:
        body = classic.context("FROM BASE\nRUN echo brought\n")
        answers["upload"] = classic.build(body, buildid="upload-request:b2")

    works = {"build": build, "upload": upload}
    threads = [threading.Thread(target=works[name]) for name in sorted(works, key=first.__ne__)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)  # either order has to do
    for thread in threads:
        thread.join()
    assert answers["build"].error == ""
    assert answers["build"].output == b"brought\n"
    assert (answers["upload"].status, answers["upload"].body) == (200, b"")


def test_cancel(classic: Classic, docker: Client) -> None:
    connection = _Connection(classic.host)
    words = urlencode({"version": "2", "buildid": "b3"})
    body = classic.context("FROM BASE\nRUN echo begun; sleep 1000\n")
    connection.request("POST", f"/v1.43/build?{words}", body)
    response = connection.getresponse()
    lines = b""
    while b"begun" not in Answer(200, lines).output:
        lines += response.readline()
    assert classic.post("/v1.43/build/cancel")[0] == 400
    assert classic.post("/v1.43/build/cancel?id=nobody")[0] == 200
    assert classic.post("/v1.43/build/cancel?id=b3")[0] == 200
    done = Answer(200, lines + response.read())
    connection.close()
    assert "context canceled" in done.error
    assert docker("ps", "-aq").stdout == ""


def test_the_history_has_it(classic: Classic, tmp_path: Path) -> None:
    """And what a client may ask for that BuildKit has no attribute for is not lost."""
    text = "FROM BASE\nRUN ulimit -n; df -k /dev/shm | tail -n 1; grep three /etc/hosts\n"
    done = classic.build(
        classic.context(text),
        shmsize=str(2 << 20),
        ulimits=json.dumps([{"Name": "nofile", "Soft": 123, "Hard": 456}]),
        extrahosts="three:10.0.0.3",
    )
    assert done.error == ""
    numbers, shm, hosts = done.output.decode().splitlines()
    assert numbers == "123"
    assert shm.split()[1] == "2048"
    assert hosts.split() == ["10.0.0.3", "three"]
