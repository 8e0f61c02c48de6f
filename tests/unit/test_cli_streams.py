"""Frames taken apart wherever they are cut; the pump over real sockets and pipes; detach keys."""

import os
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.cli import streams
from pier.cli.errors import Failure
from pier.cli.streams import Detached, Frames, Pump, RawOutput
from pier.cli.terminal import DetachKeys, parse_keys


def frame(stream, data):
    return struct.pack(">BxxxL", stream, len(data)) + data


class Written:
    """Stands for the descriptors 1 and 2."""

    def __init__(self, monkeypatch):
        self.data = {1: b"", 2: b""}
        monkeypatch.setattr(streams, "write_all", self._write)

    def _write(self, fd, data):
        self.data[fd] += bytes(data)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=10),
    st.integers(1, 13),
)
def test_frames_cut_anywhere(records, step):
    with pytest.MonkeyPatch.context() as patch:
        written = Written(patch)
        wire = b"".join(frame(stream, data) for stream, data in records)
        frames = Frames()
        for at in range(0, len(wire), step):
            frames.feed(memoryview(wire[at : at + step]))
        for stream in (1, 2):
            assert written.data[stream] == b"".join(d for s, d in records if s == stream)


def test_frame_of_the_engines_error():
    with pytest.raises(Failure, match="error from daemon in stream: it broke"):
        Frames().feed(memoryview(frame(3, b"it broke")))


def test_frame_of_no_stream():
    with pytest.raises(Failure, match="unrecognized stream: 72"):
        Frames().feed(memoryview(b"HTTP/1.1 500"))


class Hijacked:
    """The client's side of a connection, as the pump takes it."""

    def __init__(self, sock, buffer=b""):
        self.socket = sock
        self.buffer = buffer


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def stdin():
    """A pipe in the place of descriptor 0; what is returned is its writing end."""
    saved = os.dup(0)
    read_fd, write_fd = os.pipe()
    os.dup2(read_fd, 0)
    os.close(read_fd)
    yield write_fd
    os.dup2(saved, 0)
    os.close(saved)


def read_all(sock):
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


def test_pump_without_stdin_half_closes_at_once(pair, monkeypatch):
    ours, theirs = pair
    written = Written(monkeypatch)
    theirs.sendall(frame(1, b"out") + frame(2, b"err"))
    theirs.shutdown(socket.SHUT_WR)
    Pump(Hijacked(ours, frame(1, b"first ")), Frames(), stdin=False).run()
    assert written.data == {1: b"first out", 2: b"err"}
    assert theirs.recv(1) == b""


def test_pump_echo_larger_than_every_buffer(pair, stdin, monkeypatch):
    """A peer that writes back before it reads on: neither side may stop."""
    ours, theirs = pair
    written = Written(monkeypatch)
    payload = os.urandom(4 * 1024 * 1024)

    def type_it():
        with os.fdopen(stdin, "wb") as file:
            file.write(payload)

    def echo():
        while data := theirs.recv(65536):
            theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=type_it), threading.Thread(target=echo)]
    for thread in threads:
        thread.start()
    Pump(Hijacked(ours), RawOutput(), stdin=True).run()
    for thread in threads:
        thread.join()
    assert written.data[1] == payload


def test_pump_ends_with_the_output_while_stdin_is_open(pair, stdin, monkeypatch):
    ours, theirs = pair
    Written(monkeypatch)
    theirs.close()
    Pump(Hijacked(ours), Frames(), stdin=True).run()
    os.close(stdin)


def test_pump_goes_on_reading_when_stdin_is_refused(pair, stdin, monkeypatch):
    ours, theirs = pair
    written = Written(monkeypatch)
    theirs.shutdown(socket.SHUT_RD)
    os.write(stdin, b"nobody reads this")

    def answer():
        theirs.sendall(b"still here")
        theirs.shutdown(socket.SHUT_WR)

    timer = threading.Timer(0.05, answer)
    timer.start()
    Pump(Hijacked(ours), RawOutput(), stdin=True).run()
    timer.join()
    os.close(stdin)
    assert written.data[1] == b"still here"


def test_pump_detaches(pair, stdin, monkeypatch):
    ours, theirs = pair
    Written(monkeypatch)
    os.write(stdin, b"ls\n\x10\x11rest")
    os.close(stdin)
    keys = DetachKeys(parse_keys("ctrl-p,ctrl-q"))
    with pytest.raises(Detached):
        Pump(Hijacked(ours), RawOutput(), stdin=True, keys=keys).run()
    ours.close()
    assert read_all(theirs) == b"ls\n"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@", b"\x00"),
        ("ctrl-[,x", b"\x1bx"),
        ("ctrl-_", b"\x1f"),
        ("DEL", b"\x7f"),
        ("CTRL-A", b"\x01"),
    ],
)
def test_keys(text, keys):
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-1", "shift-a", "ab", "ctrl-", ""])
def test_unknown_keys(text):
    with pytest.raises(ValueError, match="Unknown character"):
        parse_keys(text)


def test_keys_over_several_reads_and_false_starts():
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.feed(b"\x11c") == (b"", True)


@given(st.binary(max_size=30))
def test_keys_pass_everything_else(data):
    keys = DetachKeys(b"\x10\x11")
    out, detached = keys.feed(data)
    if not detached:
        assert out in (data, data.removesuffix(b"\x10"))
