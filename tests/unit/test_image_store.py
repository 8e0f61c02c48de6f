"""Looking images up, naming them, removing them by Docker's rules, keeping what is in use."""

import gzip
import io
import json
import os
import re

import msgspec
import pytest
from test_layers import Storage, layer_tar

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.images.intake import Intake, LayerSource
from pier.images.removal import ContainerUse
from pier.images.store import ImageStore
from pier.images.views import summaries
from pier.model.digest import digest_of
from pier.model.filters import Filters
from pier.model.oci import OCI_LAYER
from pier.model.platform import Platform
from pier.model.reference import parse_reference
from pier.storage.layers import Layer


class Images(Storage):
    """A data root with its images."""

    def attach(self):
        self.store = ImageStore(self.root, self.database)
        self.blobs, self.layers = self.store.blobs, self.store.layers

    def make(
        self,
        *names,
        content=b"same",
        labels=None,
        created="2024-01-01T00:00:00Z",
        parent="",
        index="",
        architecture="amd64",
    ):
        layer = self.add(layer_tar(file=content))
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
        return self.store.register(
            self.blobs.put(json.dumps(config).encode()),
            [layer],
            references=[parse_reference(name) for name in names],
            parent=parent,
            index=index,
        )

    def remove(self, ref, *users, force=False, prune=True):
        done = self.store.remove(ref, force=force, prune=prune, users=users)
        return [r.untagged or r.deleted for r in done]

    def files(self):
        """Return how many layers and blobs are on the disk."""
        self.root.settle()
        return (
            len(os.listdir(self.root.join("layers"))),
            len(os.listdir(self.root.join("blobs", "sha256"))),
        )


def user(image, *, running, layers=None):
    chain = image.chain_ids if layers is None else layers
    return ContainerUse(id="c" * 64, image=image.id, layers=chain, running=running)


@pytest.fixture
def images(tmp_path):
    images = Images(str(tmp_path / "data"))
    yield images
    images.close()


def test_ways_to_name_an_image(images):
    image = images.make("a:latest", "example.com/b:v1")
    hexadecimal = image.id.removeprefix("sha256:")
    for ref in (
        "a", "a:latest", "docker.io/library/a", "example.com/b:v1", image.id, hexadecimal,
        hexadecimal[:12], hexadecimal[:2], f"sha256:{hexadecimal[:5]}",
    ):  # fmt: skip
        assert images.store.get(ref).id == image.id
    assert images.store.get("a").tags == ["a:latest", "example.com/b:v1"]
    assert image.id in images.store


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("nope", "No such image: nope:latest"),
        ("a:other", "No such image: a:other"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("0" * 64, "No such image: sha256:" + "0" * 64),
    ],
)
def test_no_such_image(images, ref, message):
    images.make("a:latest")
    with pytest.raises(NotFound, match=f"^{message}$"):
        images.store.get(ref)


def test_no_reference(images):
    with pytest.raises(InvalidParameter, match="invalid reference format"):
        images.store.get("a b")


def test_ambiguous_prefix_finds_none(images):
    made = [images.make(f"n{n}:latest", content=b"%d" % n).id[7] for n in range(17)]
    shared = next(digit for digit in made if made.count(digit) > 1)
    with pytest.raises(NotFound):
        images.store.get(shared)


def test_names_beat_ids(images):
    first, second = images.make("a:latest"), images.make("b:latest", content=b"other")
    prefix = first.id[7:13]
    images.store.tag("b", prefix, "")
    assert images.store.get(prefix).id == second.id


def test_tag_moves(images):
    first, second = images.make("a:latest"), images.make("b:latest", content=b"other")
    image, reference = images.store.tag("b", "a", "latest")
    assert (image.id, reference.familiar) == (second.id, "a:latest")
    assert images.store.get(first.id).references == ()
    images.restart()
    assert images.store.get("a").id == second.id
    assert images.store.get(first.id).tags == []


def test_everything_is_there_after_a_restart(images):
    image = images.make("a:latest", labels={"k": "v"})
    images.restart()
    assert images.store.get("a") == image


def test_last_name_takes_the_image_along(images):
    image = images.make("a:latest", "b:latest")
    assert images.remove("b") == ["b:latest"]
    assert images.files() == (1, 2)
    assert images.remove("a") == ["a:latest", image.id, image.chain_ids[0]]
    assert images.files() == (0, 0)
    assert images.store.count() == 0


def test_shared_layers_stay(images):
    first = images.make("a:latest")
    second = images.make("b:latest", labels={"another": "config"})
    assert first.chain_ids == second.chain_ids
    assert images.remove("a") == ["a:latest", first.id]
    assert images.files() == (1, 2)


def test_id_removes_all_of_one_name(images):
    image = images.make("a:latest")
    assert images.remove(image.id[7:19])[:2] == ["a:latest", image.id]


def test_id_with_several_names_must_be_forced(images):
    image = images.make("a:latest", "b:latest")
    message = f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
    with pytest.raises(Conflict, match=f"^{re.escape(message)}$"):
        images.remove(image.id)
    assert images.remove(image.id, force=True)[:3] == ["a:latest", "b:latest", image.id]


def test_last_name_of_a_used_image_stays(images):
    image = images.make("a:latest")
    message = (
        f'conflict: unable to remove repository reference "a" (must force) - container '
        f"{'c' * 12} is using its referenced image {image.id[7:19]}"
    )
    with pytest.raises(Conflict, match=f"^{re.escape(message)}$"):
        images.remove("a", user(image, running=False))
    assert images.remove("a", user(image, running=True), force=True) == ["a:latest"]
    assert images.store.get(image.id).tags == []


def test_one_of_several_names_of_a_used_image_goes(images):
    image = images.make("a:latest", "b:latest")
    assert images.remove("a", user(image, running=True)) == ["a:latest"]


@pytest.mark.parametrize("force", [False, True])
def test_running_container_cannot_be_forced(images, force):
    image = images.make("a:latest")
    message = f"conflict: unable to delete {image.id[7:19]} (cannot be forced) - image is being used by running container {'c' * 12}"
    with pytest.raises(Conflict, match=f"^{re.escape(message)}$"):
        images.remove(image.id, user(image, running=True), force=force)


def test_stopped_container_keeps_its_layers(images):
    image = images.make("a:latest")
    held = user(image, running=False)
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped"):
        images.remove(image.id, held)
    assert images.remove(image.id, held, force=True) == ["a:latest", image.id]
    assert os.listdir(images.diff(image.chain_ids[0])) == ["file"]
    # Also over a restart, as long as the container's row says so.
    record = msgspec.json.encode({"Id": held.id, "layers": list(held.layers)})
    images.database.put_container(held.id, "name", record)
    images.restart()
    assert os.listdir(images.diff(image.chain_ids[0])) == ["file"]
    assert images.store.collect(in_use=held.layers) == []
    images.database.delete_container(held.id)
    assert [layer.chain_id for layer in images.store.collect(in_use=[])] == list(image.chain_ids)
    assert images.files() == (0, 0)


def test_parents(images):
    parent = images.make(content=b"parent")
    child = images.make("c:latest", content=b"child", parent=parent.id)
    with pytest.raises(Conflict, match="image has dependent child images"):
        images.remove(parent.id, force=True)
    assert images.remove("c", prune=False) == ["c:latest", child.id, child.chain_ids[0]]
    child = images.make("c:latest", content=b"child", parent=parent.id)
    assert parent.id in images.remove("c")
    assert images.files() == (0, 0)


def test_digest_goes_with_the_last_tag_of_its_repository(images):
    digest = f"a@sha256:{'1' * 64}"
    image = images.make("a:latest", digest)
    assert images.store.get(f"a:any@sha256:{'1' * 64}").id == image.id
    assert images.store.get("a").digests == [digest]
    assert images.remove("a")[:3] == ["a:latest", digest, image.id]


def test_pinned_content_survives_a_removal(images):
    image = images.make("a:latest")
    layer = images.layers.get(image.chain_ids[0])
    with images.store.pinned() as pins:
        pins.add(layer.chain_id, layer.blob)
        images.remove("a")
        assert images.files() == (1, 1)
    assert images.store.collect(in_use=[])
    assert images.files() == (0, 0)


def load_plain(images, name, *tars, config=None, manifest=False):
    """Take an image of plain tars in as an intake does; with a manifest that names them."""
    diff_ids = [digest_of(tar) for tar in tars]
    described = {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": config or {}}
    parts = [{"mediaType": OCI_LAYER, "digest": d, "size": 1} for d in diff_ids]
    with Intake(images.store) as intake:
        blobs = [intake.add([tar]) for tar in tars]
        digest = intake.add([json.dumps(described).encode()])
        named = {"schemaVersion": 2, "config": {"digest": digest, "size": 1}, "layers": parts}
        kept = intake.add([json.dumps(named).encode()]) if manifest else None
        sources = [LayerSource(blob) for blob in blobs]
        references = [parse_reference(name)]
        return intake.register(digest, sources, references=references, manifest=kept)


def test_an_unused_layer_stays_while_its_tar_is_read(images):
    tar = layer_tar(file=b"content")
    image = load_plain(images, "a:latest", tar)
    with images.store.pinned() as pins:
        pins.add(digest_of(tar))
        images.remove("a")
        assert images.store.count() == 0
        assert images.blobs.read(digest_of(tar)) == tar
    assert images.store.collect(in_use=[])[0].chain_id == image.chain_ids[0]
    assert images.files() == (0, 0)


def test_a_layer_stays_while_a_manifest_names_its_tar(images):
    """The other image has the same layer compressed: only of the one that goes it is a tar."""
    tar = layer_tar(file=b"content")
    load_plain(images, "a:latest", tar)
    (layer,) = images.layers.all()
    other = images.make("b:latest", content=b"content")
    described = {
        "schemaVersion": 2,
        "config": {"digest": other.id, "size": 1},
        "layers": [{"digest": layer.blob, "size": 1}],
    }
    upper = digest_of(b"a chain of its own")
    staged = images.layers.unpack(io.BytesIO(gzip.compress(tar)))
    images.layers.adopt(staged, upper)
    kept = images.blobs.put(gzip.compress(tar))
    row = Layer(upper, layer.diff_id, kept, OCI_LAYER + "+gzip", staged.size)
    manifest = images.blobs.put(json.dumps(described).encode())
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}, "x": 1})
    named = images.store.register(
        images.blobs.put(config.encode()),
        [row],
        references=[parse_reference("c:latest")],
        manifest=manifest,
    )
    for name in ("a", "b"):
        images.remove(name)
    assert images.blobs.read(layer.blob) == tar
    images.remove("c")
    assert named.id not in images.store
    assert images.files() == (0, 0)


def test_what_a_plain_image_takes(images):
    """Its files once, and next to nothing beside them."""
    content = os.urandom(3 << 20)
    tar = layer_tar(large=content, small=b"x" * 100)
    load_plain(images, "a:latest", tar, manifest=True)
    assert images.store.disk_bytes() < len(content) + 2000
    images.root.settle()
    taken = sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(images.root.path)
        for name in names
        if not name.startswith("pier.db")
    )
    assert taken < len(content) + 3000
    assert images.blobs.size(digest_of(tar)) == len(tar)


def test_a_layer_is_kept_as_another_blob(images):
    image = images.make("a:1")
    plain = images.layers.all()[0]
    before = images.files()
    content = images.blobs.read(plain.blob)

    def compressed(level=9):
        writer = images.blobs.ingest()
        writer.write(gzip.compress(content, level, mtime=0))
        return writer

    with images.store.pinned() as pins:
        images.store.hold_layers(pins, image)
        assert not images.store.replace_blob(plain.blob, compressed(), OCI_LAYER + "+gzip")
    assert images.layers.all() == [plain], "somebody was reading it"
    assert images.files() == before

    writer = compressed()
    assert images.store.replace_blob(plain.blob, writer, OCI_LAYER + "+gzip")
    kept = msgspec.structs.replace(plain, blob=writer.digest, media_type=OCI_LAYER + "+gzip")
    assert images.layers.all() == [kept]
    assert images.layers.has_blob(plain.blob), "the same tar need not be unpacked again"
    assert not images.blobs.has_file(plain.blob)
    assert images.files() == before
    images.restart()
    assert images.layers.all() == [kept]

    assert not images.store.replace_blob(plain.blob, compressed(1), OCI_LAYER), "it has gone"
    assert images.files() == before
    images.remove("a:1")
    assert images.files() == (0, 0)


def test_what_a_crash_left_is_swept(images):
    """Killed before the row: content is there, and nobody knows of it."""
    images.add(layer_tar(file=b"orphan"))
    images.blobs.put(b"orphan")
    images.restart()
    assert images.files() == (0, 0)


def test_damaged_image_is_dropped_at_start(images):
    image, kept = images.make("a:latest"), images.make("b:latest", content=b"other")
    images.blobs.delete(image.id)
    images.restart()
    assert [i.id for i in images.store.all()] == [kept.id]
    assert images.files() == (1, 2)


@pytest.mark.parametrize("torn", ["layer", "config", "manifest"])
@pytest.mark.parametrize("how", ["empty", "zeros", "half"])
def test_power_cut_before_an_image_was_on_the_disk(images, torn, how):
    """What was renamed and not synced is looked at before anybody reads it."""
    kept = images.make("b:latest", content=b"other")
    images.root.settle()
    layer = images.add(layer_tar(file=b"same"))
    config = images.blobs.put(json.dumps({"rootfs": {"diff_ids": [layer.diff_id]}}).encode())
    described = {
        "schemaVersion": 2,
        "config": {"digest": config, "size": 1},
        "layers": [{"digest": layer.blob, "size": 1}],
    }
    manifest = images.blobs.put(json.dumps(described).encode())
    references = [parse_reference("a:1")]
    images.store.register(config, [layer], references=references, manifest=manifest)
    images.root.settle()
    whole = images.files()
    with images.database.transaction() as db:
        db.execute("UPDATE layers SET unsynced = 'another boot' WHERE blob = ?", (layer.blob,))
    path = images.blobs.path({"layer": layer.blob, "config": config, "manifest": manifest}[torn])
    size = os.path.getsize(path)
    os.truncate(path, size // 2 if how == "half" else 0)
    if how == "zeros":
        os.truncate(path, size)

    images.restart()
    if torn == "manifest":
        assert images.store.get("a:1").manifest == "", "it can be run all the same"
        assert images.files() == (2, whole[1] - 1)
    else:
        assert [image.id for image in images.store.all()] == [kept.id]
        assert images.files() == (1, 2)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["c:v1", "b:latest", "a:latest"]),
        ({"label": ["k"]}, ["b:latest", "a:latest"]),
        ({"label": ["k=1"]}, ["a:latest"]),
        ({"label!": ["k=1"]}, ["c:v1", "b:latest"]),
        ({"reference": ["[ab]"]}, ["b:latest", "a:latest"]),
        ({"reference": ["*:v1"]}, ["c:v1"]),
        ({"since": ["a"]}, ["c:v1", "b:latest"]),
        ({"before": ["c:v1"]}, ["b:latest", "a:latest"]),
        ({"dangling": ["false"]}, ["c:v1", "b:latest", "a:latest"]),
        ({"dangling": ["true"]}, []),
        ({"until": ["2024-01-02T12:00:00Z"]}, ["b:latest", "a:latest"]),
    ],
)
def test_list(images, filters, found):
    for day, (name, labels) in enumerate(
        [("a:latest", {"k": "1"}), ("b:latest", {"k": "2"}), ("c:v1", {})], 1
    ):
        made = f"2024-01-0{day}T00:00:00Z"
        images.make(name, content=name.encode(), labels=labels, created=made)
    wanted = Filters.parse(json.dumps(filters), filters)
    rows = summaries(images.store, all_=False, shared_size=False, filters=wanted)
    assert [tag for row in rows for tag in row.RepoTags] == found


@pytest.fixture
def platforms(images, monkeypatch):
    """`a` for several platforms on an amd64 machine: the images by architecture."""
    monkeypatch.setattr("pier.images.store.host_platform", lambda: Platform("amd64", "linux"))
    index = images.blobs.put(b"{}")
    digest = f"a@{index}"
    return {
        name: images.make("a:latest", digest, index=index, architecture=name)
        for name in ("arm64", "amd64", "s390x")
    }


def test_name_stands_for_the_image_of_the_host(images, platforms):
    for _ in range(2):
        assert images.store.get("a").id == platforms["amd64"].id
        assert images.store.get("a").tags == ["a:latest"]
        assert len(images.store.get("a").digests) == 1
        for name, image in platforms.items():
            assert images.store.get("a", Platform(name, "linux")).id == image.id
            assert images.store.is_named(image)
        with pytest.raises(NotFound, match=r"its platform \(linux/amd64\) does not match"):
            images.store.get("a", Platform("riscv64", "linux"))
        images.restart()


def test_index_is_kept_with_its_images(images, platforms):
    assert images.files() == (1, 5)
    assert images.remove(platforms["arm64"].id)[-1] == platforms["arm64"].id
    images.restart()
    assert images.files() == (1, 4)
    assert len(images.remove("a")) == 5
    assert images.files() == (0, 0)


def test_another_index_takes_the_name_along(images, platforms):
    other = images.blobs.put(b"{ }")
    image = images.make("a:latest", index=other, architecture="arm64", content=b"new")
    assert images.store.get("a").id == image.id
    assert images.store.platforms_of(image) == [image]
    assert images.store.is_named(platforms["arm64"])  # by the digest of the old index


def test_untagged_parents_are_shown_on_demand(images):
    parent = images.make(content=b"parent")
    images.make("c:latest", content=b"child", parent=parent.id)
    for all_, count in ((False, 1), (True, 2)):
        rows = summaries(images.store, all_=all_, shared_size=False, filters=Filters())
        assert len(rows) == count
