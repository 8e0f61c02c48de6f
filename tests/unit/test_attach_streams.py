"""Detach keys, clients that are slow, and the frames between a keeper and its clients."""

import os
import socket
import struct

import pytest

from pier.runtime.attach import QUEUE_LIMIT_BYTES, DetachKeys
from pier.runtime.loop import Loop
from pier.runtime.stdio import Stdio
from pier.runtime.streams import Streams

CTRL_PQ = b"\x10\x11"


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([CTRL_PQ], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10", b"\x10", b"y"], b"\x10\x10y", False),
        ([b"x\x11"], b"x\x11", False),
    ],
)
def test_detach_keys(typed, passed, detached):
    keys = DetachKeys(CTRL_PQ)
    out, found = b"", False
    for data in typed:
        piece, found = keys.feed(data)
        out += piece
    assert (out, found) == (passed, detached)


class Pipes:
    """A process's ends of its stdio, and the streams on the other side of them."""

    def __init__(self, *, stdin=True, close_stdin=True, terminal=False):
        self.loop = Loop()
        self.idle = False
        self.streams = Streams(
            self.loop, None, terminal=terminal, close_stdin=close_stdin, on_detach=lambda: None
        )
        self.stdio = Stdio()
        self.stdio.stdout, self.stdout = os.pipe()
        self.stdio.stderr, self.stderr = os.pipe()
        self.clients = []
        self.stdin = -1
        if stdin:
            self.stdin, self.stdio.stdin = os.pipe()
            os.set_blocking(self.stdin, False)

    def attach(self, *, stdin=True, stdout=True, pending=b""):
        mine, theirs = socket.socketpair()
        mine.settimeout(5)
        self.clients.append(mine)
        self.streams.attach(
            theirs, stdin=stdin, stdout=stdout, stderr=True, detach_keys=b"", pending=pending
        )
        return mine

    def turn(self, seconds=0.05):
        self.loop.running = True

        def stop():
            self.loop.running = False

        self.loop.call_later(seconds, stop)
        self.loop.run()

    def close(self):
        for client in self.clients:
            client.close()
        self.turn(0.01)
        for fd in (self.stdout, self.stderr, self.stdin):
            if fd >= 0:
                os.close(fd)

    def end(self):
        def idle():
            self.idle = True

        self.streams.end(idle)


def frames(data):
    while data:
        stream, size = struct.unpack(">BxxxI", data[:8])
        yield stream, data[8 : 8 + size]
        data = data[8 + size :]


@pytest.fixture
def pipes():
    made = Pipes()
    yield made
    made.close()


def test_output_is_framed_by_stream(pipes):
    client = pipes.attach()
    pipes.streams.open(pipes.stdio)
    os.write(pipes.stdout, b"out")
    pipes.turn()
    os.write(pipes.stderr, b"err")
    pipes.turn()
    assert list(frames(client.recv(100))) == [(1, b"out"), (2, b"err")]
    pipes.end()
    assert client.recv(10) == b""
    assert pipes.idle


def test_a_terminal_has_no_standard_error():
    pipes = Pipes(terminal=True)
    everything, errors = pipes.attach(), pipes.attach(stdin=False, stdout=False)
    pipes.streams.open(pipes.stdio)
    os.write(pipes.stdout, b"out")
    pipes.turn()
    assert everything.recv(100) == b"out"
    pipes.end()
    assert errors.recv(100) == b""
    pipes.close()


def test_what_is_typed_before_the_start_reaches_the_process(pipes):
    client = pipes.attach(pending=b"one ")
    client.send(b"two")
    pipes.turn()
    pipes.streams.open(pipes.stdio)
    pipes.turn()
    assert os.read(pipes.stdin, 100) == b"one two"
    client.shutdown(socket.SHUT_WR)
    pipes.turn()
    assert os.read(pipes.stdin, 100) == b""
    pipes.end()


def test_stdin_stays_open_when_it_is_not_once():
    pipes = Pipes(close_stdin=False)
    client = pipes.attach()
    pipes.streams.open(pipes.stdio)
    client.shutdown(socket.SHUT_WR)
    pipes.turn()
    with pytest.raises(BlockingIOError):
        os.read(pipes.stdin, 1)
    pipes.end()
    pipes.close()


def test_a_slow_client_holds_the_process_back_and_loses_nothing(pipes):
    client = pipes.attach()
    pipes.streams.open(pipes.stdio)
    os.set_blocking(pipes.stdout, False)
    written = 0
    for _ in range(400):
        try:
            written += os.write(pipes.stdout, b"x" * 65536)
        except BlockingIOError:
            pipes.turn(0.002)
    # The queue is full, and so is the pipe: bounded, whatever the process would like to write.
    assert written < QUEUE_LIMIT_BYTES + (4 << 20)
    received = bytearray()
    client.setblocking(False)
    for _ in range(2000):
        try:
            received += client.recv(1 << 20)
        except BlockingIOError:
            pipes.turn(0.002)
        if len(received) - 8 * received.count(b"\1\0\0\0") >= written:
            break
    assert sum(len(data) for _, data in frames(bytes(received))) == written
    pipes.end()


def test_a_client_that_goes_does_not_disturb_the_others(pipes):
    first, second = pipes.attach(), pipes.attach()
    pipes.streams.open(pipes.stdio)
    first.close()
    pipes.turn()
    os.write(pipes.stdout, b"still here")
    pipes.turn()
    assert list(frames(second.recv(100))) == [(1, b"still here")]
    pipes.end()
    assert pipes.idle
