"""`docker events`: what is told, in which order, with which attributes."""

import json
import os
import time
from typing import Any

import pytest
from classic_build import Build

from engine_process import Client, wait_until


def now() -> str:
    return f"{time.time():.9f}"


def between(docker: Client, since: str, *flags: str) -> list[dict[str, Any]]:
    shown = docker("events", "--since", since, "--until", now(), "--format", "{{json .}}", *flags)
    return [json.loads(line) for line in shown.stdout.splitlines()]


def actions(events: list[dict[str, Any]]) -> list[str]:
    """Return the containers' actions; networks and images are told apart by type."""
    return [event["Action"] for event in events if event["Type"] == "container"]


def test_run_and_remove(docker: Client, image: str) -> None:
    since = now()
    docker("run", "--rm", "--name", "it", image, "sh", "-c", "exit 3", check=False)
    found = between(docker, since)
    assert actions(found) == ["create", "attach", "start", "die", "destroy"]
    died = next(event for event in found if event["Action"] == "die")
    assert died["Actor"]["Attributes"]["exitCode"] == "3"
    assert died["Actor"]["Attributes"]["name"] == "it"
    assert died["Actor"]["Attributes"]["image"] == image
    assert len(died["Actor"]["ID"]) == 64
    assert died["timeNano"] // 1_000_000_000 == died["time"]


def test_life_in_detail(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    since = now()
    docker("pause", "it")
    docker("unpause", "it")
    docker("rename", "it", "other")
    docker("top", "other")
    docker("exec", "other", "sh", "-c", "exit 2", check=False)
    docker("kill", "-s", "WINCH", "other")
    docker("restart", "-t", "0", "other")
    docker("rm", "-f", "other")
    found = [action.partition(":")[0] for action in actions(between(docker, since))]
    assert found[:7] == [
        *("pause", "unpause", "rename", "top"),
        *("exec_create", "exec_start", "exec_die"),
    ]
    rest = found[7:]
    assert rest[0] == "kill"
    assert rest.count("start") == 1
    assert rest.index("restart") > rest.index("start")
    assert rest[-2:] == ["die", "destroy"]


def test_filters(docker: Client, image: str) -> None:
    since = now()
    docker("run", "--rm", "--name", "one", "-l", "pick=me", image, "true")
    docker("run", "--rm", "--name", "two", image, "true")

    def names(*filters: str) -> set[str]:
        flags = [word for f in filters for word in ("--filter", f)]
        return {e["Actor"]["Attributes"]["name"] for e in between(docker, since, *flags)}

    assert names("container=one") == {"one"}
    assert names("label=pick=me", "type=container") == {"one"}
    assert names("event=start") == {"one", "two"}
    assert {e["Action"] for e in between(docker, since, "--filter", "event=die")} == {"die"}


def test_images(docker: Client, image: str) -> None:
    since = now()
    docker("tag", image, "made/event:v1")
    docker("rmi", "made/event:v1")
    found = [e["Action"] for e in between(docker, since, "--filter", "type=image")]
    assert found == ["tag", "untag"]


def test_follows(docker: Client, image: str) -> None:
    follower = docker.popen("events", "--filter", "container=it", "--format", "{{.Action}}")
    try:
        assert follower.stdout
        # The stream is open when it tells something: repeat until it does.
        for _ in range(20):
            docker("create", "--name", "it", image)
            docker("rm", "it")
            time.sleep(0.05)
        lines = [follower.stdout.readline() for _ in range(4)]
        assert sorted(set(lines)) == [b"create\n", b"destroy\n"]
    finally:
        follower.kill()
        follower.communicate()


def test_oom(docker: Client, image: str) -> None:
    since = now()
    docker("run", "--rm", "-m", "16m", image, "sh", "-c", "tail /dev/zero", check=False)
    assert "oom" in actions(between(docker, since))


def test_every_oom_of_one_that_goes_on(docker: Client, image: str) -> None:
    since = now()
    hog = "sh -c 'tail /dev/zero'"
    docker("run", "--rm", "-m", "16m", image, "sh", "-c", f"{hog}; {hog}; true")
    assert actions(between(docker, since)).count("oom") == 2


def test_an_oom_that_kills_nobody(docker: Client, image: str) -> None:
    if not os.path.exists("/sys/fs/cgroup/memory/memory.oom_control"):
        pytest.skip("only cgroup v1 can do without the OOM killer")
    since = now()
    hog = ("sh", "-c", "x=a; while :; do x=$x$x$x$x; done")  # a fault of its own, not of a read(2)
    docker("run", "-d", "--name", "it", "-m", "16m", "--oom-kill-disable", image, *hog)
    wait_until(lambda: "oom" in actions(between(docker, since)), "the OOM is told")
    assert docker("inspect", "-f", "{{.State.Running}}", "it").stdout == "true\n"


def test_builds_tell_of_what_they_commit(build: Build) -> None:
    """The classic builder of each step that it makes anew, COPY and ADD apart; then of the name."""

    def told(text: str) -> list[str]:
        since = now()
        build(text)
        found = between(build.docker, since, "--filter", "type=image")
        assert all(
            event["Actor"]["Attributes"]["name"] == event["Actor"]["ID"]
            for event in found
            if event["Action"] == "create"
        )
        return [event["Action"] for event in found]

    text = "FROM BASE\nRUN echo told > /a\nENV a=b\nCOPY Dockerfile /c\n"
    assert told(text) == ["create", "create", "tag"]
    assert told(text) == ["tag"]
