"""The API's server on a real socket, with an engine that only echoes: HTTP up to the hijack."""

import asyncio
import contextlib
import json
import os
import socket
import threading
from types import SimpleNamespace

import msgspec
import pytest
import uvloop

from pier.api.connection import hijack_body_length
from pier.api.server import ApiServer
from pier.engine.settings import Settings
from pier.engine.traces import Traces
from pier.errors import Conflict, NotFound, StartFailed

ATTACH = (
    b"POST /v1.51/containers/web/attach?stream=1 HTTP/1.1\r\nHost: docker\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
)
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"


class Echo:
    """Stands for a keeper: it owns a descriptor of the client's socket, blocking and in a thread."""

    def __init__(self, tty, failure=None):
        self.tty = tty
        self.failure = failure

    async def hand_over(self, fd, pending):
        if self.failure:
            raise self.failure
        sock = socket.socket(fileno=os.dup(fd))
        sock.setblocking(True)
        threading.Thread(target=self.echo, args=(sock, pending), daemon=True).start()

    def echo(self, sock, pending):
        with sock, contextlib.suppress(ConnectionError):
            sock.sendall(b"<" + pending + b">")
            while data := sock.recv(1 << 16):
                sock.sendall(data)


class FakeContainers:
    def __init__(self):
        self.ended = asyncio.Event()
        self.is_waiting = asyncio.Event()

    def prepare_attach(self, ref, options):
        if ref == "gone":
            raise NotFound("No such container: gone")
        return Echo(tty=ref == "terminal")

    async def start(self, ref):
        if ref == "slow":
            await asyncio.sleep(0.05)

    async def kill(self, ref, *, signal):
        raise ZeroDivisionError("a bug")

    def wait(self, ref, condition):
        async def end():
            self.is_waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()

        return end()

    def tty(self, ref):
        return False

    def logs(self, ref, options):
        async def lines():
            yield b"one\n"
            if ref == "broken":
                raise OSError(5, "Input/output error")

        return lines()


class FakeExecs:
    def prepare_start(self, exec_id, *, tty, detach, console_size):
        if exec_id == "busy":
            raise Conflict("container web is paused")
        failure = StartFailed("no such command", step="exec", errno=2)
        return Echo(tty, failure if exec_id == "wrong" else None)


class FakeImages:
    def load(self, reader, *, quiet, platforms):
        async def lines():
            size = len(await asyncio.to_thread(reader.read))
            yield b'{"stream":"%d"}\r\n' % size
            raise NotFound("half an image")

        return lines()


@pytest.fixture(params=["uvloop", "asyncio"])
def serve(request, tmp_path):
    """Run a test's coroutine function beside a server; it gets a way to connect, and the engine."""

    def run(test):
        async def main():
            engine = SimpleNamespace(
                containers=FakeContainers(),
                execs=FakeExecs(),
                images=FakeImages(),
                traces=Traces(""),
                settings=Settings(),
            )
            server = ApiServer(engine)
            path = str(tmp_path / "api.sock")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen()
                listener.setblocking(False)
                await server.serve([listener])
                try:
                    async with asyncio.timeout(20):
                        await test(lambda: asyncio.open_unix_connection(path), engine)
                finally:
                    await server.close()

        loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(main())

    return run


async def head(reader):
    text = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = text[:-4].split("\r\n")
    return status, {name.lower(): value for name, value in (line.split(": ") for line in lines)}


async def answer(reader):
    status, headers = await head(reader)
    return status, await reader.readexactly(int(headers["content-length"]))


def test_every_answer_has_dockers_headers(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(PING)
        status, headers = await head(reader)
        assert status == "HTTP/1.1 200 OK"
        assert {
            "api-version": "1.55",
            "docker-experimental": "false",
            "ostype": "linux",
            "server": "Docker/29.7.2 (linux)",
            "builder-version": "2",
            "swarm": "inactive",
        }.items() <= headers.items()
        assert await reader.readexactly(2) == b"OK"
        writer.write(b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n" + PING)
        assert (await head(reader))[0] == "HTTP/1.1 200 OK"
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"OK")
        writer.close()

    serve(test)


@pytest.mark.parametrize("before", [b"", PING])
@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000])
def test_attach_hands_the_connection_over(serve, before, behind):
    async def test(connect, engine):
        reader, writer = await connect()
        if before:
            writer.write(before)
            await answer(reader)
        writer.write(ATTACH + behind)
        status, headers = await head(reader)
        assert status == "HTTP/1.1 101 UPGRADED"
        assert headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "tcp")
        writer.write(b"more")
        writer.write_eof()
        echoed = await reader.read()
        # What had not arrived at the hijack comes behind the ">".
        assert echoed.startswith(b"<")
        assert echoed.replace(b">", b"", 1)[1:] == behind + b"more"
        writer.close()

    serve(test)


def test_a_request_in_pieces_is_recognised(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        for byte in ATTACH:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await head(reader))[0] == "HTTP/1.1 101 UPGRADED"
        assert await reader.readexactly(2) == b"<>"
        writer.close()

    serve(test)


def test_half_a_close_right_behind_the_request_ends_stdin_only(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(ATTACH + b"x")
        writer.write_eof()
        assert (await head(reader))[0] == "HTTP/1.1 101 UPGRADED"
        assert await reader.read() == b"<x>"
        writer.close()

    serve(test)


@pytest.mark.parametrize(
    ("request_head", "status", "kind"),
    [
        (ATTACH.replace(b"web", b"terminal"), "101 UPGRADED", "raw-stream"),
        (ATTACH.replace(b"/v1.51", b"/v1.41"), "101 UPGRADED", "raw-stream"),
        (ATTACH.replace(b"/v1.51", b""), "101 UPGRADED", "multiplexed-stream"),
        (ATTACH.replace(b"Upgrade: tcp\r\n", b""), "200 OK", "raw-stream"),
    ],
)
def test_what_kind_of_stream_is_said(serve, request_head, status, kind):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(request_head)
        line, headers = await head(reader)
        assert line == f"HTTP/1.1 {status}"
        assert headers["content-type"] == f"application/vnd.docker.{kind}"
        assert await reader.readexactly(2) == b"<>"
        writer.close()

    serve(test)


def exec_start(exec_id, body):
    return (
        f"POST /v1.51/exec/{exec_id}/start HTTP/1.1\r\nHost: docker\r\n"
        "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def test_exec_start_reads_its_body_and_hands_over_the_rest(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        request = exec_start("e", '{"Detach":false,"Tty":false}')
        writer.write(request[:-10])
        await asyncio.sleep(0.01)
        writer.write(request[-10:] + b"stdin")
        assert (await head(reader))[0] == "HTTP/1.1 101 UPGRADED"
        assert await reader.readexactly(7) == b"<stdin>"
        writer.close()

    serve(test)


@pytest.mark.parametrize("tty", [True, False])
def test_a_failed_start_is_told_as_output(serve, tty):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(exec_start("wrong", json.dumps({"Tty": tty})))
        assert (await head(reader))[0] == "HTTP/1.1 101 UPGRADED"
        frame = b"" if tty else b"\1\0\0\0\0\0\0\x11"
        assert await reader.read() == frame + b"no such command\r\n"
        writer.close()

    serve(test)


def test_a_refused_hijack_leaves_http_going_on(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(ATTACH.replace(b"web", b"gone") + PING)
        status, body = await answer(reader)
        assert status == "HTTP/1.1 404 Not Found"
        assert body == b"No such container: gone\r\n"
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"OK")
        writer.write(exec_start("busy", "{}"))
        assert (await answer(reader))[0] == "HTTP/1.1 409 Conflict"
        writer.write(ATTACH)
        assert (await head(reader))[0] == "HTTP/1.1 101 UPGRADED"
        writer.close()

    serve(test)


def test_statuses_and_errors(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        for verb, expected, message in (
            ("POST /v1.51/containers/web/start", "204 No Content", None),
            ("POST /containers/web/kill", "500 Internal Server Error", "a bug"),
            ("GET /nothing", "404 Not Found", "page not found"),
            ("POST /swarm/init", "503 Service Unavailable", "This node is not a swarm manager."),
            ("POST /grpc", "400 Bad Request", "no upgrade proto in request"),
            ("POST /containers/web/resize?h=x&w=1", "400 Bad Request", 'invalid resize height "x"'),
            ("POST /containers/web/stop?t=x", "400 Bad Request", 'strconv.Atoi: parsing "x"'),
            ("POST /containers/create", "400 Bad Request", "invalid JSON: got EOF"),
        ):
            writer.write(f"{verb} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
            status, headers = await head(reader)
            assert status == f"HTTP/1.1 {expected}"
            if message:
                body = await reader.readexactly(int(headers["content-length"]))
                assert json.loads(body)["message"].startswith(message)
        writer.close()

    serve(test)


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("application/json", "{", "invalid JSON: "),
        ("application/json", "[]", "invalid JSON: json: cannot unmarshal array into an object"),
        ("text/plain", "{}", "unsupported Content-Type header (text/plain)"),
        ("", "{}", "malformed Content-Type header (): mime: no media type"),
    ],
)
def test_bodies_that_are_not_json(serve, content_type, body, message):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(
            f"POST /containers/create HTTP/1.1\r\nHost: docker\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        status, content = await answer(reader)
        assert status == "HTTP/1.1 400 Bad Request"
        assert json.loads(content)["message"].startswith(message)
        writer.close()

    serve(test)


def test_wait_sends_its_head_at_once_and_ends_with_its_client(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(b"POST /containers/web/wait HTTP/1.1\r\nHost: docker\r\n\r\n")
        status, headers = await head(reader)
        assert status == "HTTP/1.1 200 OK"
        assert headers["transfer-encoding"] == "chunked"
        await engine.containers.is_waiting.wait()
        writer.close()
        await engine.containers.ended.wait()

    serve(test)


def test_stopping_the_server_ends_waits(serve):
    left = []

    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(b"POST /containers/web/wait HTTP/1.1\r\nHost: docker\r\n\r\n")
        await engine.containers.is_waiting.wait()
        left.append(asyncio.get_running_loop().create_task(finish(reader, writer)))

    async def finish(reader, writer):
        await reader.read()
        writer.close()

    serve(test)
    assert left


def test_stopping_the_server_does_not_wait_for_idle_clients(serve):
    left = []

    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(PING)
        await answer(reader)
        left.append(asyncio.get_running_loop().create_task(finish(reader, writer)))

    async def finish(reader, writer):
        assert await reader.read() == b""
        writer.close()

    serve(test)
    assert left


def test_a_long_query_is_read(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(b"GET /_ping?x=%b HTTP/1.1\r\nHost: docker\r\n\r\n" % (b"y" * 50_000))
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"OK")
        writer.close()

    serve(test)


def test_a_stream_that_breaks_off_has_no_proper_end(serve):
    async def test(connect, engine):
        for ref, end in ((b"web", b"0\r\n\r\n"), (b"broken", b"one\n\r\n")):
            reader, writer = await connect()
            writer.write(
                b"GET /containers/%b/logs?stdout=1 HTTP/1.1\r\nHost: docker\r\n"
                b"Connection: close\r\n\r\n" % ref
            )
            assert (await head(reader))[0] == "HTTP/1.1 200 OK"
            assert (await reader.read()).endswith(end)
            writer.close()

    serve(test)


def test_a_failed_load_ends_with_an_error_record(serve):
    async def test(connect, engine):
        reader, writer = await connect()
        writer.write(
            b"POST /images/load HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert (await head(reader))[0] == "HTTP/1.1 100 Continue"
        chunk = bytes(1 << 20)
        for _ in range(3):
            writer.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await head(reader))[0] == "HTTP/1.1 200 OK"
        lines = [line for line in (await reader.read()).split(b"\r\n") if line.startswith(b"{")]
        assert [msgspec.json.decode(line) for line in lines] == [
            {"stream": str(3 << 20)},
            {"errorDetail": {"message": "half an image"}, "error": "half an image"},
        ]
        writer.close()

    serve(test)


@pytest.mark.parametrize(
    ("request_head", "length"),
    [
        (b"POST /containers/a/attach HTTP/1.1\r\nHost: x\r\n", 0),
        (b"POST /v1.51/exec/a/start HTTP/1.1\r\ncontent-length: 12\r\n", 12),
        (b"POST /exec/a/start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", None),
        (b"POST /session HTTP/1.1\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n", 0),
        (b"GET /containers/a/logs?stdout=1&follow=1 HTTP/1.1\r\n", 0),
        (b"GET /containers/a/logs?stdout=1&nofollow=1 HTTP/1.1\r\n", None),
        (b"GET /containers/a/attach HTTP/1.1\r\nHost: x\r\n", None),
        (b"POST /containers/a/start HTTP/1.1\r\nHost: x\r\n", None),
        (b"POST /containers/create?x=/attach HTTP/1.1\r\nHost: x\r\n", None),
        (b"POST /containers/a/attach HTTP/1.0\r\nHost: x\r\n", None),
    ],
)
def test_which_requests_may_hijack(request_head, length):
    assert hijack_body_length(request_head) == length
