"""`pier update --mount-add`: mounts for containers that exist, running or not."""

import json
import os
import uuid
from pathlib import Path

import pytest

from engine_process import EngineProcess

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("PIER_TEST_HOST")), reason="Pier's own: another engine has no such thing"
)


@pytest.fixture
def name(engine: EngineProcess, image: str) -> str:
    name = f"live-{uuid.uuid4().hex[:6]}"
    engine.docker("run", "-d", "--name", name, image, "sleep", "600")
    return name


def test_a_directory_of_a_running_container(
    engine: EngineProcess, name: str, tmp_path: Path
) -> None:
    docker, pier = engine.docker, engine.pier
    (tmp_path / "file").write_text("there\n")
    before = Path("/proc/self/mountinfo").read_text()
    pier("update", "--mount-add", f"type=bind,src={tmp_path},dst=/new/place", name)
    assert docker("exec", name, "cat", "/new/place/file").stdout == "there\n"
    docker("exec", name, "touch", "/new/place/made")
    assert (tmp_path / "made").exists()
    assert Path("/proc/self/mountinfo").read_text() == before
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", name).stdout)
    assert [(m["Source"], m["Destination"], m["RW"]) for m in shown] == [
        (str(tmp_path), "/new/place", True)
    ]
    docker("restart", "-t", "0", name)
    assert docker("exec", name, "cat", "/new/place/file").stdout == "there\n"


def test_read_only_files_and_volumes(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    docker, pier = engine.docker, engine.pier
    (tmp_path / "one").write_text("1\n")
    volume = f"{name}-volume"
    pier(
        "update", "--mount-add", f"type=bind,src={tmp_path}/one,dst=/one,ro",
        "--mount-add", f"type=volume,src={volume},dst=/volume", name,
    )  # fmt: skip
    assert docker("exec", name, "cat", "/one").stdout == "1\n"
    done = docker("exec", name, "sh", "-c", "echo 2 > /one", check=False)
    assert "Read-only file system" in done.stderr
    docker("exec", name, "touch", "/volume/file")
    assert "volume is in use" in docker("volume", "rm", volume, check=False).stderr
    docker("rm", "-f", name)
    docker("volume", "rm", volume)


def test_stopped(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    engine.docker("stop", "-t", "0", name)
    engine.pier("update", "--mount-add", f"type=bind,src={tmp_path},dst=/m", name)
    engine.docker("start", name)
    engine.docker("exec", name, "touch", "/m/file")
    assert (tmp_path / "file").exists()


def test_a_link_leads_nowhere_out(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "source").mkdir()
    engine.docker("exec", name, "ln", "-s", str(outside), "/link")
    engine.pier("update", "--mount-add", f"type=bind,src={tmp_path}/source,dst=/link/deep", name)
    assert os.listdir(outside) == []
    assert engine.docker("exec", name, "ls", f"{outside}").stdout == "deep\n"


def test_refused(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    engine.docker("exec", name, "ln", "-s", "/proc/sys", "/tricky")
    for mount, text in (
        ("type=bind,src=/nowhere,dst=/m", "bind source path does not exist: /nowhere"),
        (f"type=bind,src={tmp_path},dst=/proc/sys", "cannot be mounted because it is inside /proc"),
        (f"type=bind,src={tmp_path},dst=/tricky", "cannot be mounted because it is inside /proc"),
        (f"type=bind,src={tmp_path},dst=/", "destination can't be '/'"),
        ("type=tmpfs,dst=/m", "a mount of type tmpfs cannot be added"),
        ("type=volume,dst=/m", "a volume that is added needs a name"),
        (f"type=bind,src={tmp_path},dst=/m,bind-propagation=shared", "are not for mounts"),
    ):
        done = engine.pier("update", "--mount-add", mount, name, check=False)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert engine.docker("inspect", "-f", "{{json .Mounts}}", name).stdout == "[]\n"
    engine.pier("update", "--mount-add", f"type=bind,src={tmp_path},dst=/m", name)
    again = ["update", "--mount-add", f"type=bind,src={tmp_path},dst=/m", name]
    assert "Duplicate mount point: /m" in engine.pier(*again, check=False).stderr


RACE = """
mkdir -p /race/real /away; cd /race
while :; do
  ln -sfn /away swap; mv -T swap place 2>/dev/null; rm -rf place
  ln -sfn /proc/self swap; mv -T swap place; rm -f place
  ln -sfn ../../../../.. swap; mv -T swap place; rm -f place
  mkdir place
  rmdir place/inner 2>/dev/null
done
"""


def test_targets_that_a_process_swaps_meanwhile(
    engine: EngineProcess, image: str, tmp_path: Path
) -> None:
    """Wherever the target's path leads at that moment, it is in the container and not in procfs."""
    docker, pier = engine.docker, engine.pier
    (tmp_path / "mark").write_text("mark\n")
    before = Path("/proc/self/mountinfo").read_text()
    name = f"race-{uuid.uuid4().hex[:6]}"
    docker("run", "-d", "--name", name, image, "sh", "-c", RACE)
    added = 0
    for turn in range(40):
        mount = f"type=bind,src={tmp_path},dst=/race/place/inner{turn}"
        done = pier("update", "--mount-add", mount, name, check=False)
        added += done.returncode == 0
        assert not list(tmp_path.glob("inner*")), "the host's directory was taken for a target"
    docker("pause", name)
    pid = docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    inside = Path(f"/proc/{pid}/mountinfo").read_text()
    docker("unpause", name)
    targets = [line.split()[4] for line in inside.splitlines() if f"{tmp_path} " in line]
    assert added
    assert all(not target.startswith(("/proc", "/sys")) for target in targets), targets
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not [path for path in os.listdir("/") if path.startswith("inner")]
    docker("rm", "-f", name)
