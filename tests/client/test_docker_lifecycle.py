"""The states of a container and the verbs that move it between them."""

import json
import os
import re
import time

import pytest

from engine_process import Client, wait_until

TRAP = (
    "trap 'echo got TERM; exit 3' TERM; trap 'echo got USR1' USR1; echo ready; "
    "while :; do sleep 0.1; done"
)


def state(docker: Client, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(docker("inspect", "-f", "{{json .State}}", name).stdout)
    return found


def wait_ready(docker: Client, name: str) -> None:
    wait_until(lambda: "ready" in docker("logs", name).stdout, f"{name} is ready")


def test_stop_sends_the_stop_signal(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", TRAP)
    wait_ready(docker, "it")
    docker("stop", "it")
    assert state(docker, "it")["ExitCode"] == 3
    assert docker("logs", "it").stdout == "ready\ngot TERM\n"


def test_stop_kills_after_the_timeout(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "trap '' TERM; echo ready; sleep 60")
    wait_ready(docker, "it")
    docker("stop", "-t", "1", "it")
    found = state(docker, "it")
    assert (found["Status"], found["ExitCode"]) == ("exited", 137)


def test_stop_signal_of_the_container(docker: Client, image: str) -> None:
    docker(
        *("run", "-d", "--name", "it", "--stop-signal", "USR2", image),
        *("sh", "-c", "trap 'exit 9' USR2; echo ready; while :; do sleep 0.1; done"),
    )
    wait_ready(docker, "it")
    docker("stop", "it")
    assert state(docker, "it")["ExitCode"] == 9


def test_stop_of_a_stopped_one_is_nothing(docker: Client, image: str) -> None:
    docker("run", "--name", "it", image, "true")
    docker("stop", "it")


def test_kill_with_a_signal(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", TRAP)
    wait_ready(docker, "it")
    docker("kill", "-s", "USR1", "it")
    wait_until(lambda: "got USR1" in docker("logs", "it").stdout, "the signal arrives")
    assert state(docker, "it")["Running"]
    docker("kill", "it")
    docker("wait", "it")
    assert state(docker, "it")["ExitCode"] == 137


def test_wait_prints_the_exit_code(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "sleep 0.3; exit 6")
    assert docker("wait", "it").stdout == "6\n"
    assert docker("wait", "it").stdout == "6\n"


def test_restart(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "echo again; sleep 60")
    first = state(docker, "it")["Pid"]
    docker("restart", "-t", "0", "it")
    found = state(docker, "it")
    assert found["Running"]
    assert found["Pid"] != first
    wait_until(lambda: docker("logs", "it").stdout == "again\nagain\n", "it ran twice")


def test_pause_and_unpause(docker: Client, image: str) -> None:
    counting = "while :; do echo x >>/count; sleep 0.02; done"
    docker("run", "-d", "--name", "it", image, "sh", "-c", counting)
    docker("pause", "it")
    assert state(docker, "it")["Paused"]
    assert "(Paused)" in docker("ps", "--format", "{{.Status}}").stdout
    docker("unpause", "it")
    assert state(docker, "it")["Status"] == "running"

    def lines() -> int:
        return int(docker("exec", "it", "sh", "-c", "wc -l </count").stdout)

    before = lines()
    wait_until(lambda: lines() > before, "it counts again")


def test_stop_a_paused_one(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    docker("pause", "it")
    docker("stop", "-t", "1", "it")
    assert state(docker, "it")["Status"] == "exited"


def test_rename(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "before", image, "sleep", "60")
    docker("rename", "before", "after")
    assert docker("ps", "--format", "{{.Names}}").stdout == "after\n"
    docker("create", "--name", "before", image)


def test_remove_by_force(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    pid = state(docker, "it")["Pid"]
    docker("rm", "-f", "it")
    assert docker("ps", "-aq").stdout == ""
    with pytest.raises(FileNotFoundError):
        open(f"/proc/{pid}/stat").close()


def test_top(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "sleep 61 & sleep 62; true")
    wait_until(lambda: "sleep 61" in docker("top", "it").stdout, "both run")
    header, *rows = docker("top", "it").stdout.splitlines()
    assert header.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert len(rows) == 3
    header, *rows = docker("top", "it", "-o", "pid,args").stdout.splitlines()
    assert header.split() == ["PID", "COMMAND"]
    assert str(state(docker, "it")["Pid"]) in [row.split()[0] for row in rows]


def test_times_and_state_of_a_finished_one(docker: Client, image: str) -> None:
    docker("run", "--name", "it", image, "sh", "-c", "exit 4", check=False)
    found = state(docker, "it")
    assert found["Status"] == "exited"
    assert found["Pid"] == 0
    assert re.match(r"\d{4}-\d\d-\d\dT", str(found["StartedAt"]))
    assert str(found["FinishedAt"]) >= str(found["StartedAt"])


def test_everything_ends_with_process_one(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "sleep 7777 & sleep 0.2")
    docker("wait", "it")
    wait_until(lambda: not _running(b"sleep\0007777\0"), "nothing of it runs")


def _running(command_line: bytes) -> bool:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if file.read() == command_line:
                        return True
            except OSError:
                continue
    return False


@pytest.mark.parametrize(
    ("policy", "code", "restarts"), [("on-failure:2", 1, 2), ("on-failure", 0, 0), ("no", 1, 0)]
)
def test_restart_policy_that_ends(
    docker: Client, image: str, policy: str, code: int, restarts: int
) -> None:
    docker("run", "-d", "--name", "it", "--restart", policy, image, "sh", "-c", f"exit {code}")

    def ended() -> bool:
        found = docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "it").stdout
        return found == f"exited {restarts}\n"

    wait_until(ended, f"{restarts} restarts, then the end")


def test_restart_always_until_it_is_stopped(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", "--restart", "always", image, "sh", "-c", "sleep 0.1")
    wait_until(
        lambda: int(docker("inspect", "-f", "{{.RestartCount}}", "it").stdout) >= 2, "two restarts"
    )
    docker("stop", "it")
    assert state(docker, "it")["Status"] == "exited"
    count = docker("inspect", "-f", "{{.RestartCount}}", "it").stdout
    time.sleep(0.5)
    assert docker("inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "it").stdout == (
        f"{count.strip()} false\n"
    )


def test_container_prune(docker: Client, image: str) -> None:
    docker("run", "--name", "ended", image, "true")
    docker("run", "-d", "--name", "alive", image, "sleep", "60")
    assert "Deleted Containers:" in docker("container", "prune", "-f").stdout
    assert docker("ps", "-a", "--format", "{{.Names}}").stdout == "alive\n"
