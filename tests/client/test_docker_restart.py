"""pierd ends, by SIGTERM or SIGKILL, and comes back: the containers notice nothing."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from engine_process import Client, EngineProcess, wait_until

COUNT = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"


@pytest.fixture(autouse=True)
def _running_again(pierd: EngineProcess) -> Iterator[None]:
    """Leave a running engine to the tests that follow."""
    yield
    if not pierd.calls.answers():
        pierd.kill()
        pierd.start()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_container_runs_on(pierd: EngineProcess, docker: Client, image: str, end: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", COUNT)
    before = docker("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "it").stdout
    getattr(pierd, end)()
    assert os.path.exists(f"/proc/{before.split()[0]}")
    pierd.start()
    assert docker("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "it").stdout == before
    count = len(docker("logs", "it").stdout.split())
    wait_until(lambda: len(docker("logs", "it").stdout.split()) > count, "it goes on writing")
    numbers = docker("logs", "it").stdout.split()
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert docker("exec", "it", "echo", "alive").stdout == "alive\n"
    docker("stop", "-t", "1", "it")
    assert docker("inspect", "-f", "{{.State.Status}}", "it").stdout == "exited\n"


def test_attached_stream_goes_on(pierd: EngineProcess, docker: Client, image: str) -> None:
    script = "echo first; while ! test -e /go; do sleep 0.05; done; echo last"
    docker("create", "--name", "it", image, "sh", "-c", script)
    client = docker.popen("start", "-a", "it")
    try:
        assert client.stdout
        assert client.stdout.readline() == b"first\n"
        # The keeper's words reach the client before pierd has answered the start.
        wait_until(
            lambda: docker("inspect", "-f", "{{.State.Running}}", "it").stdout == "true\n",
            "the start is acknowledged",
        )
        pierd.kill()
        pierd.start()
        docker("exec", "it", "touch", "/go")
        assert client.stdout.readline() == b"last\n"
    finally:
        client.kill()
        client.communicate()


def test_exit_while_away_is_known(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "sleep 0.5; exit 7")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "it").stdout.strip()
    pierd.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the container ends")
    pierd.start()
    shown = docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "it").stdout
    assert shown == "exited 7\n"
    assert docker("wait", "it").stdout == "7\n"


def test_auto_removal_is_made_up_for(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--rm", "--name", "it", image, "sleep", "0.5")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "it").stdout.strip()
    pierd.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the container ends")
    pierd.start()
    wait_until(lambda: not docker("ps", "-aq").stdout, "the container is removed")


def test_restart_policy_is_made_up_for(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", "--restart", "always", image, "sleep", "1")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "it").stdout.strip()
    pierd.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the container ends")
    pierd.start()
    wait_until(
        lambda: docker("inspect", "-f", "{{.State.Running}}", "it").stdout == "true\n",
        "it runs again",
    )


def test_stopped_and_created_ones_are_remembered(
    pierd: EngineProcess, docker: Client, image: str
) -> None:
    docker("create", "--name", "new", "-l", "a=b", image, "echo", "started later")
    docker("run", "--name", "old", image, "sh", "-c", "echo kept; exit 5", check=False)
    pierd.restart()
    assert set(docker("ps", "-a", "--format", "{{.Names}}").stdout.split()) == {"new", "old"}
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "old").stdout == "5\n"
    assert docker("logs", "old").stdout == "kept\n"
    assert docker("start", "-a", "new").stdout == "started later\n"


def test_killed_keeper_is_told_in_the_state(
    pierd: EngineProcess, docker: Client, image: str
) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "300")
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", "it").stdout)
    os.kill(_parent(pid), signal.SIGKILL)
    wait_until(
        lambda: docker("inspect", "-f", "{{.State.Running}}", "it").stdout == "false\n",
        "the engine sees it",
    )
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "nothing of it runs on")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "it").stdout != "0\n"
    docker("start", "it")


def test_killed_zygote_is_replaced(pierd: EngineProcess, docker: Client, image: str) -> None:
    for child in _children(pierd.pid):
        os.kill(child, signal.SIGKILL)
    assert docker("run", "--rm", image, "echo", "again").stdout == "again\n"


def test_second_engine_on_the_same_roots_is_refused(pierd: EngineProcess, docker: Client) -> None:
    command = [pierd.command, "-H", f"unix://{pierd.directory}/other.sock"]
    roots = ["--data-root", pierd.data_root, "--exec-root", f"{pierd.directory}/other"]
    done = subprocess.run(
        [*command, *roots], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert pierd.data_root in done.stderr
    docker("version")


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]
