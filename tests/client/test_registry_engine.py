"""pierd --registry-listen: the engine's images, pulled by others straight out of its store."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import EngineProcess
from registry_process import Served, digest_of


@pytest.fixture(scope="module")
def serving() -> Iterator[EngineProcess]:
    if not shutil.which("docker"):
        pytest.skip("no docker command on PATH")
    engine = EngineProcess()
    try:
        listen = (f"unix://{engine.directory}/registry.sock", "127.0.0.1:5000")
        engine.start(*(word for address in listen for word in ("--registry-listen", address)))
        engine.docker.raw("load", stdin=docker_archive("team/app:v1", [root_tar()]))
        engine.docker("tag", "team/app:v1", "plain:v2")
        engine.docker("tag", "team/app:v1", "ghcr.io/far/app:v3")
        engine.docker("tag", "team/app:v1", "localhost:5000/app:v4")
        yield engine
    finally:
        engine.close()


@pytest.fixture
def registry(serving: EngineProcess) -> Served:
    return Served(f"unix://{serving.directory}/registry.sock")


def test_images_are_repositories(registry: Served, serving: EngineProcess) -> None:
    names = ["ghcr.io/far/app", "plain", "team/app"]
    assert registry.get("/v2/_catalog").json == {"repositories": names}
    assert registry.get("/v2/_catalog", {"n": 1, "last": "plain"}).json["repositories"] == [
        "team/app"
    ]
    assert registry.get("/v2/team/app/tags/list").json == {"name": "team/app", "tags": ["v1"]}
    assert registry.get("/v2/none/tags/list").codes == ["NAME_UNKNOWN"]


def test_manifest_and_blobs(registry: Served, serving: EngineProcess) -> None:
    answer = registry.get("/v2/team/app/manifests/v1")
    digest = answer.headers["Docker-Content-Digest"]
    assert digest == digest_of(answer.body)
    assert registry.get(f"/v2/plain/manifests/{digest}").body == answer.body
    (image,) = json.loads(serving.docker("inspect", "team/app:v1").stdout)
    assert answer.json["config"]["digest"] == image["Id"]
    for part in (answer.json["config"], *answer.json["layers"]):
        blob = registry.get(f"/v2/team/app/blobs/{part['digest']}")
        assert digest_of(blob.body) == part["digest"]
        assert len(blob.body) == part["size"]
    assert registry.get(f"/v2/none/blobs/{image['Id']}").status == 404


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 0),
        ("0-", 0, -1),
        ("700-", 700, -1),
        ("-700", -700, -1),
        ("1000-300000", 1000, 300_000),
        ("5000-999999999", 5000, -1),
        ("500-0", None, None),
        ("999999999-", None, None),
    ],
)
def test_range_of_a_layer_without_a_file(
    registry: Served, asked: str, first: int | None, last: int | None
) -> None:
    """A loaded layer is assembled of its files."""
    (layer,) = registry.get("/v2/team/app/manifests/v1").json["layers"]
    path, size = f"/v2/team/app/blobs/{layer['digest']}", layer["size"]
    whole = registry.get(path)
    assert (whole.status, whole.headers["Accept-Ranges"]) == (200, "bytes")
    assert whole.headers["Content-Length"] == str(size)
    answer = registry.get(path, Range=f"bytes={asked}")
    if first is None or last is None:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")
        return
    first, last = first % size, last % size
    assert answer.body == whole.body[first : last + 1]
    assert answer.headers["Content-Length"] == str(last - first + 1)
    assert answer.status == (200 if last - first + 1 == size else 206)
    if answer.status == 206:
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"


def test_conditions_of_a_layer_without_a_file(registry: Served) -> None:
    (layer,) = registry.get("/v2/team/app/manifests/v1").json["layers"]
    path = f"/v2/team/app/blobs/{layer['digest']}"
    head = registry.request("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(layer["size"]))
    tag = head.headers["ETag"]
    assert registry.get(path, **{"If-None-Match": tag}).status == 304
    asked = {"Range": "bytes=5-9"}
    assert registry.get(path, **asked, **{"If-Range": tag}).status == 206
    assert registry.get(path, **asked, **{"If-Range": '"other"'}).status == 200


def test_a_damaged_layer_breaks_off(registry: Served, serving: EngineProcess) -> None:
    tar = layer_tar({"whole": b"1" * 100, "hurt": b"2" * 100})
    serving.docker.raw("load", stdin=docker_archive("hurt/app:v1", [tar]))
    Path(serving.data_root, "layers", digest_of(tar)[7:], "diff", "hurt").write_bytes(b"3" * 100)
    try:
        with pytest.raises(http.client.IncompleteRead):
            registry.get(f"/v2/hurt/app/blobs/{digest_of(tar)}")
        assert "hurt of its layer was changed" in serving.log_tail()
    finally:
        serving.docker("rmi", "hurt/app:v1")


def test_nothing_can_be_pushed(registry: Served) -> None:
    for method, path in (
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/manifests/v2"),
        ("DELETE", "/v2/team/app/manifests/v1"),
    ):
        answer = registry.request(method, path)
        assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"])


def test_what_is_removed_is_gone(registry: Served, serving: EngineProcess) -> None:
    serving.docker("tag", "team/app:v1", "passing/by:v1")
    assert registry.get("/v2/passing/by/manifests/v1").status == 200
    serving.docker("rmi", "passing/by:v1")
    assert registry.get("/v2/passing/by/manifests/v1").status == 404


def test_skopeo_copies_there_and_back(
    registry: Served, serving: EngineProcess, tmp_path: Path
) -> None:
    """Out of the engine, as its own manifest, and again after it was loaded with that."""
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    archive = tmp_path / "out.tar"
    source = "docker://127.0.0.1:5000/team/app:v1"
    subprocess.run(
        [
            *(*serving.in_network, "skopeo", "--insecure-policy", "copy", "-q"),
            *("--src-tls-verify=false", source, f"oci-archive:{archive}:back/again:v1"),
        ],
        check=True,
        timeout=60,
    )
    served = registry.get("/v2/team/app/manifests/v1")
    serving.docker.raw("load", stdin=archive.read_bytes())
    again = registry.get("/v2/team/app/manifests/v1")
    assert again.status == 200
    layers = [layer["digest"] for layer in again.json["layers"]]
    for digest in (*layers, again.json["config"]["digest"]):
        assert digest_of(registry.get(f"/v2/team/app/blobs/{digest}").body) == digest
    assert again.json["config"] == served.json["config"]
