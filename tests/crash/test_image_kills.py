"""SIGKILL for pierd while images come and go: each is whole or absent, and the next try works."""

import hashlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from busybox_image import NAME, docker_archive, layer_tar, root_tar
from engine_process import EngineProcess, wait_until
from pier.model.digest import Digest, digest_of
from pier.storage.assembled import AssembledTar
from registry_process import RegistryProcess

PORT = 5087
APP, THERE = "kill/app:1", f"localhost:{PORT}/kill/app:1"
IMPORTED = "kill/imported:1"
TRIES = 3


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """An archive of three layers, and a tar to import; large enough to be killed in."""
    random.seed(4)
    many = layer_tar({f"d/file{n}": random.randbytes(2000) for n in range(800)})
    large = layer_tar({"large": random.randbytes(12 << 20)})
    archive = docker_archive(APP, [root_tar(), many, large], {"Cmd": ["wc", "-c", "/large"]})
    (tmp_path / "image.tar").write_bytes(archive)
    (tmp_path / "root.tar").write_bytes(large)
    return tmp_path


@pytest.fixture
def registry(engine: EngineProcess) -> Iterator[RegistryProcess]:
    with RegistryProcess(prefix=engine.in_network, port=PORT) as running:
        yield running


def check_whole(engine: EngineProcess) -> None:
    """Check that every blob is what it is called, and that layers and rows are the same.

    A layer's blob has a file, or can be assembled of the layer.
    """
    blobs = Path(engine.data_root, "blobs", "sha256")
    for path in blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    with sqlite3.connect(f"file:{engine.data_root}/pier.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT chain_id, blob FROM layers").fetchall()
    database.close()
    assert {chain.removeprefix("sha256:") for chain, _ in rows} == set(
        os.listdir(f"{engine.data_root}/layers")
    )
    for chain, blob in rows:
        if not (blobs / blob.removeprefix("sha256:")).exists():
            layer = f"{engine.data_root}/layers/{chain.removeprefix('sha256:')}"
            with AssembledTar(layer, Digest(blob)) as tar:
                assert digest_of(tar.read()) == blob
    # Directories made ahead for containers are in staging/ as well.
    root = Path(engine.data_root)
    wait_until(lambda: not list(root.glob("staging/*/diff")), "no layer is half there")
    for kind in ("ingest", "trash"):
        wait_until(lambda kind=kind: not os.listdir(root / kind), f"{kind} is empty")


def killed_in(engine: EngineProcess, *words: str) -> None:
    """Kill pierd a few times in the middle of a command, at moments spread over what it takes."""
    begun = time.monotonic()
    engine.docker(*words, timeout=60)
    whole = time.monotonic() - begun
    for number in range(TRIES):
        if words[0] in ("load", "import", "pull"):
            engine.docker("rmi", "-f", APP, THERE, IMPORTED, check=False)
        with engine.docker.popen(*words) as running:
            time.sleep(whole * (number + 0.5) / TRIES)
            engine.kill()
            running.communicate()
        engine.start()
        check_whole(engine)
    assert engine.docker("run", "--rm", "--network", "none", NAME, "echo", "ok").stdout == "ok\n"


def works(engine: EngineProcess, name: str) -> bool:
    done = engine.docker("run", "--rm", "--network", "none", name)
    return done.stdout == f"{12 << 20} /large\n"


def test_load(engine: EngineProcess, archives: Path) -> None:
    killed_in(engine, "load", "-i", str(archives / "image.tar"))
    engine.docker("load", "-i", str(archives / "image.tar"))
    assert works(engine, APP)


def test_import(engine: EngineProcess, archives: Path) -> None:
    killed_in(engine, "import", str(archives / "root.tar"), IMPORTED)
    engine.docker("import", str(archives / "root.tar"), IMPORTED)
    assert engine.docker("image", "inspect", "-f", "{{.Size}}", IMPORTED).stdout == f"{12 << 20}\n"


def test_save(engine: EngineProcess, archives: Path) -> None:
    """Nothing is changed by it; the file at the client is absent or whole, as the CLI has it."""
    engine.docker("load", "-i", str(archives / "image.tar"))
    saved = archives / "saved.tar"
    killed_in(engine, "save", "-o", str(saved), APP)
    engine.docker("save", "-o", str(saved), APP)
    engine.docker("rmi", APP)
    engine.docker("load", "-i", str(saved))
    assert works(engine, APP)


def test_push_and_pull(engine: EngineProcess, archives: Path, registry: RegistryProcess) -> None:
    engine.docker("load", "-i", str(archives / "image.tar"))
    engine.docker("tag", APP, THERE)
    image_id = engine.docker("image", "inspect", "-f", "{{.Id}}", APP).stdout
    # The first one compresses, and puts what it made in the place of the plain tars.
    with engine.docker.popen("push", THERE) as running:
        time.sleep(0.3)
        engine.kill()
        running.communicate()
    engine.start()
    check_whole(engine)
    killed_in(engine, "push", THERE)
    engine.docker("push", THERE)
    engine.docker("rmi", "-f", APP, THERE)
    killed_in(engine, "pull", THERE)
    engine.docker("pull", THERE)
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", THERE).stdout == image_id
    assert works(engine, THERE)
