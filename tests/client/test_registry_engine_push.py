"""pierd --registry-push: what is pushed to the engine's own registry is one of its images."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import EngineProcess, wait_until
from registry_process import (
    OCI_MANIFEST,
    Served,
    descriptor,
    digest_of,
    index,
    manifest,
)

ROOT = root_tar()
LAYER = gzip.compress(ROOT, 1, mtime=0)
DIFF_ID = "sha256:" + hashlib.sha256(ROOT).hexdigest()


def flags_of(engine: EngineProcess) -> list[str]:
    listen = (f"unix://{engine.directory}/registry.sock", "127.0.0.1:5000")
    return ["--registry-push", *(f"--registry-listen={address}" for address in listen)]


@pytest.fixture(scope="module")
def serving() -> Iterator[EngineProcess]:
    if not shutil.which("docker"):
        pytest.skip("no docker command on PATH")
    engine = EngineProcess()
    try:
        engine.start(*flags_of(engine))
        yield engine
    finally:
        engine.close()


@pytest.fixture
def registry(serving: EngineProcess) -> Served:
    return Served(f"unix://{serving.directory}/registry.sock")


def config(architecture: str = "amd64", diff_id: str = DIFF_ID, **more: Any) -> bytes:
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["true"], **more},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return json.dumps(document).encode()


def push(registry: Served, name: str, tag: str, image: bytes, layer: bytes = LAYER) -> bytes:
    """Push an image; return its manifest. A tag of "" pushes it by its digest."""
    registry.push_blob(name, image)
    registry.push_blob(name, layer)
    data = manifest(image, [layer])
    done = registry.push_manifest(name, tag or digest_of(data), data)
    assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest_of(data)), done
    return data


def image_of(engine: EngineProcess, name: str) -> str:
    """The ID that a name of the engine's stands for, "" for none."""
    return engine.docker("images", "-q", "--no-trunc", name).stdout.strip()


def assert_forgotten(engine: EngineProcess) -> None:
    """The registry keeps nothing any more; it is told of what the engine removes."""
    top = f"{engine.data_root}/registry/blobs/sha256"
    wait_until(lambda: not os.listdir(top), "what was pushed is forgotten")


def test_docker_pushes_to_its_own_engine(serving: EngineProcess, registry: Served) -> None:
    docker = serving.docker
    docker.raw("load", stdin=docker_archive("own:v1", [ROOT]))
    docker("tag", "own:v1", "localhost:5000/team/own:v1")
    docker("push", "-q", "localhost:5000/team/own:v1")
    assert image_of(serving, "team/own:v1") == image_of(serving, "own:v1")
    docker("rmi", "-f", "own:v1", "localhost:5000/team/own:v1")
    assert docker("run", "--rm", "--network", "none", "team/own:v1", "echo", "hi").stdout == "hi\n"
    docker("pull", "-q", "localhost:5000/team/own:v1")
    top = f"{serving.data_root}/registry/blobs/sha256"
    # The layer is the engine's own file, not a copy.
    assert sorted(os.stat(f"{top}/{name}").st_nlink for name in os.listdir(top)) == [1, 1, 2]
    # Removed by either side, it is gone on both.
    docker("rmi", "localhost:5000/team/own:v1", "team/own:v1")
    assert_forgotten(serving)
    assert registry.get("/v2/team/own/tags/list").codes == ["NAME_UNKNOWN"]


def test_official_names_and_two_tags(serving: EngineProcess, registry: Served) -> None:
    data = push(registry, "library/thing", "v1", config(Labels={"n": "official"}))
    again = registry.push_manifest("library/thing", digest_of(data), data, tag=["v2", "v3"])
    assert again.headers["OCI-Tag"] == "v2, v3"
    assert image_of(serving, "thing:v1") == image_of(serving, "thing:v3") != ""
    for name in ("library/thing", "thing"):
        assert registry.get(f"/v2/{name}/tags/list").json["tags"] == ["v1", "v2", "v3"]
        assert registry.get(f"/v2/{name}/manifests/v2").body == data
    for reference in ("v1", digest_of(data)):
        done = registry.request("DELETE", f"/v2/library/thing/manifests/{reference}")
        assert done.status == 202
    assert image_of(serving, "thing") == ""
    assert registry.get(f"/v2/library/thing/manifests/{digest_of(data)}").status == 404
    assert_forgotten(serving)


def test_index_is_one_image_for_several_platforms(serving: EngineProcess, registry: Served) -> None:
    machines = ("amd64", "arm64")
    children = [push(registry, "team/multi", "", config(m)) for m in machines]
    assert image_of(serving, "team/multi") == ""
    entries = [
        descriptor(child, OCI_MANIFEST, platform={"os": "linux", "architecture": machine})
        for child, machine in zip(children, machines, strict=True)
    ]
    data = index(entries)
    assert registry.push_manifest("team/multi", "v1", data).status == 201
    inspect = serving.docker("inspect", "--type=image", "team/multi:v1").stdout
    assert json.loads(inspect)[0]["Id"] == digest_of(config("amd64"))
    assert registry.get("/v2/team/multi/manifests/v1").body == data
    for child in children:
        assert registry.get(f"/v2/team/multi/manifests/{digest_of(child)}").body == child
    serving.docker("rmi", "team/multi:v1")
    assert_forgotten(serving)


def test_a_tag_stays_the_manifest_that_was_pushed(serving: EngineProcess, registry: Served) -> None:
    """One image may have several manifests, of which the engine knows the last."""
    image = config(Labels={"n": "twice"})
    first = push(registry, "team/twice", "v1", image)
    second = push(registry, "team/twice", "v2", image, gzip.compress(ROOT, 2, mtime=0))
    assert first != second
    for tag, data in (("v1", first), ("v2", second)):
        assert registry.get(f"/v2/team/twice/manifests/{tag}").body == data
        assert registry.get(f"/v2/team/twice/manifests/{digest_of(data)}").body == data
        assert image_of(serving, f"team/twice:{tag}") == digest_of(image)
    other = push(registry, "team/twice", "v1", config(Labels={"n": "another"}))
    assert registry.get("/v2/team/twice/manifests/v1").body == other
    # A name that the engine gives to another image means that one.
    serving.docker("tag", "team/twice:v2", "team/twice:v1")
    assert registry.get("/v2/team/twice/manifests/v1").body == second
    serving.docker("rmi", "-f", digest_of(image))
    serving.docker("rmi", "-f", digest_of(config(Labels={"n": "another"})))
    assert_forgotten(serving)
    assert registry.get("/v2/team/twice/tags/list").status == 404


def test_what_a_container_uses_is_not_deleted(serving: EngineProcess, registry: Served) -> None:
    push(registry, "team/used", "v1", config(Labels={"n": "used"}))
    serving.docker(
        "run", "-d", "--name", "user", "--network", "none", "team/used:v1", "sleep", "99"
    )
    refused = registry.request("DELETE", "/v2/team/used/manifests/v1")
    assert (refused.status, refused.codes) == (403, ["DENIED"])
    assert "container" in refused.json["errors"][0]["message"]
    serving.docker("rm", "-f", "user")
    assert registry.request("DELETE", "/v2/team/used/manifests/v1").status == 202
    assert image_of(serving, "team/used:v1") == ""


def test_what_is_no_image_is_kept_beside(serving: EngineProcess, registry: Served) -> None:
    """Artifacts about an image, a tag that changes sides, layers that are none."""
    image = push(registry, "team/signed", "v1", config(Labels={"n": "signed"}))
    subject = descriptor(image, OCI_MANIFEST)
    # It names a blob that only the engine has by now, and outlives the image.
    registry.push_blob("team/signed", b"{}")
    said = manifest(b"{}", [LAYER], config_type="application/vnd.example+json", subject=subject)
    done = registry.push_manifest("team/signed", "v1.sig", said)
    assert (done.status, done.headers["OCI-Subject"]) == (201, subject["digest"])
    found = registry.get(f"/v2/team/signed/referrers/{subject['digest']}").json["manifests"]
    assert [entry["digest"] for entry in found] == [digest_of(said)]
    assert registry.get("/v2/team/signed/tags/list").json["tags"] == ["v1", "v1.sig"]
    assert registry.push_manifest("team/signed", "v1", said).status == 201
    assert image_of(serving, "team/signed:v1") == ""
    assert registry.get("/v2/team/signed/manifests/v1").body == said
    assert registry.get(f"/v2/team/signed/blobs/{digest_of(LAYER)}").body == LAYER
    push(registry, "team/signed", "v1", config(Labels={"n": "signed"}))
    assert image_of(serving, "team/signed:v1") != ""

    wrong = config(diff_id=digest_of(b"another"))
    data = push(registry, "team/wrong", "v1", wrong)
    assert image_of(serving, "team/wrong") == ""
    assert registry.get("/v2/team/wrong/manifests/v1").body == data


def test_clients_push_and_pull(serving: EngineProcess, tmp_path: Path) -> None:
    """skopeo, and what else there is of others."""
    archive = tmp_path / "in.tar"
    archive.write_bytes(docker_archive("in:v1", [ROOT]))
    address = "127.0.0.1:5000/team/copied"
    network = serving.in_network
    words = ("--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--src-tls-verify=false")
    peers.run(
        "skopeo",
        *(*words, "docker-archive:in.tar", f"docker://{address}:v1"),
        directory=tmp_path,
        prefix=network,
    )
    assert image_of(serving, "team/copied:v1") != ""
    peers.run(
        "skopeo",
        *(*words, f"docker://{address}:v1", "oci:out:v1"),
        directory=tmp_path,
        prefix=network,
    )
    assert (tmp_path / "out" / "index.json").exists()


def test_push_survives_a_restart(serving: EngineProcess, registry: Served) -> None:
    image = config(Labels={"n": "kept"})
    data = push(registry, "team/kept", "v1", image)
    child = push(registry, "team/kept", "", config("s390x"))
    serving.stop()
    serving.start(*flags_of(serving))
    assert image_of(serving, "team/kept:v1") == digest_of(image)
    for expected in (data, child):
        got = registry.get(f"/v2/team/kept/manifests/{digest_of(expected)}")
        assert got.body == expected


def test_mount_of_a_layer_without_a_file(registry: Served, serving: EngineProcess) -> None:
    """A layer that was loaded is assembled of its files: a repository gets bytes of its own.

    The last test here: no manifest names it, so it is not forgotten at once.
    """
    tar = layer_tar({"mounted": b"here" * 1000})
    digest = digest_of(tar)
    serving.docker.raw("load", stdin=docker_archive("mount/from:1", [tar]))
    query = {"mount": digest, "from": "mount/from"}
    assert registry.request("POST", "/v2/mount/to/blobs/uploads/", query).status == 201
    serving.docker("rmi", "mount/from:1")
    assert registry.get(f"/v2/mount/to/blobs/{digest}").body == tar
