"""`pier volume backup`, `restore`, `clone` and `rename`."""

import json
import os
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pexpect
import pytest

from engine_process import EngineProcess

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("PIER_TEST_HOST")), reason="Pier's own: another engine has no such thing"
)
FILL = (
    "cd /v; echo word > file; chown 12:34 file; chmod 4750 file; mkdir -p a/b; ln file a/hard;"
    " ln -s ../file a/soft; mkfifo a/fifo; chmod 2711 /v; touch -d '2020-01-02 03:04:05' a/b"
)
LOOK = (
    "cd /v; find . | sort | while read n; do stat -c '%n %u %g %a %h %F' $n; done; cat a/hard;"
    " readlink a/soft; stat -c %Y a/b"
)


@pytest.fixture
def volume(engine: EngineProcess, image: str) -> Iterator[str]:
    name = f"keep-{uuid.uuid4().hex[:6]}"
    engine.docker("volume", "create", "--label", "a=b", name)
    engine.docker("run", "--rm", "-v", f"{name}:/v", image, "sh", "-c", FILL)
    yield name
    engine.remove_containers()
    found = engine.docker("volume", "ls", "-q", "--filter", f"name={name}").stdout.split()
    engine.docker("volume", "rm", *found)


def look(engine: EngineProcess, image: str, name: str) -> str:
    return engine.docker("run", "--rm", "-v", f"{name}:/v", image, "sh", "-c", LOOK).stdout


def test_backup_and_restore(engine: EngineProcess, image: str, volume: str) -> None:
    pier = engine.pier
    path = f"{engine.directory}/{volume}.tar"
    file = f"{engine.data_root}/volumes/{volume}/_data/file"
    os.setxattr(file, "user.note", b"kept")
    pier("volume", "backup", volume, path)
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert names[:2] == ["volume.json", "data"]
    new = f"{volume}-restored"
    assert pier("volume", "restore", new, path).stdout == f"{new}\n"
    assert look(engine, image, new) == look(engine, image, volume)
    restored = f"{engine.data_root}/volumes/{new}/_data/file"
    assert os.getxattr(restored, "user.note") == b"kept"
    labels = engine.docker("volume", "inspect", "-f", "{{json .Labels}}", new).stdout
    assert json.loads(labels) == {"a": "b"}
    piped = engine.pier.raw("volume", "backup", volume, "-").stdout
    engine.pier.raw("volume", "restore", f"{volume}-piped", "-", stdin=piped)
    assert look(engine, image, f"{volume}-piped") == look(engine, image, volume)


def test_clone(engine: EngineProcess, image: str, volume: str) -> None:
    new = f"{volume}-clone"
    assert engine.pier("volume", "clone", volume, new).stdout == f"{new}\n"
    before = look(engine, image, volume)
    assert look(engine, image, new) == before
    engine.docker("run", "--rm", "-v", f"{new}:/v", image, "rm", "-r", "/v/a")
    assert look(engine, image, volume) == before


def test_of_another_file_system(engine: EngineProcess, image: str, volume: str) -> None:
    """One that is mounted while it is read; a clone is an ordinary volume."""
    device = f"{engine.directory}/{volume}-device"
    os.mkdir(device)
    bound = f"{volume}-bound"
    options = ["-o", "type=none", "-o", "o=bind", "-o", f"device={device}"]
    engine.docker("volume", "create", *options, bound)
    with open(f"{device}/file", "w") as file:
        file.write("there")
    engine.pier("volume", "clone", bound, f"{volume}-clone")
    path = f"{engine.data_root}/volumes/{volume}-clone/_data/file"
    with open(path) as file:
        assert file.read() == "there"
    assert not os.path.ismount(f"{engine.data_root}/volumes/{bound}/_data")


def test_containers_are_paused_meanwhile(engine: EngineProcess, image: str, volume: str) -> None:
    name = f"{volume}-user"
    engine.docker("run", "-d", "--name", name, "-v", f"{volume}:/v", image, "sleep", "600")
    since = f"{time.time():.6f}"
    for words in (["--no-pause"], []):
        engine.pier("volume", "clone", *words, volume, f"{volume}-{len(words)}")
    seen = engine.docker(
        "events", "--since", since, "--until", f"{time.time():.6f}", "--filter", f"container={name}",
        "--format", "{{.Action}}",
    ).stdout.split()  # fmt: skip
    assert seen == ["pause", "unpause"]


def test_rename(engine: EngineProcess, image: str, volume: str) -> None:
    docker, new = engine.docker, f"{volume}-renamed"
    running, stopped = f"{volume}-running", f"{volume}-stopped"
    docker("run", "-d", "--name", running, "-v", f"{volume}:/v", image, "sleep", "600")
    mount = f"type=volume,src={volume},dst=/v"
    docker("create", "--name", stopped, "--mount", mount, image, "cat", "/v/after")
    engine.pier("volume", "rename", volume, new)
    assert docker("exec", running, "sh", "-c", "echo seen > /v/after; cat /v/file").stdout == (
        "word\n"
    )
    assert docker("start", "-a", stopped).stdout == "seen\n"
    assert docker("volume", "inspect", volume, check=False).returncode == 1
    used = docker("volume", "rm", new, check=False)
    assert "volume is in use" in used.stderr
    shown = json.loads(docker("inspect", running).stdout)[0]
    assert shown["HostConfig"]["Binds"] == [f"{new}:/v"]
    assert shown["Mounts"][0]["Name"] == new
    docker("volume", "create", volume)
    assert docker("run", "--rm", "-v", f"{volume}:/v", image, "ls", "/v").stdout == ""


def test_refused(engine: EngineProcess, volume: str) -> None:
    pier = engine.pier
    path = f"{engine.directory}/{volume}.txt"
    with open(path, "w") as file:
        file.write("no archive")
    for words, text in (
        (["backup", "nope", path], "get nope: no such volume"),
        (["backup", volume, "/nowhere/file"], "no such file or directory"),
        (["restore", volume, path], f"volume {volume} exists already"),
        (["restore", f"{volume}-new", path], "not the backup of a volume"),
        (["restore", f"{volume}-new", "/nowhere"], "no such file or directory"),
        (["clone", "nope", f"{volume}-new"], "get nope: no such volume"),
        (["clone", volume, volume], f"volume {volume} exists already"),
        (["rename", volume, "a/b"], "includes invalid characters"),
        (["rename", volume, volume], f"volume {volume} exists already"),
    ):
        done = pier("volume", *words, check=False)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert pier("volume", "ls", "-q", "--filter", f"name={volume}").stdout == f"{volume}\n"


def test_progress_on_a_terminal(engine: EngineProcess, image: str, tmp_path: Path) -> None:
    """One line that goes at the end; without a terminal nothing is drawn."""
    docker, pier = engine.docker, engine.pier
    script = "head -c 30000000 /dev/urandom > /data/file"
    docker("run", "--rm", "-v", "metered:/data", image, "sh", "-c", script)
    backup = str(tmp_path / "backup.tar")
    assert pier("volume", "backup", "metered", backup).stderr == ""
    for words, shown in (
        (("backup", "metered", f"{backup}.2"), r"Backing up metered +[\d.]+[kM]?B"),
        (("restore", "restored", backup), r"Restoring restored +[\d.]+[kM]?B/30[\d.]*MB"),
    ):
        with closing(pier.terminal("volume", *words, columns=80)) as terminal:
            terminal.expect(shown)
            terminal.expect(pexpect.EOF)
            terminal.wait()
            assert terminal.exitstatus == 0
    docker("volume", "rm", "metered", "restored")
