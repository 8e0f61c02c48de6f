"""docker-py, the library that Testcontainers and much else in Python stands on."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import docker as docker_py
import pytest
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import EngineProcess, wait_until

# docker-py leaves sockets of hijacked connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[docker_py.DockerClient]:
    connected = docker_py.DockerClient(base_url=engine.host, timeout=60)
    yield connected
    connected.close()


def test_ping_version_and_info(client: docker_py.DockerClient) -> None:
    assert client.ping()
    assert client.version()["Os"] == "linux"
    assert client.info()["OSType"] == "linux"


def test_run(client: docker_py.DockerClient, image: str) -> None:
    assert client.containers.run(image, ["echo", "hello"], remove=True) == b"hello\n"


def test_run_that_fails(client: docker_py.DockerClient, image: str) -> None:
    with pytest.raises(ContainerError) as caught:
        client.containers.run(image, "sh -c 'echo why >&2; exit 3'", remove=True)
    assert caught.value.exit_status == 3
    assert "why" in str(caught.value)


def test_options_arrive(client: docker_py.DockerClient, image: str) -> None:
    output = client.containers.run(
        image,
        ["sh", "-c", "echo $A; pwd; id -u; hostname; ulimit -n; grep -c ' /t ' /proc/mounts"],
        environment={"A": "1"},
        working_dir="/usr",
        user="alice",
        hostname="harbour",
        network_mode="none",
        ulimits=[Ulimit(name="nofile", soft=99, hard=99)],
        mounts=[Mount("/t", None, type="tmpfs")],
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
        mem_limit="64m",
        cap_drop=["ALL"],
        read_only=True,
        remove=True,
    )
    assert output.split() == [b"1", b"/usr", b"1000", b"harbour", b"99", b"1"]


def test_life_of_a_container(client: docker_py.DockerClient, image: str) -> None:
    container = client.containers.run(image, "sleep 60", detach=True, name="it")
    container.reload()
    assert container.status == "running"
    assert container.attrs["State"]["Running"]
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("other")
    container.restart(timeout=0)
    assert [c.name for c in client.containers.list()] == ["other"]
    assert "sleep 60" in json.dumps(container.top())
    container.kill("TERM")
    container.stop(timeout=1)
    assert container.wait()["StatusCode"] in (137, 143)
    container.remove()
    with pytest.raises(NotFound):
        client.containers.get("other")


def test_wait_gives_the_exit_code(client: docker_py.DockerClient, image: str) -> None:
    container = client.containers.run(image, "sh -c 'sleep 0.2; exit 9'", detach=True)
    assert container.wait() == {"StatusCode": 9}


def test_wait_for_one_that_removed_itself(client: docker_py.DockerClient, image: str) -> None:
    script = "sh -c 'exit 9'"
    container = client.containers.create(image, script, auto_remove=True)
    gone = threading.Thread(target=container.wait, kwargs={"condition": "removed"})
    gone.start()
    container.start()
    gone.join()
    # dockerd takes longer to remove it than a client to ask; here it is told all the same.
    assert container.wait() == {"StatusCode": 9}


def test_logs(client: docker_py.DockerClient, image: str) -> None:
    script = "echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three"
    container = client.containers.run(image, ["sh", "-c", script], detach=True)
    lines = b"".join(container.logs(stream=True, follow=True))
    assert lines == b"one\ntwo\nthree\n"
    assert container.logs(stdout=False, stderr=True) == b"two\n"
    assert container.logs(tail=1) == b"three\n"
    assert container.logs(timestamps=True).split()[1] == b"one"


def test_attach_with_a_socket(client: docker_py.DockerClient, image: str) -> None:
    container = client.containers.create(image, "cat", stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw: Any = getattr(stream, "_sock", stream)
    raw.sendall(b"through\n")
    header = _exactly(raw, 8)
    assert header == b"\x01\0\0\0\0\0\0\x08"
    assert _exactly(raw, 8) == b"through\n"
    raw.close()
    stream.close()
    # docker-py asks for StdinOnce: with its client gone, cat is at the end of its input.
    assert container.wait(timeout=30)["StatusCode"] == 0


def _exactly(raw: Any, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = raw.recv(size - len(got))
        assert more, f"the stream ended after {got!r}"
        got += more
    return got


def test_exec(client: docker_py.DockerClient, image: str) -> None:
    container = client.containers.run(image, "sleep 60", detach=True)
    result = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    output: Any = result.output
    assert (result.exit_code, output) == (4, (b"out\n", b"err\n"))
    result = container.exec_run("id -u", user="alice", workdir="/usr", environment=["A=b"])
    assert (result.exit_code, result.output) == (0, b"1000\n")
    streamed: Any = container.exec_run("seq 1 1000", stream=True).output
    assert b"".join(streamed).split()[-1] == b"1000"


def test_exec_inspect_and_resize(client: docker_py.DockerClient, image: str) -> None:
    container = client.containers.run(image, "sleep 60", detach=True)
    created = client.api.exec_create(container.id, "cat", stdin=True, tty=True)
    assert client.api.exec_inspect(created["Id"])["Running"] is False
    stream: Any = client.api.exec_start(created["Id"], tty=True, socket=True)
    wait_until(lambda: client.api.exec_inspect(created["Id"])["Running"], "it runs")
    client.api.exec_resize(created["Id"], height=10, width=20)
    stream._sock.close()
    stream.close()


def test_errors(client: docker_py.DockerClient, image: str) -> None:
    with pytest.raises(ImageNotFound):
        client.images.get("nothere9")
    with pytest.raises(NotFound):
        client.containers.get("nobody9")
    with pytest.raises(APIError) as caught:
        client.containers.run(image, "nothere9")
    assert caught.value.status_code == 400
    client.containers.create(image, name="taken")
    with pytest.raises(APIError) as caught:
        client.containers.create(image, name="taken")
    assert caught.value.status_code == 409


def test_images(client: docker_py.DockerClient, image: str) -> None:
    loaded = client.images.load(docker_archive("made/py:v1", [root_tar(), layer_tar({"x": b""})]))
    assert [i.tags for i in loaded] == [["made/py:v1"]]
    assert loaded[0].tag("made/py", tag="v2")
    assert sorted(client.images.get("made/py:v1").tags) == ["made/py:v1", "made/py:v2"]
    assert "made/py:v1" in {tag for i in client.images.list(name="made/py") for tag in i.tags}
    client.images.remove("made/py:v1")
    client.images.remove("made/py:v2")
    with pytest.raises(ImageNotFound):
        client.images.get("made/py:v1")


def test_import(client: docker_py.DockerClient) -> None:
    answer = client.api.import_image_from_data(root_tar(), repository="made/imported", tag="py")
    assert "sha256:" in answer
    client.images.remove("made/imported:py")


def test_events(client: docker_py.DockerClient, image: str) -> None:
    seen: list[str] = []
    stream = client.events(decode=True, filters={"type": "container"})

    def collect() -> None:
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                break

    collector = threading.Thread(target=collect)
    collector.start()
    client.containers.run(image, "true", remove=True)
    collector.join(30)
    stream.close()
    assert not collector.is_alive()
    assert [a for a in seen if a in ("create", "start", "die", "destroy")] == [
        *("create", "start", "die", "destroy")
    ]


def test_list_filters(client: docker_py.DockerClient, image: str) -> None:
    client.containers.create(image, name="aa", labels={"k": "1"})
    client.containers.create(image, name="bb", labels=["k"])
    names = {c.name for c in client.containers.list(all=True, filters={"label": "k"})}
    assert names == {"aa", "bb"}
    assert [c.name for c in client.containers.list(all=True, filters={"label": "k=1"})] == ["aa"]


def test_a_tar_of_docker_py_loads(client: docker_py.DockerClient) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("file")
        tar.addfile(member)
    identity = client.api.import_image_from_data(buffer.getvalue(), repository="made/gz")
    assert "sha256:" in identity
    client.images.remove("made/gz:latest")


def test_build(client: docker_py.DockerClient, image: str) -> None:
    text = f"FROM {image}\nRUN echo made > /made\nLABEL a=b\n"
    made, records = client.images.build(
        fileobj=io.BytesIO(text.encode()), tag="made/py", network_mode="none", rm=True
    )
    assert made.labels == {"a": "b"}
    assert {"stream": "Successfully tagged made/py:latest\n"} in list(records)
    failing = io.BytesIO(f"FROM {image}\nRUN exit 4\n".encode())
    with pytest.raises(BuildError, match="returned a non-zero code: 4"):
        client.images.build(fileobj=failing, network_mode="none", forcerm=True)
    client.images.remove("made/py")
