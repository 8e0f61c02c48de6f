"""Limits on the bytes of a volume and of a container's layer: project quotas of the data root."""

from collections.abc import Iterator

import pytest

from busybox_image import NAME, docker_archive, layer_tar, root_tar
from engine_process import Client, EngineProcess
from quota_disk import quota_disk

FILL = "head -c 8000000 /dev/zero > {}; du -k {} | cut -f1"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine whose data is on a file system with project quotas."""
    with quota_disk(tmp_path_factory.mktemp("quota")) as place:
        engine = EngineProcess()
        engine.data_root = str(place / "data")
        try:
            engine.start()
            content = layer_tar({"data/seed": b"seed\n"})
            engine.docker.raw("load", stdin=docker_archive(NAME, [root_tar(), content]))
            yield engine
        finally:
            engine.close()


def written_kib(docker: Client, *words: str, path: str) -> int:
    """Fill a file until the quota says no; the container's shell tells how large it got."""
    script = FILL.format(path, path)
    done = docker("run", "--rm", "--network", "none", *words, NAME, "sh", "-c", script)
    assert "standard output" in done.stderr  # of busybox's head, which does not say what it was
    return int(done.stdout)


def test_a_container(limited: EngineProcess) -> None:
    docker = limited.docker
    size = written_kib(docker, "--storage-opt", "size=2m", path="/file")
    assert 1500 < size <= 2048
    docker("run", "--rm", NAME, "sh", "-c", "head -c 8000000 /dev/zero > /file")


def test_what_was_frozen_counts_as_well(limited: EngineProcess) -> None:
    docker, pier = limited.docker, limited.pier
    script = "head -c 1500000 /dev/zero > /file$(ls / | grep -c file) && rm -f /missing"
    words = ("--storage-opt", "size=2m", NAME, "sh", "-c", script)
    docker("create", "--name", "frozen", "--network", "none", *words)
    docker("start", "-a", "frozen")
    pier("snapshot", "frozen", "one")
    done = docker("start", "-a", "frozen", check=False)
    assert done.returncode != 0
    assert "standard output" in done.stderr
    docker("rm", "frozen")


def test_a_volume(limited: EngineProcess) -> None:
    docker = limited.docker
    docker("volume", "create", "-o", "size=3m", "small")
    size = written_kib(docker, "-v", "small:/data", path="/data/file")
    assert 2500 < size <= 3072
    # Filled from the image before, with what it has there.
    assert docker("run", "--rm", "-v", "small:/data", NAME, "cat", "/data/seed").stdout == "seed\n"
    docker("volume", "rm", "small")


def test_refused(limited: EngineProcess, docker: Client, image: str) -> None:
    done = limited.docker("volume", "create", "-o", "size=x", "bad", check=False)
    assert "invalid size: 'x'" in done.stderr
    words = ("-o", "size=1m", "-o", "type=tmpfs", "-o", "device=tmpfs")
    assert "size is for" in limited.docker("volume", "create", *words, "bad", check=False).stderr
    assert "bad" not in limited.docker("volume", "ls", "-q").stdout


def test_refused_without_quotas(docker: Client, image: str, engine: EngineProcess) -> None:
    done = docker("volume", "create", "-o", "size=1m", "bad", check=False)
    if done.returncode == 0:
        docker("volume", "rm", "bad")
        pytest.skip("the tests' own disk has project quotas")
    assert "quota size requested but no quota support" in done.stderr
    done = docker("create", "--storage-opt", "size=1m", image, check=False)
    assert "--storage-opt is supported only for overlay over xfs with 'pquota'" in done.stderr
