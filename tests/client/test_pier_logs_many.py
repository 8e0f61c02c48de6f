"""`pier logs` of several containers: one stream in the order of their times, searched."""

import json
import time

import pytest

from engine_process import Client, EngineProcess


@pytest.fixture
def pier(engine: EngineProcess) -> Client:
    return engine.pier


def test_lines_come_in_their_order(pier: Client, image: str) -> None:
    """Two that write in turns, each waiting for a file of the other's."""
    talk = "for i in 1 2 3; do until [ -e /v/{0}$i ]; do :; done; echo {1} $i; touch /v/{2}$i; done"
    pier("volume", "create", "turns")
    try:
        first = talk.format("b", "ping", "a").replace("$i ]; do :; done; echo", "$((i-1)) ]; do :; done; echo")  # fmt: skip
        pier("run", "--rm", "-v", "turns:/v", image, "touch", "/v/b0")
        pier("run", "-d", "--name", "one", "-v", "turns:/v", image, "sh", "-c", first)
        pier("run", "-d", "--name", "two", "-v", "turns:/v", image, "sh", "-c", talk.format("a", "pong", "b"))  # fmt: skip
        pier("wait", "one", "two")
        lines = [line.split()[-2:] for line in pier("logs", "one", "two").stdout.splitlines()]
        assert lines == [[word, str(i)] for i in (1, 2, 3) for word in ("ping", "pong")]
        found = pier("logs", "--grep", "p.ng [23]", "one", "two").stdout.splitlines()
        assert [line.split()[-2:] for line in found] == lines[2:]
    finally:
        pier("rm", "-f", "one", "two", check=False)
        pier("volume", "rm", "turns")


def test_a_time_limit_ends_a_run(pier: Client, image: str) -> None:
    pier(
        "run",
        "-d",
        "--name",
        "it",
        "--timeout",
        "1s",
        "--stop-signal",
        "KILL",
        image,
        "sleep",
        "99",
    )
    assert pier("wait", "it").stdout == "137\n"
    since = json.loads(pier("inspect", "it").stdout)[0]["Created"]
    told = pier(
        "events",
        "--since",
        since,
        "--until",
        f"{time.time():.9f}",
        "--filter",
        "container=it",
        check=False,
    )
    assert "timeout" in told.stdout
