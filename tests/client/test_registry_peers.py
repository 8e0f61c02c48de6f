"""pierd and other people's clients meet in a registry, both ways: the same image ID for all.

Once it is Debian's docker-registry and once the embedded one, both in the engine's network.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from peers import podman, run
from registry_servers import docker_registry

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import Client, EngineProcess
from registry_process import RegistryProcess

OURS, THEIRS = 5101, 5102
APP = "pier-test/met:1"
Run = Callable[..., str]


@pytest.fixture(scope="module", params=["embedded", "docker-registry"])
def registry(request: pytest.FixtureRequest, engine: EngineProcess) -> Iterator[str]:
    if request.param == "embedded":
        with RegistryProcess(prefix=engine.in_network, port=OURS):
            yield f"localhost:{OURS}"
    else:
        with docker_registry(engine, THEIRS) as address:
            yield address


@pytest.fixture(scope="module")
def image_id(engine: EngineProcess) -> str:
    layers = [root_tar(), layer_tar({"met": b"met" * 100_000})]
    engine.docker.raw("load", stdin=docker_archive(APP, layers, {"Cmd": ["wc", "-c", "/met"]}))
    return id_of(engine.docker, APP)


@pytest.fixture
def client(engine: EngineProcess, tmp_path: Path) -> Run:
    """Run a client in the engine's network, with /mnt or the working directory for its files."""
    return partial(run, directory=tmp_path, prefix=engine.in_network)


def id_of(docker: Client, name: str) -> str:
    return docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()


def pushed(docker: Client, name: str) -> str:
    docker("tag", APP, name)
    docker("push", "-q", name)
    return name


def check_back(docker: Client, name: str, image_id: str) -> None:
    """Pull what somebody else pushed, into an engine without the image."""
    layers = json.loads(docker("image", "inspect", APP).stdout)[0]["RootFS"]["Layers"]
    archive = docker.raw("save", APP).stdout
    docker("rmi", "-f", image_id)
    docker("pull", "-q", name)
    assert id_of(docker, name) == image_id
    assert json.loads(docker("image", "inspect", name).stdout)[0]["RootFS"]["Layers"] == layers
    assert docker("run", "--rm", "--network", "none", name).stdout == "300000 /met\n"
    docker("rmi", "-f", image_id)
    docker.raw("load", "-q", stdin=archive)


def test_crane(docker: Client, registry: str, image_id: str, client: Run) -> None:
    name = pushed(docker, f"{registry}/crane/app:1")
    crane: Sequence[str] = ("crane", "--insecure")
    client(*crane, "validate", "--remote", name)
    manifest = json.loads(client(*crane, "manifest", name))
    assert manifest["config"]["digest"] == image_id
    client(*crane, "copy", name, f"{registry}/crane/back:1")
    check_back(docker, f"{registry}/crane/back:1", image_id)


def test_skopeo(docker: Client, registry: str, image_id: str, client: Run) -> None:
    name = pushed(docker, f"{registry}/skopeo/app:1")
    skopeo = ("skopeo", "--insecure-policy")
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    client(*skopeo, "copy", plain[0], f"docker://{name}", "dir:copied")
    back = f"{registry}/skopeo/back:1"
    client(*skopeo, "copy", plain[1], "dir:copied", f"docker://{back}")
    check_back(docker, back, image_id)
    # The layers made anew: OCI's media types, zstd.
    squeezed = f"{registry}/skopeo/zstd:1"
    client(*skopeo, "copy", plain[0], "--dest-decompress", f"docker://{name}", "dir:plain")
    zstd = ("--format", "oci", "--dest-compress-format", "zstd")
    client(*skopeo, "copy", plain[1], *zstd, "dir:plain", f"docker://{squeezed}")
    docker("rmi", "-f", image_id)
    docker("pull", "-q", squeezed)
    assert docker("run", "--rm", "--network", "none", squeezed).stdout == "300000 /met\n"
    docker("rmi", "-f", squeezed)
    docker("pull", "-q", name)
    docker("tag", name, APP)


def test_oras(
    docker: Client, registry: str, image_id: str, client: Run, engine: EngineProcess
) -> None:
    name = pushed(docker, f"{registry}/oras/app:1")
    assert (
        json.loads(client("oras", "manifest", "fetch", "--plain-http", name))["config"]["digest"]
        == image_id
    )
    copy = ("oras", "copy", "--from-plain-http", "--to-plain-http")
    client(*copy, name, f"{registry}/oras/back:1")
    check_back(docker, f"{registry}/oras/back:1", image_id)


def test_podman(docker: Client, registry: str, image_id: str, client: Run, tmp_path: Path) -> None:
    name = pushed(docker, f"{registry}/podman/app:1")
    theirs = podman(tmp_path)
    back = f"{registry}/podman/back:1"
    client(*theirs, "pull", "-q", "--tls-verify=false", name)
    shown = client(*theirs, "image", "inspect", "--format", "{{.Id}}", name).strip()
    assert f"sha256:{shown}" == image_id
    client(*theirs, "tag", name, back)
    client(*theirs, "push", "-q", "--tls-verify=false", back)
    check_back(docker, back, image_id)
