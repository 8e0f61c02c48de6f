"""Bytes in and bytes out: whole, in order and unchanged, however many."""

import hashlib
import os
import time

from engine_process import Client

SIZE = 64 << 20


def test_piped_input(docker: Client, image: str) -> None:
    assert docker("run", "--rm", "-i", image, "cat", stdin="hi\n").stdout == "hi\n"


def test_end_of_input_ends_the_reader(docker: Client, image: str) -> None:
    assert docker("run", "--rm", "-i", image, "wc", "-l", stdin="a\nb\n").stdout.strip() == "2"


def test_without_interactive_there_is_no_input(docker: Client, image: str) -> None:
    assert docker("run", "--rm", image, "cat", stdin="unread").stdout == ""


def test_large_binary_round_trip(docker: Client, image: str) -> None:
    sent = os.urandom(1 << 20) * (SIZE >> 20)
    got = docker.raw("run", "--rm", "-i", image, "cat", stdin=sent, timeout=120).stdout
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(sent).hexdigest()


def test_large_binary_round_trip_through_exec(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "120")
    sent = os.urandom(1 << 20) * (SIZE >> 20)
    got = docker.raw("exec", "-i", "it", "cat", stdin=sent, timeout=120).stdout
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(sent).hexdigest()


def test_large_input_is_hashed_inside(docker: Client, image: str) -> None:
    sent = os.urandom(1 << 20) * 8
    done = docker.raw("run", "--rm", "-i", image, "sha256sum", stdin=sent)
    assert done.stdout.split()[0].decode() == hashlib.sha256(sent).hexdigest()


def test_large_output_on_both_streams(docker: Client, image: str) -> None:
    script = "head -c 4194304 /dev/zero & head -c 2097152 /dev/zero >&2; wait"
    done = docker.raw("run", "--rm", image, "sh", "-c", script)
    assert (len(done.stdout), len(done.stderr)) == (4 << 20, 2 << 20)
    assert not done.stdout.strip(b"\0")
    assert not done.stderr.strip(b"\0")


def test_no_output_is_lost_at_the_end(docker: Client, image: str) -> None:
    for _ in range(10):
        done = docker("run", "--rm", image, "sh", "-c", "seq 1 2000; exit 1", check=False)
        assert done.stdout.splitlines() == [str(n) for n in range(1, 2001)]
        assert done.returncode == 1


def test_reader_that_goes_away_does_not_stop_the_container(docker: Client, image: str) -> None:
    process = docker.popen(
        *("run", "--name", "it", image, "sh", "-c", "seq 1 300000; echo done >&2; exit 0")
    )
    assert process.stdout
    process.stdout.read(100)
    process.kill()
    process.communicate()
    assert docker("wait", "it").stdout == "0\n"
    assert docker("logs", "it").stderr == "done\n"


def test_slow_reader_slows_the_container_and_loses_nothing(docker: Client, image: str) -> None:
    process = docker.popen("run", "--rm", image, "seq", "1", "200000")
    assert process.stdout
    with process:
        got = process.stdout.read(10)
        time.sleep(0.5)  # by now the pipes are full and seq waits
        got += process.stdout.read()
    assert got.split() == [b"%d" % n for n in range(1, 200001)]
