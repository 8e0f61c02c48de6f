"""Health checks: the states, the log, and what follows from them."""

import json
import subprocess
import time
from typing import Any

import pytest

from busybox_image import docker_archive, root_tar
from engine_process import Client, EngineProcess, wait_until

EVERY = ("--health-interval", "100ms")


def health(docker: Client, name: str) -> dict[str, Any]:
    found = docker("inspect", "-f", "{{json .State.Health}}", name).stdout
    return dict(json.loads(found))


def now() -> str:
    """The end of a history: `0s` would be the last full second."""
    return f"{time.time():.9f}"


def wait_health(docker: Client, name: str, status: str) -> None:
    wait_until(lambda: health(docker, name)["Status"] == status, f"{name} is {status}")


def test_it_follows_what_the_command_says(docker: Client, image: str) -> None:
    docker("run", "-d", "--network", "none", "--name", "h1", *EVERY, "--health-retries", "2",
           "--health-cmd", "echo looked; test -e /tmp/ok", image, "sleep", "60")  # fmt: skip
    wait_health(docker, "h1", "unhealthy")
    assert health(docker, "h1")["Log"][-1]["ExitCode"] == 1
    assert "(unhealthy)" in docker("ps", "--filter", "name=h1").stdout
    docker("exec", "h1", "touch", "/tmp/ok")
    wait_health(docker, "h1", "healthy")
    found = health(docker, "h1")
    assert found["FailingStreak"] == 0
    assert found["Log"][-1]["Output"] == "looked\n"
    assert len(found["Log"]) <= 5
    listed = docker("ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}").stdout
    assert listed.startswith("h1 Up")
    assert listed.strip().endswith("(healthy)")
    events = docker(
        "events", "--since", "1m", "--until", now(), "--filter", "container=h1",
        "--filter", "event=health_status", "--format", "{{.Action}}",
    ).stdout.splitlines()  # fmt: skip
    assert events == ["health_status: unhealthy", "health_status: healthy"]


def test_a_slow_probe_is_killed(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "h2", *EVERY, "--health-retries", "1", "--health-timeout",
           "200ms", "--health-cmd", "echo slow; sleep 4711", image, "sleep", "60")  # fmt: skip
    wait_health(docker, "h2", "unhealthy")
    last = health(docker, "h2")["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"] == "Health check exceeded timeout (200ms): slow\n"
    # Between two probes; one that was not killed would be there for good.
    wait_until(lambda: "sleep 4711" not in docker("top", "h2", "-eo", "pid,args").stdout, "its end")


def test_a_command_that_is_not_there(docker: Client, image: str) -> None:
    archive = docker_archive(
        "pier-test/sick:latest",
        [root_tar()],
        {"Healthcheck": {"Test": ["CMD", "/nowhere"], "Interval": 100_000_000, "Retries": 1}},
    )
    docker.raw("load", stdin=archive)
    docker("run", "-d", "--name", "h3", "pier-test/sick", "sleep", "60")
    wait_health(docker, "h3", "unhealthy")
    last = health(docker, "h3")["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"].startswith("OCI runtime exec failed: exec failed: unable to start")
    # The request's fields win over the image's, one by one.
    docker("run", "-d", "--name", "h4", "--health-retries", "7", "pier-test/sick", "sleep", "60")
    merged = docker("inspect", "-f", "{{json .Config.Healthcheck}}", "h4").stdout
    assert json.loads(merged) == {
        "Test": ["CMD", "/nowhere"],
        "Interval": 100_000_000,
        "Retries": 7,
    }
    docker("run", "-d", "--name", "h5", "--no-healthcheck", "pier-test/sick", "sleep", "60")
    assert docker("inspect", "-f", "{{.State}}", "h5").stdout
    assert "health" not in docker("ps", "--filter", "name=h5").stdout


def test_not_probed_is_unhealthy(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "h6", *EVERY, "--health-cmd", "true", image, "sleep", "60")
    wait_health(docker, "h6", "healthy")
    docker("pause", "h6")
    assert health(docker, "h6")["Status"] == "unhealthy"
    docker("unpause", "h6")
    wait_health(docker, "h6", "healthy")
    docker("stop", "-t", "0", "h6")
    assert health(docker, "h6")["Status"] == "unhealthy"


def test_pierd_is_restarted(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "h7", *EVERY, "--health-cmd", "true", image, "sleep", "60")
    wait_health(docker, "h7", "healthy")
    pierd.restart()
    assert health(docker, "h7")["Status"] == "healthy"
    before = health(docker, "h7")["Log"][-1]["Start"]
    wait_until(lambda: health(docker, "h7")["Log"][-1]["Start"] > before, "probing goes on")


# From outside

OUTSIDE = [
    ("pier.health-http=:8080/index.html", 0),
    ("pier.health-http=:8080/missing", 1),
    ("pier.health-tcp=8080", 0),
    ("pier.health-tcp=8081", 1),
]


@pytest.mark.parametrize(("option", "code"), OUTSIDE)
def test_probes_from_outside(
    pierd: EngineProcess, docker: Client, image: str, option: str, code: int
) -> None:
    docker("run", "-d", "--name", "o1", *EVERY, "--health-retries", "1",
           "--health-start-period", "1h", "--health-start-interval", "50ms",
           "--annotation", option, image,
           "sh", "-c", "echo hi > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")  # fmt: skip
    wait_until(
        lambda: any(probe["ExitCode"] == code for probe in health(docker, "o1")["Log"]),
        f"a probe ends with {code}",
    )
    events = docker("events", "--since", "1m", "--until", now(), "--filter", "container=o1").stdout
    assert "exec_create" not in events


def test_unix_socket_below_the_containers_root(
    pierd: EngineProcess, docker: Client, image: str
) -> None:
    # An absolute link of the container's must not lead to the host's file of that name.
    docker("run", "-d", "--name", "o2", *EVERY, "--health-retries", "1",
           "--annotation", "pier.health-unix=/run-link/app.sock", image,
           "sh", "-c", f"ln -s {pierd.directory} /run-link; sleep 60")  # fmt: skip
    wait_health(docker, "o2", "unhealthy")


ACTIONS = [("kill", "exited"), ("stop", "exited"), ("none", "running")]


@pytest.mark.parametrize(("action", "status"), ACTIONS)
def test_on_failure(
    pierd: EngineProcess, docker: Client, image: str, action: str, status: str
) -> None:
    docker("run", "-d", "--init", "--name", "failing1", *EVERY, "--health-retries", "1",
           "--annotation", f"pier.health-on-failure={action}", "--health-cmd", "false",
           image, "sleep", "60")  # fmt: skip
    wait_health(docker, "failing1", "unhealthy")
    state = ["inspect", "-f", "{{.State.Status}}", "failing1"]
    wait_until(lambda: docker(*state).stdout.strip() == status, f"failing1 is {status}")


def test_restart_on_failure(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--init", "--name", "failing2", *EVERY, "--health-retries", "1",
           "--annotation", "pier.health-on-failure=restart", "--health-cmd", "test -e /tmp/ok",
           image, "sh", "-c", "test -e /tmp/was && touch /tmp/ok; touch /tmp/was; sleep 60")  # fmt: skip
    wait_health(docker, "failing2", "healthy")
    events = docker(
        "events", "--since", "1m", "--until", now(), "--filter", "container=failing2"
    ).stdout
    assert "container restart" in events


# Time limits

LIMITS = ["pier.timeout=300ms", "pier.idle-timeout=400ms"]


@pytest.mark.parametrize("option", LIMITS)
def test_a_limit_stops_it(pierd: EngineProcess, docker: Client, image: str, option: str) -> None:
    started = docker.popen("run", "--network", "none", "--init", "--name", "t1", "--annotation", option, image,
                           "sleep", "60")  # fmt: skip
    try:
        assert started.wait(30) == 143
    except subprocess.TimeoutExpired:
        started.kill()
        raise
    finally:
        started.communicate()
    events = docker(
        "events", "--since", "1m", "--until", now(), "--filter", "container=t1",
        "--format", "{{.Action}}",
    ).stdout.splitlines()  # fmt: skip
    name = option.removeprefix("pier.").partition("=")[0]
    assert name in events


def test_a_limit_survives_a_restart_of_pierd(
    pierd: EngineProcess, docker: Client, image: str
) -> None:
    docker("run", "-d", "--init", "--name", "t3", "--annotation", "pier.timeout=2s", image,
           "sleep", "60")  # fmt: skip
    pierd.restart()
    assert docker("wait", "t3").stdout.strip() == "143"


def test_what_works_is_not_idle(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--network", "none", "--init", "--name", "t2", "--annotation", "pier.idle-timeout=300ms",
           image, "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exit 3")  # fmt: skip
    assert docker("wait", "t2").stdout.strip() == "3"
