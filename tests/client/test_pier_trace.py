"""`pier run --trace` and `pierd --trace-dir`: where the time of a start went."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import EngineProcess, wait_until

pytestmark = pytest.mark.usefixtures("image")

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def own() -> Iterator[EngineProcess]:
    """A pierd that is not started yet and that nobody else uses."""
    running = EngineProcess()
    with contextlib.closing(running):
        yield running


def events(path: Path) -> dict[str, dict[str, Any]]:
    """The complete events by the name of their process and their own."""
    document = json.loads(path.read_text())
    names = {
        e["pid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"
    }
    found: dict[str, dict[str, Any]] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            found.setdefault(names[event["pid"]], {})[event["name"]] = event
    return found


def test_every_process_of_a_start_is_in_the_trace(pierd: EngineProcess, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    pierd.pier(*RUN, "--trace", str(file), NAME, "true")
    found = events(file)
    assert set(found) == {"pier", "API", "pierd", "keeper", "container's first process"}
    assert {"create", "attach", "wait", "start"} <= found["pier"].keys()
    assert found["API"].keys() == {"create", "attach", "wait", "start"}
    assert {"rootfs", "mount /proc", "seccomp", "execve"} <= found[
        "container's first process"
    ].keys()
    request, inside = found["pier"]["start"], found["container's first process"]["execve"]
    assert request["ts"] <= inside["ts"] <= request["ts"] + request["dur"]
    # Of one clock: it was removed after it had run.
    assert found["pierd"]["container is removed"]["ts"] > inside["ts"]


def test_a_detached_container_is_traced_up_to_its_start(
    pierd: EngineProcess, tmp_path: Path
) -> None:
    file = tmp_path / "trace.json"
    pierd.pier(
        "run",
        "-d",
        "--name",
        "traced",
        "--network",
        "none",
        "--trace",
        str(file),
        NAME,
        "sleep",
        "9",
    )
    found = events(file)
    assert "start is recorded" in found["pierd"]
    assert "exit is recorded" not in found["pierd"]
    pierd.pier("rm", "-f", "traced")


def test_a_start_that_fails_leaves_its_trace(pierd: EngineProcess, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    done = pierd.pier(*RUN, "--trace", str(file), NAME, "/nothing", check=False)
    assert done.returncode == 127
    assert "waits for the keeper's start" in events(file)["pierd"]


def test_without_it_nothing_is_traced(pierd: EngineProcess) -> None:
    identifier = pierd.pier("run", "-d", "--network", "none", NAME, "true").stdout.strip()
    done = pierd.docker("inspect", "-f", "{{.HostConfig.Annotations}}", identifier)
    assert "pier.trace" not in done.stdout
    pierd.pier("rm", "-f", identifier)


def test_a_file_that_cannot_be_written_is_told_before_the_start(
    pierd: EngineProcess, tmp_path: Path
) -> None:
    path = str(tmp_path / "gone" / "trace.json")
    done = pierd.pier("run", "--name", "traced", "--trace", path, NAME, "true", check=False)
    assert done.returncode != 0
    assert f"failed to write the trace to {path}: No such file or directory" in done.stderr
    assert not pierd.docker("ps", "-aq", "--filter", "name=traced").stdout


@pytest.mark.parametrize("value", ["yes", ""])
def test_a_wrong_annotation_is_refused(pierd: EngineProcess, value: str) -> None:
    done = pierd.docker("create", "--annotation", f"pier.trace={value}", NAME, "true", check=False)
    assert f"invalid pier.trace '{value}': use true or false" in done.stderr


def test_a_daemon_that_traces_every_start(own: EngineProcess, tmp_path: Path) -> None:
    own.start("--trace-dir", str(tmp_path))
    own.docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))
    own.docker(*RUN, NAME, "true")
    wait_until(lambda: list(tmp_path.glob("*.json")), "the trace is written")
    (file,) = tmp_path.glob("*.json")
    wait_until(
        lambda: "bundle is removed" in events(file).get("pierd", {}), "the whole run is there"
    )
    assert "execve" in events(file)["container's first process"]
