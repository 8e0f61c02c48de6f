"""`pier logs` of several containers: one stream in the order of their times, searched."""

import json
import time
from pathlib import Path

import pytest

from engine_process import Client, EngineProcess, wait_until


@pytest.fixture
def pier(engine: EngineProcess) -> Client:
    return engine.pier


def test_lines_come_in_their_order(pier: Client, image: str, tmp_path: Path) -> None:
    """Two that write in turns, each once the other's line is in its log: that is what has a time."""
    talk = "for i in 1 2 3; do until [ -e /v/{0}$i ]; do sleep 0.01; done; echo {0} $i; done"
    turns = (("one", "ping"), ("two", "pong"))
    for name, word in turns:
        pier("run", "-d", "--name", name, "-v", f"{tmp_path}:/v", image, "sh", "-c", talk.format(word))  # fmt: skip
    for i in (1, 2, 3):
        for name, word in turns:
            (tmp_path / f"{word}{i}").touch()
            wait_until(lambda: f"{word} {i}\n" in pier("logs", name).stdout, "it is written")  # noqa: B023
    lines = [line.split()[-2:] for line in pier("logs", "one", "two").stdout.splitlines()]
    assert lines == [[word, str(i)] for i in (1, 2, 3) for word in ("ping", "pong")]
    found = pier("logs", "--grep", "p.ng [23]", "one", "two").stdout.splitlines()
    assert [line.split()[-2:] for line in found] == lines[2:]


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
