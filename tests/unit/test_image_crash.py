"""SIGKILL at every step of a load and a removal: an image is whole or absent, nothing is left over."""

import os
import signal
import subprocess
import sys

import pytest
from test_image_load import ONE, TWO
from test_image_store import Images

from busybox_image import docker_archive

# Runs an operation and kills itself at the nth call that changes what is on the disk.
SCRIPT = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_image_store import Images
from pier.images.commit import Committed, commit_image
from pier.images.load import load
from pier.model.container import ContainerConfig
from pier.model.reference import parse_reference

images = Images(sys.argv[1])
left = int(sys.argv[2])

def dying(call):
    def step(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return step

for name in ("rename", "fsync", "mkdir", "utime", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
real = type(images.database).transaction
type(images.database).transaction = dying(real)

if sys.argv[3] == "load":
    with open(sys.argv[4], "rb") as archive:
        load(images.store, archive, lambda line: None)
elif sys.argv[3] == "commit":
    image = images.store.get("a:v1")
    layers = [images.diff(chain) for chain in reversed(image.chain_ids)]
    what = Committed(
        parent=image, own=[sys.argv[4]], layers=layers, config=ContainerConfig(), command=""
    )
    commit_image(images.store, what, parse_reference("b:v1"))
else:
    images.remove("a:v1")
images.close()
print("left", left)
"""


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive("a:v1", [ONE, TWO]))
    return str(path)


def run(tmp_path, step, *args):
    """Run it; tell whether it was killed."""
    script = SCRIPT.format(path=[path for path in sys.path if path])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data"), str(step), *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def check(images, *, present):
    """Check that what is known is whole and that nothing else is there."""
    if present is not None:
        assert images.store.count() == present
    for image in images.store.all():
        assert [os.listdir(images.diff(c)) for c in image.chain_ids] == [["one"], ["two"]]
        assert images.blobs.read(image.id)
        assert image.tags == ["a:v1"]
        for chain_id in image.chain_ids:
            layer = images.layers.get(chain_id)
            assert images.blobs.read(layer.blob) in (ONE, TWO)
    assert images.files() == ((2, 1) if images.store.count() else (0, 0))
    for name in ("ingest", "staging", "trash"):
        assert os.listdir(images.root.join(name)) == []


def test_killed_load(tmp_path, archive):
    step = 1
    while run(tmp_path, step, "load", archive):
        images = Images(str(tmp_path / "data"))
        try:
            check(images, present=None)
            if images.store.count():
                images.remove("a:v1")
        finally:
            images.close()
        step += 2
    assert step > 10
    images = Images(str(tmp_path / "data"))
    try:
        check(images, present=1)
    finally:
        images.close()


def test_killed_removal(tmp_path, archive):
    step = 1
    killed = True
    while killed:
        run(tmp_path, 100_000, "load", archive)
        killed = run(tmp_path, step, "remove")
        images = Images(str(tmp_path / "data"))
        try:
            check_removed(images)
        finally:
            images.close()
        step += 4
    assert step > 4


def check_removed(images):
    """The name may be gone before the image: then the image is whole and dangling."""
    images.root.settle()
    for image in images.store.all():
        assert image.tags in ([], ["a:v1"])
        assert [os.listdir(images.diff(c)) for c in image.chain_ids] == [["one"], ["two"]]
        assert all(images.blobs.exists(digest) for digest in image.blobs)
    assert images.files() == ((2, 1) if images.store.count() else (0, 0))


def test_killed_commit(tmp_path, archive):
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "three").write_bytes(b"3")
    run(tmp_path, 100_000, "load", archive)
    step = 1
    while run(tmp_path, step, "commit", str(upper)):
        images = Images(str(tmp_path / "data"))
        try:
            made = images.store.count() == 2
            if made:
                image = images.store.get("b:v1")
                assert os.listdir(images.diff(image.chain_ids[2])) == ["three"]
                assert images.files() == (3, 2)
                images.remove("b:v1")
            check(images, present=1)
        finally:
            images.close()
        step += 5
    assert step > 5
