"""Reading json-file logs: framing, selection, tails, rotation, following."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.engine.log_files import LogFile, LogReader, open_all
from pier.engine.log_stream import stream_log
from pier.engine.logs import LogQuery, frame
from pier.runtime.log_compress import compress


def line(text, stream="stdout", time="2026-01-02T03:04:05.5Z", **more):
    return json.dumps({"log": text, "stream": stream, "time": time, **more}) + "\n"


def read_all(path, **query):
    reader = LogReader(str(path), LogQuery(**query))
    try:
        pieces = []
        while piece := reader.read():
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        reader.close()


def unframe(data):
    found = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size].decode()))
        data = data[8 + size :]
    return found


def test_a_missing_log_is_empty(tmp_path):
    assert read_all(tmp_path / "none") == b""


def test_lines_become_frames(tmp_path):
    log = tmp_path / "log"
    log.write_text(line("one\n") + line("two ü\n", "stderr"))
    assert unframe(read_all(log)) == [(1, "one\n"), (2, "two ü\n")]
    assert read_all(log, tty=True) == "one\ntwo ü\n".encode()


@pytest.mark.parametrize("more", [{}, {"timestamps": True}], ids=["plain", "timestamps"])
def test_lines_of_one_stream_share_a_frame_where_the_reader_does_not_care(tmp_path, more):
    log = tmp_path / "log"
    log.write_text(line("a\n") + line("b\n") + line("x\n", "stderr") + line("c\n"))
    at = "2026-01-02T03:04:05.500000000Z " if more else ""
    assert unframe(read_all(log, joined=True, **more)) == [
        (1, f"{at}a\n{at}b\n"),
        (2, f"{at}x\n"),
        (1, f"{at}c\n"),
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"stderr": False}, ["a\n", "c\n"]),
        ({"stdout": False}, ["b\n"]),
        ({"since": "2026-01-01T00:00:02"}, ["b\n", "c\n"]),
        ({"until": "2026-01-01T00:00:02"}, ["a\n", "b\n"]),
        ({"since": "2026-01-01T00:00:01.5", "until": "2026-01-01T00:00:02.5"}, ["b\n"]),
        (
            {"timestamps": True},
            [
                "2026-01-01T00:00:01.000000000Z a\n",
                "2026-01-01T00:00:02.000000000Z b\n",
                "2026-01-01T00:00:03.120000000Z c\n",
            ],
        ),
        ({"details": True}, [" a\n", "k=v,z=w b\n", " c\n"]),
        ({"tail": 0}, []),
        ({"tail": 2}, ["b\n", "c\n"]),
        ({"tail": 99}, ["a\n", "b\n", "c\n"]),
    ],
)
def test_selection(tmp_path, query, expected):
    log = tmp_path / "log"
    log.write_text(
        line("a\n", time="2026-01-01T00:00:01Z")
        + line("b\n", "stderr", "2026-01-01T00:00:02Z", attrs={"z": "w", "k": "v"})
        + line("c\n", time="2026-01-01T00:00:03.12Z")
    )
    assert [text for _, text in unframe(read_all(log, **query))] == expected


def test_parts_of_a_line_get_one_timestamp(tmp_path):
    log = tmp_path / "log"
    log.write_text(line("long ") + line("err\n", "stderr") + line("line\n") + line("next\n"))
    assert read_all(log, timestamps=True, tty=True).decode().count("2026-01-02") == 3


def test_damaged_lines_are_left_out(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(
        line("a\n").encode()
        + b"\0\0\0\n"
        + b'{"log":"\xff\\n","stream":"stdout","time":""}\n'
        + b'{"log":"cut'
    )
    assert read_all(log, tty=True).decode() == "a\n\N{REPLACEMENT CHARACTER}\n"


@given(st.lists(st.integers(0, 40), max_size=5), st.integers(0, 150))
def test_tail_across_files(tmp_path_factory, sizes, count):
    """The last lines are the same however the log was cut into files."""
    directory = tmp_path_factory.mktemp("logs")
    texts = [f"{n} {'x' * (n * 61)}\n" for n in range(sum(sizes))]
    rest = list(texts)
    for number, size in reversed(list(enumerate(sizes))):
        part, rest = rest[:size], rest[size:]
        name = f"log.{number}" if number else "log"
        (directory / name).write_text("".join(map(line, part)))
    shown = [text for _, text in unframe(read_all(directory / "log", tail=count))]
    assert shown == (texts[-count:] if count else [])


def test_reading_goes_on_after_rotations(tmp_path):
    log = tmp_path / "log"
    log.write_text(line("1\n"))
    reader = LogReader(str(log), LogQuery(tty=True))
    assert reader.read() == b"1\n"
    assert reader.read() == b""
    with log.open("a") as file:
        file.write(line("2\n"))
    os.rename(log, tmp_path / "log.1")
    log.write_text(line("3\n"))
    os.rename(tmp_path / "log.1", tmp_path / "log.2")
    os.rename(log, tmp_path / "log.1")
    log.write_text(line("4\n"))
    shown = b""
    while piece := reader.read():
        shown += piece
    assert shown == b"2\n3\n4\n"
    reader.close()


def test_a_log_that_was_opened_and_removed(tmp_path):
    """As that of a container that ends and goes before its follower comes to it."""
    log = tmp_path / "log"
    (tmp_path / "log.2").write_text(line("1\n"))
    compress(str(tmp_path / "log.2"))
    (tmp_path / "log.1").write_text(line("2\n"))
    log.write_text(line("3\n"))
    fds = [os.dup(file.raw_fd) for file in open_all(str(log))]
    for path in tmp_path.iterdir():
        path.unlink()
    with LogReader(str(log), LogQuery(tty=True), [LogFile(fd) for fd in fds]) as reader:
        assert b"".join(iter(reader.read, b"")) == b"1\n2\n3\n"


def test_a_log_of_one_file_is_emptied(tmp_path):
    log = tmp_path / "log"
    log.write_text(line("1\n") + line("2\n"))
    reader = LogReader(str(log), LogQuery(tty=True))
    assert reader.read() == b"1\n2\n"
    log.write_text(line("3\n"))
    assert reader.read() == b"3\n"
    reader.close()


def test_frames():
    assert frame(b"\2\0\0\0", b"abc") == b"\2\0\0\0\0\0\0\3abc"


def test_following_ends_with_the_container(tmp_path):
    log = tmp_path / "log"

    async def follow():
        ended = asyncio.get_running_loop().create_future()
        shown = []
        with ThreadPoolExecutor(1) as pool:
            async for piece in stream_log(str(log), LogQuery(tty=True), pool, ended=ended):
                shown.append(piece)
                number = len(shown)
                if number < 20:
                    if number % 5 == 0:
                        os.rename(log, tmp_path / f"log.{4 - number // 5}")
                    with log.open("a") as file:
                        file.write(line(f"{number}\n"))
                elif not ended.done():
                    with log.open("a") as file:
                        file.write(line("last\n"))
                    ended.set_result(None)
        return b"".join(shown)

    log.write_text(line("0\n"))
    expected = "".join(f"{n}\n" for n in range(20)) + "last\n"
    assert asyncio.run(follow()).decode() == expected


def test_following_ends_at_until(tmp_path):
    log = tmp_path / "log"
    log.write_text(line("0\n"))

    async def follow():
        ended = asyncio.get_running_loop().create_future()
        with ThreadPoolExecutor(1) as pool:
            stream = stream_log(str(log), LogQuery(tty=True), pool, ended=ended, until_s=0.01)
            return b"".join([piece async for piece in stream])

    assert asyncio.run(follow()) == b"0\n"


def compressed_log(tmp_path):
    path = str(tmp_path / "log")
    for number, texts in ((2, ["a\n", "b\n"]), (1, ["c\n"])):
        with open(f"{path}.{number}", "w") as file:
            file.write("".join(map(line, texts)))
        compress(f"{path}.{number}")
    with open(path, "w") as file:
        file.write(line("d\n"))
    return path


@pytest.mark.parametrize(("tail", "expected"), [(-1, "abcd"), (1, "d"), (3, "bcd"), (9, "abcd")])
def test_compressed_files_are_read(tmp_path, tail, expected):
    path = compressed_log(tmp_path)
    assert read_all(path, tty=True, tail=tail).decode().split() == list(expected)


def test_a_file_that_is_compressed_while_it_is_read_is_read_once(tmp_path):
    path = str(tmp_path / "log")
    with open(path, "w") as file:
        file.write(line("a\n"))
    reader = LogReader(path, LogQuery(tty=True))
    try:
        assert reader.read() == b"a\n"
        os.rename(path, f"{path}.1")
        with open(f"{path}.1", "a") as file:
            file.write(line("b\n"))
        compress(f"{path}.1")
        with open(path, "w") as file:
            file.write(line("c\n"))
        assert reader.read() + reader.read() == b"b\nc\n"
    finally:
        reader.close()


def test_details_are_escaped(tmp_path):
    log = tmp_path / "log"
    log.write_text(line("x\n", attrs={"b": "1 2", "a": "ü"}))
    assert read_all(log, tty=True, details=True) == b"a=%C3%BC,b=1+2 x\n"
