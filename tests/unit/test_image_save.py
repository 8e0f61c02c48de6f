"""Archives written: what is in them, that they load again, and that they are always the same."""

import io
import json
import os
import tarfile

import pytest
from test_image_load import HOST, ONE, OTHER, TWO, Layout, put
from test_image_store import Images

from busybox_image import docker_archive
from pier.errors import Internal, NotFound
from pier.images.load import load
from pier.images.save import start_saving
from pier.model.digest import digest_of
from pier.model.platform import parse_platform


@pytest.fixture
def images(tmp_path):
    images = Images(str(tmp_path / "data"))
    yield images
    images.close()


@pytest.fixture
def other(tmp_path):
    """Another engine's images."""
    other = Images(str(tmp_path / "other"))
    yield other
    other.close()


def save(images, *refs, platforms=()):
    saving = start_saving(images.store, refs, platforms)
    try:
        return b"".join(saving.chunks())
    finally:
        saving.close()


def files(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}


def read(archive, name):
    return json.loads(files(archive)[name])


def test_both_formats_in_one(images):
    put(images, docker_archive("a/b:v1", [ONE, TWO]))
    image = images.store.get("a/b:v1")
    found = files(save(images, "a/b:v1"))
    assert [n for n in found if "/" not in n] == [
        *("index.json", "manifest.json", "oci-layout", "repositories"),
    ]
    assert all(digest_of(data) == "sha256:" + n[13:] for n, data in found.items() if "/" in n)
    (item,) = json.loads(found["manifest.json"])
    assert item["RepoTags"] == ["a/b:v1"]
    assert item["Config"] == f"blobs/sha256/{image.id[7:]}"
    assert [found[path] for path in item["Layers"]] == [ONE, TWO]
    assert list(item["LayerSources"]) == [digest_of(ONE), digest_of(TWO)]
    (top,) = json.loads(found["index.json"])["manifests"]
    assert top["annotations"] == {
        "io.containerd.image.name": "docker.io/a/b:v1",
        "org.opencontainers.image.ref.name": "v1",
    }
    manifest = json.loads(found["blobs/sha256/" + top["digest"][7:]])
    assert manifest["schemaVersion"] == 2
    assert manifest["config"]["digest"] == image.id
    assert [layer["digest"] for layer in manifest["layers"]] == [digest_of(ONE), digest_of(TWO)]
    assert json.loads(found["repositories"]) == {"a/b": {"v1": digest_of(TWO)[7:]}}


def test_load_what_was_saved(images, other):
    put(images, docker_archive("a:v1", [ONE, TWO]))
    archive = save(images, "a:v1")
    assert put(other, archive) == ["Loaded image: a:v1\n"]
    assert other.store.get("a:v1").id == images.store.get("a:v1").id
    # What was once received is what goes out again, whoever had it meanwhile.
    assert save(other, "a:v1") == archive


def test_manifest_that_came_with_it_goes_with_it(images):
    layout = Layout()
    top = layout.image(ONE, platform=HOST, annotations={"io.containerd.image.name": "x/m:1"})
    put(images, layout.tar(top))
    (saved,) = read(save(images, "x/m:1"), "index.json")["manifests"]
    assert saved["digest"] == top["digest"]


def test_shared_content_is_there_once(images):
    put(images, docker_archive("a:v1", [ONE, TWO]))
    put(images, docker_archive("b:v1", [ONE], {"Labels": {"x": "y"}}))
    archive = save(images, "a:v1", "b:v1", "a:v1")
    assert len(read(archive, "manifest.json")) == 2
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())) == 12


def test_repository_means_all_of_its_tags(images):
    put(images, docker_archive("a:v1", [ONE]))
    put(images, docker_archive("a:v2", [TWO]))
    images.store.tag("a:v1", "a", "v3")
    items = read(save(images, "a"), "manifest.json")
    assert [item["RepoTags"] for item in items] == [["a:v1", "a:v3"], ["a:v2"]]


def test_id_saves_no_name(images, other):
    put(images, docker_archive("a:v1", [ONE]))
    image = images.store.get("a:v1")
    archive = save(images, image.id[7:19])
    assert read(archive, "manifest.json")[0]["RepoTags"] is None
    assert put(other, archive) == [f"Loaded image ID: {image.id}\n"]


def test_no_such_image(images):
    put(images, docker_archive("a:v1", [ONE]))
    with pytest.raises(NotFound, match="No such image: b"):
        save(images, "a:v1", "b")


def test_all_platforms_of_an_index(images, other):
    layout = Layout()
    name = {"io.containerd.image.name": "docker.io/library/multi:v1"}
    inner = {"manifests": [layout.image(ONE, platform=OTHER), layout.image(TWO, platform=HOST)]}
    put(images, layout.tar(layout.add("index.v1+json", inner, annotations=name)))
    archive = save(images, "multi:v1")
    assert put(other, archive) == ["Loaded image: multi:v1\n"]
    for text in (HOST, OTHER):
        platform = parse_platform(text)
        found = other.store.get("multi:v1", platform)
        assert found.id == images.store.get("multi:v1", platform).id
        assert found.index == images.store.get("multi:v1").index
    alone = save(images, "multi:v1", platforms=[parse_platform(OTHER)])
    assert len(files(alone)) == 3 + 4
    with pytest.raises(NotFound, match="does not match the specified platform"):
        save(images, "multi:v1", platforms=[parse_platform("linux/riscv64")])


def test_damage_is_told_and_not_saved(images):
    put(images, docker_archive("a:v1", [ONE, TWO]))
    chain = images.store.get("a:v1").chain_ids[1]
    with open(f"{images.diff(chain)}/two", "wb") as file:
        file.write(b"3")
    with pytest.raises(Internal, match=f"{digest_of(TWO)} cannot be assembled: two of its layer"):
        save(images, "a:v1")


def test_older_data_roots_are_saved_as_they_are(images, other):
    """Where a plain tar has a file, and its layer no recipe."""
    put(images, docker_archive("a:v1", [ONE]))
    before = save(images, "a:v1")
    layer = images.layers.get(images.store.get("a:v1").chain_ids[0])
    os.unlink(f"{os.path.dirname(images.diff(layer.chain_id))}/recipe")
    with open(images.blobs.path(layer.blob), "wb") as file:
        file.write(ONE)
    images.restart()
    assert images.blobs.has_file(layer.blob)
    assert save(images, "a:v1") == before
    images.remove("a:v1")
    assert images.files() == (0, 0)


def test_image_that_is_removed_meanwhile_is_saved_whole(images, other):
    put(images, docker_archive("a:v1", [ONE, TWO]))
    saving = start_saving(images.store, ["a:v1"])
    pieces = saving.chunks()
    images.remove("a:v1")
    images.root.settle()
    archive = b"".join(pieces)
    saving.close()
    images.store.collect(in_use=[])
    assert load(other.store, io.BytesIO(archive), lambda _: None)
    images.restart()
    assert images.files() == (0, 0)
