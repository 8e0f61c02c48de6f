"""Volume drivers by Docker's plugin protocol, with a small real one that outlives pierd."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from busybox_image import NAME
from engine_process import EngineProcess, wait_until

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "volume_driver.py")


class Driver:
    """The driver's own directory, and its process."""

    def __init__(self, plugins: Path, home: Path) -> None:
        self.home = home
        command = [sys.executable, SCRIPT, str(plugins / "shelf.sock"), str(home)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def calls(self, verb: str) -> int:
        return (self.home / "calls").read_text().count(f"VolumeDriver.{verb} ")

    def mounted(self) -> list[str]:
        return os.listdir(self.home / "mounted")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def plugins(engine: EngineProcess) -> Path:
    """Pierd looks for plugins in one directory, which is empty."""
    directory = Path(engine.directory, "plugins")
    directory.mkdir()
    engine.stop()
    engine.start("--plugin-dir", str(directory))
    return directory


@pytest.fixture
def driver(plugins: Path, tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(plugins, tmp_path)
    yield driver
    driver.close()


def test_life(engine: EngineProcess, driver: Driver) -> None:
    docker = engine.docker
    assert docker("volume", "create", "-d", "shelf", "-o", "a=b", "vol").stdout == "vol\n"
    write = docker("run", "--rm", "-v", "vol:/v", NAME, "sh", "-c", "echo kept > /v/file")
    assert write.stderr == ""
    assert (driver.home / "volumes" / "vol" / "file").read_text() == "kept\n"
    wait_until(lambda: driver.mounted() == [], "it was unmounted")
    shown = json.loads(docker("volume", "inspect", "vol").stdout)[0]
    assert (shown["Driver"], shown["Scope"], shown["Options"]) == ("shelf", "global", {"a": "b"})
    assert shown["Status"] == {"health": "good"}
    assert shown["Mountpoint"] == ""
    listed = docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").stdout
    assert listed == "shelf vol\n"
    assert docker("volume", "prune", "--all", "--force").stdout == "Total reclaimed space: 0B\n"
    assert docker("volume", "rm", "vol").stdout == "vol\n"
    assert os.listdir(driver.home / "volumes") == []
    assert docker("volume", "ls", "-q").stdout == ""
    assert "Volume: local shelf" in docker("info").stdout


def test_containers_share_it(engine: EngineProcess, driver: Driver) -> None:
    docker = engine.docker
    mount = "type=volume,src=shared,dst=/v,volume-driver=shelf,volume-opt=x=y"
    for name in ("one", "two"):
        docker("run", "-d", "--name", name, "--mount", mount, NAME, "sleep", "600")
    docker("exec", "one", "sh", "-c", "echo word > /v/file")
    assert docker("exec", "two", "cat", "/v/file").stdout == "word\n"
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", "one").stdout)[0]
    assert (shown["Driver"], shown["Source"]) == ("shelf", str(driver.home / "mounted/shared"))
    refused = docker("volume", "rm", "shared", check=False)
    assert "volume is in use" in refused.stderr
    docker("rm", "-f", "one")
    assert docker("exec", "two", "cat", "/v/file").stdout == "word\n"
    assert driver.mounted() == ["shared"]
    docker("stop", "-t", "0", "two")
    wait_until(lambda: driver.mounted() == [], "the last one gave it up")
    docker("cp", "two:/v/file", f"{engine.directory}/copied")
    assert Path(engine.directory, "copied").read_text() == "word\n"
    wait_until(lambda: driver.mounted() == [], "the copy gave it up")
    docker("run", "--rm", "--volume-driver", "shelf", "-v", "/anonymous", NAME, "true")
    wait_until(lambda: os.listdir(driver.home / "volumes") == ["shared"], "it went with --rm")


def test_what_its_driver_lost_is_made_anew(engine: EngineProcess, driver: Driver) -> None:
    docker = engine.docker
    for before, after in (("shelf", "shelf"), ("shelf", "local")):
        docker("volume", "create", "-d", before, "vol")
        (driver.home / "volumes" / "vol").rmdir()
        docker("volume", "create", "-d", after, "vol")
        assert docker("volume", "inspect", "-f", "{{.Driver}}", "vol").stdout == f"{after}\n"
        docker("volume", "rm", "vol")
    docker("volume", "create", "-d", "shelf", "vol")
    docker("create", "--name", "user", "-v", "vol:/not/in/image", NAME)
    assert driver.calls("Mount") == 0, "there is nothing to copy into it"
    (driver.home / "volumes" / "vol").rmdir()
    done = docker("volume", "create", "vol", check=False)
    assert (
        "found references to volume 'vol' in driver 'shelf' but the volume was not" in done.stderr
    )


def test_refusals(engine: EngineProcess, driver: Driver, plugins: Path) -> None:
    docker = engine.docker
    said = "Error response from daemon: "
    done = docker("volume", "create", "-d", "shelf", "-o", "colour=red", "vol", check=False)
    assert done.stderr == f"{said}create vol: VolumeDriver.Create: no such option: colour\n"
    done = docker("volume", "create", "-d", "other", "vol", check=False)
    lost = 'error looking up volume plugin other: plugin "other" not found'
    assert done.stderr == f"{said}create vol: {lost}\n"
    done = docker("volume", "inspect", "nope", check=False)
    assert "get nope: no such volume" in done.stderr
    docker("volume", "create", "-d", "shelf", "-o", "broken=1", "vol")
    done = docker("volume", "create", "-d", "local", "vol", check=False)
    taken = "driver 'shelf' already has volume 'vol': volume name must be unique"
    assert done.stderr == f"{said}create vol: {taken}\n"
    done = docker(
        "run", "--rm", "--volume-driver", "other", "-v", "new:/v", NAME, "true", check=False
    )
    assert f"create new: {lost}" in done.stderr
    assert "Unable to find image" not in done.stderr
    done = docker("run", "--rm", "-v", "vol:/v", NAME, "true", check=False)
    assert done.returncode == 125
    assert "error while mounting volume '': VolumeDriver.Mount: it is broken" in done.stderr
    assert docker("ps", "-aq").stdout == ""
    driver.close()
    done = docker("volume", "inspect", "vol", check=False)
    assert "shelf.sock" in done.stderr
    assert docker("volume", "ls", "-q").stdout == "vol\n", "what is known is told without it"


def test_found_by_spec(engine: EngineProcess, driver: Driver, plugins: Path) -> None:
    (plugins / "byspec.spec").write_text(f"unix://{plugins}/shelf.sock\n")
    (plugins / "byjson.json").write_text(
        json.dumps({"Name": "byjson", "Addr": f"unix://{plugins}/shelf.sock"})
    )
    for name in ("byspec", "byjson"):
        engine.docker("volume", "create", "-d", name, f"vol-{name}")
        engine.docker("volume", "rm", f"vol-{name}")
    assert driver.calls("Create") == driver.calls("Remove") == 2


def test_killed(engine: EngineProcess, driver: Driver, plugins: Path) -> None:
    """Whoever goes on keeps it; of who ended meanwhile the driver is told."""
    for name in ("kept", "left"):
        engine.docker("volume", "create", "-d", "shelf", name)
        engine.docker("run", "-d", "--name", name, "-v", f"{name}:/v", NAME, "sleep", "600")
    pid = int(engine.docker("inspect", "--format", "{{.State.Pid}}", "left").stdout)
    engine.kill()
    os.kill(pid, 9)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the container has ended")
    engine.start("--plugin-dir", str(plugins))
    wait_until(lambda: driver.mounted() == ["kept"], "the other one is unmounted")
    engine.docker("exec", "kept", "touch", "/v/file")
    engine.docker("rm", "-f", "kept")
    wait_until(lambda: driver.mounted() == [], "it is unmounted")
    assert os.listdir(driver.home / "volumes/kept") == ["file"]
