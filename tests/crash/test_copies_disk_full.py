"""A full disk while a layer or volume is copied: an error, nothing half there, and the next try works."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import EngineProcess

DISK = 48 << 20
DATA = 12 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[EngineProcess]:
    """An engine whose data root is a small file system, with a container that wrote 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "small", place], check=True)
    engine = EngineProcess()
    engine.data_root = str(place / "data")
    try:
        engine.start()
        engine.docker.raw("load", "--quiet", stdin=docker_archive(NAME, [root_tar()]))
        script = f"head -c {DATA} /dev/urandom > /file; sleep 600"
        engine.docker(
            "run", "-d", "--name", "writer", "--network", "none", NAME, "sh", "-c", script
        )
        engine.docker(
            "exec", "writer", "sh", "-c", f"until [ $(stat -c %s /file) = {DATA} ]; do :; done"
        )
        yield engine
    finally:
        engine.close()
        subprocess.run(["umount", place], check=True)


def fill(engine: EngineProcess) -> str:
    """Take the space but for 4 MB; returns the file."""
    path = f"{os.path.dirname(engine.data_root)}/filler"
    found = os.statvfs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(bytes(found.f_bavail * found.f_frsize - (4 << 20)))
    return path


def left(engine: EngineProcess) -> dict[str, list[str]]:
    """What lies about where things are copied, but for what is made ahead for new containers."""
    found = {}
    for name in ("points", "trash"):
        found[name] = os.listdir(f"{engine.data_root}/{name}")
    staging = f"{engine.data_root}/staging"
    found["staging"] = [
        name
        for name in os.listdir(staging)
        if os.path.exists(f"{staging}/{name}/file") or os.path.exists(f"{staging}/{name}/data")
    ]
    return found


NOTHING: dict[str, list[str]] = {"points": [], "trash": [], "staging": []}


def test_snapshot_and_clone_of_a_running_container(small: EngineProcess) -> None:
    docker, pier = small.docker, small.pier
    filler = fill(small)
    for words in (("snapshot", "writer", "one"), ("clone", "writer", "copy")):
        done = pier(*words, check=False)
        assert done.returncode == 1
        assert "no space left on device" in done.stderr.lower()
        assert docker("inspect", "-f", "{{.State.Status}}", "writer").stdout == "running\n"
        assert pier("snapshot", "--list", "writer").stdout == ""
        assert docker("ps", "-aq").stdout.count("\n") == 1
        assert left(small) == NOTHING
    os.unlink(filler)
    pier("snapshot", "writer", "one")
    docker("rm", "-f", "writer")


def test_volumes(small: EngineProcess, tmp_path: Path) -> None:
    docker, pier = small.docker, small.pier
    script = f"head -c {DATA} /dev/urandom > /data/file"
    docker("run", "--rm", "-v", "first:/data", "--network", "none", NAME, "sh", "-c", script)
    backup = str(tmp_path / "backup.tar")
    pier("volume", "backup", "first", backup)
    filler = fill(small)
    for words in (("clone", "first", "second"), ("restore", "second", backup)):
        done = pier("volume", *words, check=False)
        assert done.returncode == 1
        assert "no space left on device" in done.stderr.lower()
        assert docker("volume", "ls", "-q").stdout == "first\n"
        assert left(small) == NOTHING
    os.unlink(filler)
    pier("volume", "restore", "second", backup)
    assert docker("volume", "ls", "-q").stdout == "first\nsecond\n"
    docker("rm", "-f", "writer")


def test_what_is_written_back(small: EngineProcess, tmp_path: Path) -> None:
    """A file that does not fit is not there, and the one that it should replace still is."""
    docker, pier = small.docker, small.pier
    host = tmp_path / "host"
    host.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", host], check=True)
    try:
        (host / "b").write_text("old\n")
        script = "echo new > /h/a; head -c 8000000 /dev/urandom > /h/b; echo new > /h/c"
        docker(
            "run",
            "--name",
            "cow",
            "--network",
            "none",
            "-v",
            f"{host}:/h:cow",
            NAME,
            "sh",
            "-c",
            script,
        )
        done = pier("apply", "cow", check=False)
        assert done.returncode == 1
        assert "no space left on device" in done.stderr.lower()
        assert sorted(os.listdir(host)) == ["a", "b"]
        assert (host / "b").read_text() == "old\n"
        assert pier("diff", "cow").stdout.splitlines()[-2:] == ["C /h/b", "A /h/c"]
        docker("rm", "-f", "cow", "writer")
    finally:
        subprocess.run(["umount", host], check=True)
