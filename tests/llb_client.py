"""A client of BuildKit's API that sends LLB definitions made by hand, as buildctl sends Go's."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from msgspec import Struct

from pier.buildkit.messages import control, gateway, ops, session
from pier.buildkit.send import send_tree
from pier.grpc.connection import Connection, check_end
from pier.grpc.server import Call, Method, Server
from pier.grpc.status import Code, GrpcError
from pier.grpc.stream import Stream
from pier.model.digest import digest_of

NO = -1
_CONTROL = "/moby.buildkit.v1.Control"
_DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
_GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge"


Ask = Callable[[str, bytes], Awaitable[bytes]]


class Llb:
    """Operations, each known by its digest."""

    def __init__(self) -> None:
        self.ops: dict[str, bytes] = {}

    def add(self, op: ops.Op, *inputs: "str | tuple[str, int]") -> str:
        for given in inputs:
            digest, index = given if isinstance(given, tuple) else (given, 0)
            op.inputs.append(ops.Input(digest=digest, index=index))
        data = op.encode()
        self.ops[digest_of(data)] = data
        return digest_of(data)

    def source(self, identifier: str, **attributes: str) -> str:
        attrs = {name.replace("_", "."): value for name, value in attributes.items()}
        return self.add(ops.Op(inputs=[], source=ops.SourceOp(identifier, attrs)))

    def run(
        self, root: str, script: str, *mounts: ops.Mount, inputs: Sequence[str] = (), **meta: object
    ) -> str:
        """A shell's command; `mounts` name their inputs by number, 0 for the root's."""
        described = ops.Meta(args=["sh", "-c", script], cwd="/", **meta)  # type: ignore[arg-type]
        whole = ops.Mount(input=0, dest="/", output=0)
        op = ops.ExecOp(meta=described, mounts=[whole, *mounts])
        return self.add(ops.Op(inputs=[], exec=op), root, *inputs)

    def file(self, *actions: ops.FileAction, inputs: Sequence[str] = ()) -> str:
        return self.add(ops.Op(inputs=[], file=ops.FileOp(actions=list(actions))), *inputs)

    def definition(
        self, last: "str | tuple[str, int]", *, fresh: Sequence[str] = ()
    ) -> ops.Definition:
        digest, index = last if isinstance(last, tuple) else (last, 0)
        end = ops.Op(inputs=[ops.Input(digest=digest, index=index)]).encode()
        metadata = {digest: ops.OpMetadata(ignore_cache=True) for digest in fresh}
        return ops.Definition(ops=[*self.ops.values(), end], metadata=metadata)


class _Served:
    """A stream that we serve, and end with a status of ours."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.receive = stream.receive

    async def send(self, message: bytes, *, end: bool = False) -> None:
        await self._stream.send(message)


class Solved(Struct):
    response: dict[str, str]
    vertexes: dict[str, control.Vertex]
    logs: bytes


class LlbClient:
    """Use it in an `async with`; `directories` are what `local://NAME` stands for."""

    def __init__(
        self,
        path: str,
        directories: Mapping[str, Path] = {},
        lent: Mapping[str, bytes] = {},
    ) -> None:
        self._path = path
        self._directories = directories
        self._lent = lent
        self.session = secrets.token_hex(16)
        self._threads = ThreadPoolExecutor(2)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._server = Server({_GET_SECRET: Method(session.GetSecretRequest, self._secret)})
        headers = f"X-Docker-Expose-Session-Uuid: {self.session}\r\n"
        headers += "X-Docker-Expose-Session-Sharedkey: key\r\n"
        for method in (_DIFF_COPY, _GET_SECRET):
            headers += f"X-Docker-Expose-Session-Grpc-Method: {method}\r\n"
        own = Connection(is_client=False, accept=self._accept)
        await self._stack.enter_async_context(self._turned("/session", headers, own))
        self._connection = Connection(is_client=True)
        await self._stack.enter_async_context(self._turned("/grpc", "", self._connection))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._threads.shutdown()

    @contextlib.asynccontextmanager
    async def _turned(self, path: str, headers: str, to: Connection) -> AsyncIterator[None]:
        """Make a connection HTTP/2's."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await loop.sock_connect(sock, self._path)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        await loop.sock_sendall(sock, f"{head}{headers}\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await loop.sock_recv(sock, 1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        await loop.connect_accepted_socket(lambda: to, sock)
        try:
            yield
        finally:
            to.close()

    async def _secret(
        self, _call: Call, request: session.GetSecretRequest
    ) -> session.GetSecretResponse:
        if request.ID not in self._lent:
            raise GrpcError(Code.NOT_FOUND, "no such secret")
        return session.GetSecretResponse(self._lent[request.ID])

    async def _accept(self, stream: Stream) -> None:
        headers = dict(await stream.wait_headers())
        if headers[":path"] != _DIFF_COPY:
            await self._server.accept(stream)
            return
        stream.send_headers([(":status", "200"), ("content-type", "application/grpc")])
        directory = self._directories[headers["dir-name"]]
        await send_tree(_Served(stream), str(directory), self._threads)  # type: ignore[arg-type]
        stream.send_headers([("grpc-status", "0")], end=True)

    async def solve(
        self,
        definition: ops.Definition,
        *,
        name: str = "",
        entitlements: Sequence[str] = (),
    ) -> Solved:
        """Build, into an image of that name when there is one. Raises GrpcError."""
        request = control.SolveRequest(
            Ref=secrets.token_hex(8),
            definition=definition,
            Session=self.session,
            Entitlements=list(entitlements),
        )
        if name:
            request.Exporters = [control.Exporter(Type="moby", Attrs={"name": name})]
        solved = Solved({}, {}, b"")
        status = asyncio.create_task(self._status(request.Ref, solved))
        try:
            answer = await self._connection.ask(f"{_CONTROL}/Solve", request.encode())
        finally:
            await status
        solved.response = control.SolveResponse.decode(answer).ExporterResponse
        return solved

    async def _status(self, ref: str, solved: Solved) -> None:
        stream = self._connection.call(f"{_CONTROL}/Status")
        await stream.send(control.StatusRequest(Ref=ref).encode(), end=True)
        while (data := await stream.receive()) is not None:
            told = control.StatusResponse.decode(data)
            solved.vertexes.update({vertex.digest: vertex for vertex in told.vertexes})
            solved.logs += b"".join(log.msg for log in told.logs)
        check_end(stream)

    async def read(self, definition: ops.Definition, path: str) -> bytes:
        """Read a file of what a definition comes to, as a frontend does."""
        data = b""

        async def work(ask: Ask, ref: str) -> gateway.Result:
            nonlocal data
            read = gateway.ReadFileRequest(Ref=ref, FilePath=path)
            data = gateway.ReadFileResponse.decode(await ask("ReadFile", read.encode())).Data
            return gateway.Result()

        await self._frontend(definition, "", work)
        return data

    async def build(
        self, definition: ops.Definition, name: str, metadata: Mapping[str, bytes]
    ) -> None:
        """Give back what a definition comes to, with metadata, as a frontend does."""

        async def work(_ask: Ask, ref: str) -> gateway.Result:
            return gateway.Result(ref=gateway.Ref(id=ref), metadata=dict(metadata))

        await self._frontend(definition, name, work)

    async def _frontend(
        self,
        definition: ops.Definition,
        name: str,
        work: Callable[["Ask", str], Awaitable[gateway.Result]],
    ) -> None:
        request = control.SolveRequest(Ref=secrets.token_hex(8), Session=self.session)
        if name:
            request.Exporters = [control.Exporter(Type="moby", Attrs={"name": name})]
        whose = {"buildkit-controlapi-buildid": [request.Ref]}

        async def ask(method: str, data: bytes) -> bytes:
            return await self._connection.ask(f"{_BRIDGE}/{method}", data, whose)

        whole = self._connection.ask(f"{_CONTROL}/Solve", request.encode())
        building = asyncio.create_task(whole)
        given = gateway.Result()
        try:
            wanted = gateway.SolveRequest(definition=definition, Evaluate=True)
            found = gateway.SolveResponse.decode(await ask("Solve", wanted.encode())).result
            assert found is not None
            assert found.ref is not None
            given = await work(ask, found.ref.id)
        finally:
            await ask("Return", gateway.ReturnRequest(result=given).encode())
            await building
