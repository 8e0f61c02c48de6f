"""A disk that is full: an image is whole or not there, and there is room again afterwards."""

import io
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "unit"))

from test_image_store import Images
from test_layers import layer_tar

from busybox_image import docker_archive
from pier.errors import Internal
from pier.images.commit import Committed, commit_image
from pier.images.importer import import_image
from pier.images.load import load
from pier.images.save import start_saving
from pier.model.container import ContainerConfig
from pier.model.reference import parse_reference

SIZE = 24 << 20


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    """Images on a file system of 24 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", path], check=True)
    try:
        images = Images(str(path / "data"))
        yield images
        images.close()
    finally:
        subprocess.run(["umount", path], check=True)


def put(images: Images, name: str, *contents: bytes) -> None:
    layers = [layer_tar(**{f"file{n}": content}) for n, content in enumerate(contents)]
    load(images.store, io.BytesIO(docker_archive(name, layers)), lambda _: None)


def used(images: Images) -> int:
    images.root.settle()
    found = os.statvfs(images.root.path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


# In the blob of the first layer, in its unpacked files, in a later layer.
@pytest.mark.parametrize("sizes", [(30,), (15,), (4, 4, 4, 4), (1, 30)])
def test_load(images: Images, sizes: tuple[int, ...]) -> None:
    put(images, "small:v1", b"x" * 1000)
    before, files = used(images), images.files()
    with pytest.raises(Internal, match="no space left on device"):
        put(images, "large:v1", *(os.urandom(size << 20) for size in sizes))
    assert images.files() == files
    assert used(images) - before < 200_000  # SQLite's log may have grown
    assert [image.tags for image in images.store.all()] == [["small:v1"]]
    images.restart()
    assert images.files() == files
    put(images, "other:v1", os.urandom(4 << 20))
    saving = start_saving(images.store, ["other:v1"])
    assert sum(map(len, saving.chunks())) > 4 << 20
    saving.close()


# In the blob, in the unpacked files, and where xz becomes gzip.
@pytest.mark.parametrize(("size", "compress"), [(30, bytes), (15, bytes), (8, lzma.compress)])
def test_import(images: Images, size: int, compress: Callable[[bytes], bytes]) -> None:
    put(images, "small:v1", b"x" * 1000)
    before, files = used(images), images.files()
    archive = compress(layer_tar(large=os.urandom(size << 20)))
    with pytest.raises(Internal, match="no space left on device"):
        import_image(images.store, io.BytesIO(archive), repo="large")
    assert images.files() == files
    assert used(images) - before < 200_000  # SQLite's log may have grown
    assert [image.tags for image in images.store.all()] == [["small:v1"]]
    imported = import_image(images.store, io.BytesIO(layer_tar(small=b"y")), repo="fits")
    assert imported.tags == ["fits:latest"]


def test_a_blob_that_has_no_room_beside_the_old_one(images: Images) -> None:
    """What a push compressed is not kept then; the plain tar stays."""
    put(images, "large:v1", os.urandom(8 << 20))
    (layer,) = images.layers.all()
    writer = images.blobs.ingest()
    with pytest.raises(OSError, match="No space left"):
        writer.write(os.urandom(30 << 20))
    writer.only_hash()
    assert not images.store.replace_blob(layer.blob, writer, layer.media_type)
    assert images.layers.all() == [layer]
    assert images.files() == (1, 1)
    assert os.listdir(images.root.join("ingest")) == []


def test_commit(images: Images) -> None:
    put(images, "small:v1", b"x" * 1000)
    files = images.files()
    image = images.store.get("small:v1")
    upper = Path(images.root.path).parent / "upper"
    upper.mkdir()
    (upper / "large").write_bytes(os.urandom(13 << 20))
    what = Committed(
        parent=image,
        own=[str(upper)],
        layers=[images.diff(chain) for chain in image.chain_ids],
        config=ContainerConfig(),
        command="",
    )
    reference = parse_reference("made:v1").tagged()
    with pytest.raises(Internal, match="no space left on device"):
        commit_image(images.store, what, reference)
    assert images.files() == files
    (upper / "large").write_bytes(b"now small")
    made = commit_image(images.store, what, reference)
    assert made.parent == image.id
    assert images.store.get("made:v1").chain_ids[0] == image.chain_ids[0]
    assert os.listdir(images.diff(made.chain_ids[1])) == ["large"]
    images.restart()
    assert images.store.get("made:v1") == made
