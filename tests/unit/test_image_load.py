"""Loading archives: both formats, what they share, what they call things, and faults."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess

import pytest
import zstandard
from test_image_store import Images
from test_layers import layer_tar

from busybox_image import docker_archive, oci_layout
from pier.errors import Internal, InvalidParameter
from pier.images.load import load
from pier.model.digest import digest_of
from pier.model.platform import host_platform, parse_platform

ONE, TWO = layer_tar(one=b"1"), layer_tar(two=b"2")
CHAIN = digest_of(f"{digest_of(ONE)} {digest_of(TWO)}".encode())


@pytest.fixture
def images(tmp_path):
    images = Images(str(tmp_path / "data"))
    yield images
    # Whatever happened, nothing half-made is left.
    assert os.listdir(images.root.join("ingest")) == []
    assert os.listdir(images.root.join("staging")) == []
    images.close()


def put(images, data, **kwargs):
    """Load an archive; return what it told, the layers' progress apart."""
    told = []
    load(images.store, io.BytesIO(data), told.append, **kwargs)
    return [line["stream"] for line in told if "stream" in line]


def blob(content):
    digest = hashlib.sha256(content).hexdigest()
    return f"blobs/sha256/{digest}", content


def descriptor(media_type, content, **more):
    return {
        "mediaType": f"application/vnd.oci.image.{media_type}",
        "digest": digest_of(content),
        "size": len(content),
        **more,
    }


class Layout:
    """An OCI image layout in the making."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def add(self, media_type, content, **more):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        name, _ = blob(content)
        self.files[name] = content
        return descriptor(media_type, content, **more)

    def image(self, *layers, platform="linux/amd64", annotations=None, media="layer.v1.tar"):
        system, architecture = platform.split("/")
        config = {
            "os": system,
            "architecture": architecture,
            "rootfs": {"diff_ids": [digest_of(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "config": self.add("config.v1+json", config),
            "layers": [self.add(media, layer) for layer in layers],
        }
        where = {"os": system, "architecture": architecture}
        return self.add("manifest.v1+json", manifest, platform=where, annotations=annotations or {})

    def tar(self, *manifests):
        index = {"schemaVersion": 2, "manifests": list(manifests)}
        return layer_tar(**self.files, **{"index.json": json.dumps(index).encode()})


HOST = f"linux/{host_platform().architecture}"
OTHER = "linux/s390x"


@pytest.mark.parametrize("make", [docker_archive, oci_layout])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_load(images, make, compress):
    assert put(images, compress(make("a/b:v1", [ONE, TWO]))) == ["Loaded image: a/b:v1\n"]
    image = images.store.get("a/b:v1")
    assert image.chain_ids == (digest_of(ONE), CHAIN)
    assert image.size == 2
    assert [os.listdir(images.diff(c)) for c in image.chain_ids] == [["one"], ["two"]]


def test_progress_and_quiet(images):
    told = []
    load(images.store, io.BytesIO(docker_archive("a:v1", [ONE])), told.append)
    size = len(ONE)
    assert told[:-1] == [
        {
            "status": "Loading layer",
            "progressDetail": {"current": current, "total": size},
            "id": digest_of(ONE)[7:19],
        }
        for current in (0, size)
    ]
    told.clear()
    load(images.store, io.BytesIO(docker_archive("a:v1", [TWO])), told.append, quiet=True)
    assert [list(line) for line in told] == [["stream"], ["stream"]]


def test_loading_again_changes_nothing(images):
    archive = docker_archive("a:v1", [ONE, TWO])
    put(images, archive)
    before = images.files()
    assert put(images, archive) == ["Loaded image: a:v1\n"]
    assert images.files() == before == (2, 1)
    assert images.store.count() == 1


def test_name_taken_over_is_told(images):
    put(images, docker_archive("a:v1", [ONE]))
    old = images.store.get("a:v1").id
    told = put(images, docker_archive("a:v1", [TWO]))
    assert told == [
        f"The image a:v1 already exists, renaming the old one with ID {old} to empty string\n",
        "Loaded image: a:v1\n",
    ]
    assert images.store.get(old).tags == []


def test_image_without_a_name(images):
    files = {"c.json": config_of(ONE), "l.tar": ONE}
    files["manifest.json"] = b'[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]'
    assert put(images, layer_tar(**files)) == [f"Loaded image ID: {digest_of(files['c.json'])}\n"]


def config_of(*layers, **more):
    diff_ids = [digest_of(layer) for layer in layers]
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, **more}
    return json.dumps(config).encode()


def test_same_layer_twice_in_one_image(images):
    put(images, docker_archive("a:v1", [ONE, TWO, ONE]))
    chain = images.store.get("a:v1").chain_ids
    assert [os.listdir(images.diff(c)) for c in chain] == [["one"], ["two"], ["one"]]


def test_several_images_share_layers(images):
    files = {
        "c1": config_of(ONE), "c2": config_of(ONE, TWO), "1.tar": ONE, "2.tar": TWO,
        "manifest.json": json.dumps(
            [
                {"Config": "c1", "RepoTags": ["a:v1", "b:v1"], "Layers": ["1.tar"]},
                {"Config": "c2", "RepoTags": ["a:v2"], "Layers": ["1.tar", "2.tar"],
                 "Parent": digest_of(config_of(ONE))},
            ]
        ).encode(),
    }  # fmt: skip
    assert put(images, layer_tar(**files)) == [
        "Loaded image: a:v1\n", "Loaded image: b:v1\n", "Loaded image: a:v2\n",
    ]  # fmt: skip
    assert images.files() == (2, 2), "a plain tar has no file of its own"
    assert images.store.get("a:v2").parent == images.store.get("a:v1").id


def test_layout_for_several_platforms(images):
    layout = Layout()
    inner = layout.add(
        "index.v1+json",
        {
            "manifests": [
                layout.image(ONE, platform=OTHER),
                layout.image(TWO, platform=HOST),
                descriptor("manifest.v1+json", b"not in the archive", platform={"os": "linux"}),
            ]
        },
        annotations={"io.containerd.image.name": "docker.io/library/multi:v1"},
    )
    archive = layout.tar(inner)
    assert put(images, archive) == ["Loaded image: multi:v1\n"]
    assert images.store.get("multi:v1").chain_ids == (digest_of(TWO),)
    # The other one has come along, and is found by its platform.
    assert images.store.get("multi:v1", parse_platform(OTHER)).chain_ids == (digest_of(ONE),)
    images.remove("multi:v1")
    assert images.store.count() == 0
    put(images, archive, platforms=[parse_platform(OTHER)])
    assert images.store.get("multi:v1").chain_ids == (digest_of(ONE),)
    assert put(images, archive) == ["Loaded image: multi:v1\n"]
    assert images.store.get("multi:v1").chain_ids == (digest_of(TWO),)


def test_layout_keeps_manifest_and_blobs_as_they_came(images):
    """What is pushed later has to be what was received, byte for byte."""
    squeezed = gzip.compress(ONE, 3)
    layout = Layout()
    config = layout.add("config.v1+json", json.loads(config_of(ONE, unknown={"kept": 1})))
    manifest = layout.add(
        "manifest.v1+json",
        {"config": config, "layers": [layout.add("layer.v1.tar+gzip", squeezed)]},
        annotations={"org.opencontainers.image.ref.name": "kept:v1"},
    )
    put(images, layout.tar(manifest))
    image = images.store.get("kept:v1")
    assert image.manifest == manifest["digest"]
    assert images.blobs.read(image.manifest) == layout.files[blob_name(image.manifest)]
    assert images.blobs.read(image.id) == layout.files[blob_name(image.id)]
    layer = images.layers.get(image.chain_ids[0])
    assert images.blobs.read(layer.blob) == squeezed
    assert layer.media_type.endswith("tar+gzip")
    # And it stays so when the layer was there before, received in another form.
    put(images, docker_archive("plain:v1", [ONE]))
    images.restart()
    assert images.blobs.exists(digest_of(squeezed))


def test_other_form_of_a_known_layer_is_kept_for_its_manifest(images):
    put(images, docker_archive("plain:v1", [ONE]))
    put(images, oci_layout("squeezed:v1", [ONE]))
    image = images.store.get("squeezed:v1")
    assert all(images.blobs.exists(digest) for digest in image.blobs)
    images.restart()
    images.remove("plain:v1")
    assert all(images.blobs.exists(digest) for digest in image.blobs)


def blob_name(digest):
    return "blobs/" + digest.replace(":", "/")


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ({"io.containerd.image.name": "docker.io/a/b:c"}, "Loaded image: a/b:c\n"),
        ({"org.opencontainers.image.ref.name": "a/b:c"}, "Loaded image: a/b:c\n"),
        ({"org.opencontainers.image.ref.name": "latest"}, "Loaded image ID: "),
        ({}, "Loaded image ID: "),
    ],
)
def test_names_of_a_layout(images, annotations, told):
    layout = Layout()
    archive = layout.tar(layout.image(ONE, platform=HOST, annotations=annotations))
    assert put(images, archive)[0].startswith(told)


def test_attestations_are_no_images(images):
    layout = Layout()
    proof = layout.image(layer_tar(proof=b"json"), platform=HOST)
    proof["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    index = layout.add("index.v1+json", {"manifests": [layout.image(ONE, platform=HOST), proof]})
    put(images, layout.tar(index))
    assert images.store.count() == 1


def test_links_between_members(images, tmp_path):
    """Old `docker save` linked equal layers."""
    source = tmp_path / "archive"
    (source / "x").mkdir(parents=True)
    (source / "y").mkdir()
    (source / "x/layer.tar").write_bytes(ONE)
    (source / "y/layer.tar").symlink_to("../x/layer.tar")
    (source / "c.json").write_bytes(config_of(ONE, ONE))
    (source / "manifest.json").write_text(
        '[{"Config":"c.json","RepoTags":["a:v1"],"Layers":["x/layer.tar","y/layer.tar"]}]'
    )
    packed = subprocess.run(["tar", "-C", source, "-cf", "-", "."], check=True, capture_output=True)
    put(images, packed.stdout)
    assert len(images.store.get("a:v1").chain_ids) == 2


def test_what_skopeo_writes(images, tmp_path):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    source = tmp_path / "source.tar"
    source.write_bytes(docker_archive("made/skopeo:v2", [ONE, TWO]))
    for kind in ("docker-archive", "oci-archive"):
        copied = tmp_path / f"{kind}.tar"
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{source}",
             f"{kind}:{copied}:made/{kind}:v3"],
            check=True, env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        assert put(images, copied.read_bytes()) == [f"Loaded image: made/{kind}:v3\n"]
        assert images.store.get(f"made/{kind}:v3").chain_ids == (digest_of(ONE), CHAIN)


def manifest_json(**changes):
    item = {"Config": "c", "RepoTags": ["a:v1"], "Layers": ["l"], **changes}
    return json.dumps([item]).encode()


FAULTS = {
    "no archive": (b"no archive at all" * 50, "invalid tar header"),
    "nothing": (b"", "manifest.json: no such file"),
    "no manifest": (layer_tar(x=b""), "manifest.json: no such file"),
    "cut": (docker_archive("a:v1", [ONE, TWO])[:12000], "unexpected EOF"),
    "no JSON": (layer_tar(**{"manifest.json": b"{"}), "invalid manifest.json"),
    "null": (layer_tar(**{"manifest.json": b"null"}), "manifest cannot be null"),
    "no config": (layer_tar(**{"manifest.json": manifest_json()}), "open c: no such file"),
    "config outside": (
        layer_tar(**{"manifest.json": manifest_json(Config="../../etc/passwd")}),
        "no such file",
    ),
    "no layer": (
        layer_tar(c=config_of(ONE), **{"manifest.json": manifest_json()}), "open l: no such file",
    ),
    "too few layers": (
        layer_tar(c=config_of(ONE, TWO), l=ONE, **{"manifest.json": manifest_json()}),
        "layers length mismatch: expected 1, got 2",
    ),
    "another layer": (
        layer_tar(c=config_of(ONE), l=TWO, **{"manifest.json": manifest_json()}),
        "invalid diffID for layer 0",
    ),
    "broken layer": (
        layer_tar(c=config_of(ONE), l=gzip.compress(ONE)[:-9], **{"manifest.json": manifest_json()}),
        "unexpected EOF",
    ),
    "bad tag": (
        layer_tar(c=config_of(ONE), l=ONE, **{"manifest.json": manifest_json(RepoTags=["A:b"])}),
        "must be lowercase",
    ),
    "for another system": (
        layer_tar(c=config_of(ONE, os="windows"), l=ONE, **{"manifest.json": manifest_json()}),
        "cannot load windows image on linux",
    ),
    "index without images": (Layout().tar(), "names no image"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults(images, case):
    data, message = FAULTS[case]
    with pytest.raises(InvalidParameter, match=message):
        put(images, data)
    assert images.store.all() == []


def test_no_platform_suits(images):
    layout = Layout()
    single = layout.image(ONE, platform=OTHER)
    index = layout.add("index.v1+json", {"manifests": [single]})
    with pytest.raises(InvalidParameter, match="no image of the archive suits platform"):
        put(images, layout.tar(index), platforms=[host_platform()])
    with pytest.raises(InvalidParameter, match="no image of the archive suits platform"):
        put(images, layout.tar(single), platforms=[host_platform()])
    # Where there is no choice it is loaded, as `docker load` does; running it is another matter.
    assert put(images, layout.tar(single))


def test_content_that_is_not_its_digest(images):
    layout = Layout()
    manifest = layout.image(ONE, platform=HOST)
    layout.files[blob_name(digest_of(ONE))] = TWO
    with pytest.raises(InvalidParameter, match="content does not match its digest"):
        put(images, layout.tar(manifest))


def test_indexes_nested_for_ever(images):
    layout = Layout()
    inner = layout.image(ONE, platform=HOST)
    for _ in range(9):
        inner = layout.add("index.v1+json", {"manifests": [inner]})
    with pytest.raises(InvalidParameter, match="nested deeper than 4"):
        put(images, layout.tar(inner))


def test_client_that_goes_away(images):
    class Gone(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 5000:
                raise ConnectionResetError("the client went away")
            return super().read(min(size, 4096))

    with pytest.raises(ConnectionResetError):
        load(images.store, Gone(docker_archive("a:v1", [ONE, TWO])), lambda _: None)
    assert images.store.all() == []


def test_full_disk(images, monkeypatch):
    """The disk fills up while the second layer is unpacked."""
    full = os.open("/dev/full", os.O_WRONLY)
    real = os.open

    def small(path, flags, *args, **kwargs):
        if path == b"two":
            return os.dup(full)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", small)
    with pytest.raises(Internal, match="no space left on device"):
        put(images, docker_archive("a:v1", [ONE, TWO]))
    monkeypatch.undo()
    os.close(full)
    assert images.store.all() == []
    images.restart()
    assert images.files() == (0, 0)
