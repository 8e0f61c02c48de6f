"""What images take of the disk: their files once, however they came without being compressed."""

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from classic_build import Build

from busybox_image import NAME, docker_archive, layer_tar
from engine_process import Client, EngineProcess, wait_until

FILES, EACH = 60, 100_000
ALL = FILES * EACH


def content(seed: int) -> bytes:
    """A layer of files that nothing makes smaller."""
    chance = random.Random(seed)
    return layer_tar({f"d{n % 5}/f{n}": chance.randbytes(EACH) for n in range(FILES)})


def taken(engine: EngineProcess) -> int:
    """The bytes of all files below the data root but the database's, when deleting is over."""
    trash = os.path.join(engine.data_root, "trash")
    wait_until(lambda: not os.listdir(trash), "the trash is empty")
    total = 0
    for place, _, names in os.walk(engine.data_root):
        for name in names:
            with suppress(FileNotFoundError):
                if not name.startswith("pier.db"):
                    total += os.lstat(os.path.join(place, name)).st_size
    return total


@contextmanager
def takes_its_files_once(engine: EngineProcess) -> Iterator[None]:
    before = taken(engine)
    yield
    more = taken(engine) - before
    assert ALL <= more < ALL * 1.02 + 20_000, f"{more} bytes for files of {ALL}"


def test_load_and_save(docker: Client, engine: EngineProcess) -> None:
    tar = content(1)
    with takes_its_files_once(engine):
        docker.raw("load", stdin=docker_archive("disk/loaded:1", [tar]))
    image = docker("inspect", "-f", "{{.Id}}", "disk/loaded:1").stdout
    saved = docker.raw("save", "disk/loaded:1").stdout
    assert tar in saved, "the very bytes that were loaded"
    docker("rmi", "disk/loaded:1")
    with takes_its_files_once(engine):
        docker.raw("load", stdin=saved)
    assert docker("inspect", "-f", "{{.Id}}", "disk/loaded:1").stdout == image
    docker("rmi", "disk/loaded:1")


def test_import(docker: Client, engine: EngineProcess, tmp_path: Path) -> None:
    tar = content(2)
    (tmp_path / "root.tar").write_bytes(tar)
    with takes_its_files_once(engine):
        docker("import", str(tmp_path / "root.tar"), "disk/imported:1")
    layers = docker("inspect", "-f", "{{json .RootFS.Layers}}", "disk/imported:1").stdout
    assert layers == f'["sha256:{hashlib.sha256(tar).hexdigest()}"]\n'
    docker("rmi", "disk/imported:1")


def test_commit(docker: Client, engine: EngineProcess, image: str) -> None:
    script = f"head -c {ALL} /dev/urandom > /large"
    docker("run", "--name", "disk", "--network", "none", NAME, "sh", "-c", script)
    with takes_its_files_once(engine):
        docker("commit", "disk", "disk/committed:1")
    docker("rm", "disk")
    docker("rmi", "disk/committed:1")


def test_build(docker: Client, engine: EngineProcess, image: str, tmp_path: Path) -> None:
    """A step's directory is the layer, and its tar is never written."""
    build = Build(docker, image, tmp_path)
    with takes_its_files_once(engine):
        build(f"FROM BASE\nRUN head -c {ALL} /dev/urandom > /large\n")
    saved = docker.raw("save", "made/it").stdout
    image_id = docker("inspect", "-f", "{{.Id}}", "made/it").stdout
    docker("rmi", "made/it")
    docker.raw("load", stdin=saved)
    assert docker("inspect", "-f", "{{.Id}}", "made/it").stdout == image_id
    docker("rmi", "made/it")
