"""`docker logs` and the json-file log beneath it."""

import json
import os
import re
import time

import pytest

from engine_process import Client, EngineProcess, wait_until

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


@pytest.fixture
def ten(docker: Client, image: str) -> str:
    """A finished container that wrote 1 to 10, the even ones to standard error."""
    script = "for n in $(seq 1 10); do echo $n >&$((2 - n % 2)); usleep 2000; done"
    docker("run", "--name", "ten", image, "sh", "-c", script)
    return "ten"


def test_all(docker: Client, ten: str) -> None:
    done = docker("logs", ten)
    assert done.stdout.split() == ["1", "3", "5", "7", "9"]
    assert done.stderr.split() == ["2", "4", "6", "8", "10"]


@pytest.mark.parametrize(
    ("tail", "expected"), [("3", 3), ("0", 0), ("all", 10), ("100", 10), ("-1", 10)]
)
def test_tail(docker: Client, ten: str, tail: str, expected: int) -> None:
    done = docker("logs", "--tail", tail, ten)
    lines = sorted((done.stdout + done.stderr).split(), key=int)
    assert lines == [str(n) for n in range(11 - expected, 11)]


def test_timestamps(docker: Client, ten: str) -> None:
    lines = docker("logs", "-t", ten).stdout.splitlines()
    assert all(re.fullmatch(f"{STAMP} \\d+", line) for line in lines)
    assert lines == sorted(lines)


def test_since_and_until(docker: Client, ten: str) -> None:
    done = docker("logs", "-t", ten)
    stamps = sorted((done.stdout + done.stderr).splitlines())
    middle = stamps[5].split()[0]
    later = docker("logs", "--since", middle, ten)
    assert sorted((later.stdout + later.stderr).split(), key=int) == ["6", "7", "8", "9", "10"]
    earlier = docker("logs", "--until", stamps[4].split()[0], ten)
    assert sorted((earlier.stdout + earlier.stderr).split(), key=int)[:4] == ["1", "2", "3", "4"]
    assert docker("logs", "--since", "1h", "--tail", "2", ten).stdout.split() == ["9"]


def test_follow_ends_with_the_container(docker: Client, image: str) -> None:
    script = "echo first; while ! test -e /go; do sleep 0.05; done; echo last"
    docker("run", "-d", "--name", "it", image, "sh", "-c", script)
    follower = docker.popen("logs", "-f", "it")
    try:
        assert follower.stdout
        assert follower.stdout.readline() == b"first\n"
        docker("exec", "it", "touch", "/go")
        out, _ = follower.communicate(timeout=30)
        assert out == b"last\n"
        assert follower.returncode == 0
    finally:
        follower.kill()


def test_follow_loses_and_repeats_nothing(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "seq", "1", "100000")
    out = docker("logs", "-f", "it").stdout
    assert out.split() == [str(n) for n in range(1, 100001)]


def test_follow_goes_on_over_rotation(docker: Client, image: str) -> None:
    docker(
        *("run", "-d", "--name", "it", "--log-opt", "max-size=100k", "--log-opt", "max-file=5"),
        *(image, "sh", "-c", "for n in $(seq 1 8000); do echo line $n; done; sleep 0.3; echo end"),
    )
    lines = docker("logs", "-f", "it").stdout.splitlines()
    assert lines[-1] == "end"
    numbers = [int(line.split()[1]) for line in lines[:-1]]
    assert numbers == sorted(set(numbers))


def test_rotation_keeps_the_newest(docker: Client, image: str, pierd: EngineProcess) -> None:
    docker(
        *("run", "--name", "it", "--log-opt", "max-size=10k", "--log-opt", "max-file=3"),
        *(image, "seq", "1", "5000"),
    )
    lines = docker("logs", "it").stdout.split()
    assert lines[-1] == "5000"
    assert lines == [str(n) for n in range(int(lines[0]), 5001)]
    assert 1 < int(lines[0]) < 5000
    path = docker("inspect", "-f", "{{.LogPath}}", "it").stdout.strip()
    directory, name = os.path.split(path)
    files = sorted(f for f in os.listdir(directory) if f.startswith(name))
    assert files == [name, f"{name}.1", f"{name}.2"]
    # One batch may overshoot; a file never holds many times its limit.
    assert all(os.path.getsize(f"{directory}/{f}") < 100_000 for f in files)


def test_file_is_dockers(docker: Client, image: str, pierd: EngineProcess) -> None:
    docker(
        "run",
        "--name",
        "it",
        image,
        "sh",
        "-c",
        "printf 'a\"b\\\\\\t\\303\\244\\001\\n'; printf end",
    )
    path = docker("inspect", "-f", "{{.LogPath}}", "it").stdout.strip()
    with open(path) as file:
        first, last = (json.loads(line) for line in file)
    assert first.pop("time")
    assert first == {"log": 'a"b\\\tä\x01\n', "stream": "stdout"}
    assert (last["log"], last["stream"]) == ("end", "stdout")
    assert docker("logs", "it").stdout == 'a"b\\\tä\x01\nend'


def test_long_line_is_one_line_again(docker: Client, image: str) -> None:
    docker("run", "--name", "it", image, "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo")
    assert docker("logs", "it").stdout == "x" * 100000 + "\n"


def test_no_log(docker: Client, image: str) -> None:
    assert docker("run", "--name", "it", "--log-driver", "none", image, "echo", "x").stdout == "x\n"
    done = docker("logs", "it", check=False)
    assert done.returncode == 1
    assert "configured logging driver does not support reading" in done.stderr


def test_second_run_is_appended(docker: Client, image: str) -> None:
    docker("run", "--name", "it", image, "echo", "x")
    docker("start", "-a", "it")
    assert docker("logs", "it").stdout == "x\nx\n"


def test_follow_of_one_that_is_silent(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    follower = docker.popen("logs", "-f", "it")
    time.sleep(0.3)
    assert follower.poll() is None
    docker("rm", "-f", "it")
    follower.communicate(timeout=30)


def test_details_of_the_size(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "while :; do echo x; sleep 0.02; done")
    wait_until(lambda: len(docker("logs", "it").stdout.split()) > 3, "it goes on writing")
