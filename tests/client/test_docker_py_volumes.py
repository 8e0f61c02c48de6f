"""Volumes by docker-py: life, mounts, disk usage, events, and what is refused."""

import time
import uuid
from collections.abc import Iterator

import docker as docker_py
import pytest
from docker.errors import APIError, NotFound
from docker.types import Mount

from engine_process import EngineProcess

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[docker_py.DockerClient]:
    # Since API 1.53 `df` lists volumes on demand only, and docker-py has no word for that.
    connected = docker_py.DockerClient(base_url=engine.host, timeout=60, version="1.51")
    yield connected
    connected.close()


def test_life(client: docker_py.DockerClient, image: str) -> None:
    since = int(time.time())
    name = f"py-{uuid.uuid4().hex[:6]}"
    volume = client.volumes.create(name, labels={"a": "b"})
    assert (volume.name, volume.attrs["Driver"], volume.attrs["Scope"]) == (name, "local", "local")
    assert [found.name for found in client.volumes.list(filters={"label": "a=b"})] == [name]
    write = ["sh", "-c", "echo 12345 > /v/file"]
    client.containers.run(image, write, remove=True, mounts=[Mount("/v", name)])
    read = client.containers.run(image, ["cat", "/w/file"], remove=True, volumes=[f"{name}:/w:ro"])
    assert read == b"12345\n"
    user = client.containers.create(image, volumes={name: {"bind": "/x", "mode": "rw"}})
    with pytest.raises(APIError, match="volume is in use") as refused:
        volume.remove()
    assert refused.value.status_code == 409
    user.remove()
    volume.remove()
    with pytest.raises(NotFound, match="no such volume"):
        client.volumes.get(name)
    seen = client.events(
        since=since, until=int(time.time()) + 1, filters={"volume": name}, decode=True
    )
    assert [event["Action"] for event in seen] == [
        *("create", "mount", "unmount", "mount", "unmount", "destroy"),
    ]


def test_disk_usage_and_prune(client: docker_py.DockerClient, image: str) -> None:
    names = [f"py-{uuid.uuid4().hex[:6]}" for _ in range(2)]
    for name in names:
        client.volumes.create(name, labels={"mine": name})
    fill = ["sh", "-c", "dd if=/dev/zero of=/v/file bs=1000 count=100"]
    client.containers.run(image, fill, remove=True, volumes=[f"{names[0]}:/v"])
    user = client.containers.create(image, volumes=[f"{names[1]}:/v"])
    found = {volume["Name"]: volume["UsageData"] for volume in client.df()["Volumes"]}
    assert found[names[0]]["Size"] >= 100_000
    assert found[names[0]]["RefCount"] == 0
    assert found[names[1]] == {"Size": 0, "RefCount": 1}
    pruned = client.volumes.prune(filters={"all": True, "label": [f"mine={names[0]}"]})
    assert pruned["VolumesDeleted"] == [names[0]]
    assert pruned["SpaceReclaimed"] >= 100_000
    pruned = client.volumes.prune(filters={"all": True, "label": [f"mine={names[1]}"]})
    assert pruned == {"VolumesDeleted": None, "SpaceReclaimed": 0}
    user.remove()
    client.volumes.get(names[1]).remove()


def test_cluster_volumes_are_refused(client: docker_py.DockerClient) -> None:
    url = f"{client.api.base_url}/v1.51/volumes/some"
    answer = client.api.put(url, json={}, params={"version": 1})
    assert answer.status_code == 503
    said = "volume update only valid for cluster volumes, but swarm is unavailable"
    assert answer.json() == {"message": said}
    url = f"{client.api.base_url}/v1.51/volumes/create"
    answer = client.api.post(url, json={"Name": "some", "ClusterVolumeSpec": {"Group": "x"}})
    assert answer.status_code == 503
