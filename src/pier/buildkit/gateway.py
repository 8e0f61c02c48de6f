"""The LLBBridge service: what a frontend on the client's side asks while its build is going on.

buildx is such a frontend: it opens a build without one (`Control.Solve`), asks here for the
Dockerfile to be solved, and returns what that came to. The build is named in a header.
"""

from functools import partial

from pier.build.progress import Place, Source, Warned
from pier.buildkit import reading
from pier.buildkit.caps import FRONTEND, LLB, caps
from pier.buildkit.control import Control, entries
from pier.buildkit.jobs import Job, Jobs
from pier.buildkit.messages import gateway
from pier.errors import InvalidParameter, Unsupported
from pier.grpc.server import Call, Method
from pier.grpc.status import GrpcError
from pier.model.platform import Platform
from pier.model.reference import parse_reference

SERVICE = "/moby.buildkit.v1.frontend.LLBBridge"
BUILD_ID = "buildkit-controlapi-buildid"


class Gateway:
    def __init__(self, control: Control, jobs: Jobs) -> None:
        self._control = control
        self._jobs = jobs

    def methods(self) -> dict[str, Method]:
        table = {
            "Ping": Method(gateway.PingRequest, self.ping),
            "Solve": Method(gateway.SolveRequest, self.solve),
            "Return": Method(gateway.ReturnRequest, self.give_back),
            "Inputs": Method(gateway.InputsRequest, self.inputs),
            "Warn": Method(gateway.WarnRequest, self.warn),
            "Evaluate": Method(gateway.EvaluateRequest, self.evaluate),
            "ResolveImageConfig": Method(gateway.ResolveImageConfigRequest, self.resolve),
            "ReadFile": Method(gateway.ReadFileRequest, self.read_file),
            "ReadDir": Method(gateway.ReadDirRequest, self.read_dir),
            "StatFile": Method(gateway.StatFileRequest, self.stat_file),
            "NewContainer": Method(gateway.NewContainerRequest, self.new_container),
        }
        return {f"{SERVICE}/{name}": method for name, method in table.items()}

    async def _job(self, call: Call) -> Job:
        ref = call.value(BUILD_ID)
        if not ref:
            raise InvalidParameter("no buildid found in context")
        return await self._jobs.wait(ref)

    async def ping(self, call: Call, request: gateway.PingRequest) -> gateway.PongResponse:
        await self._job(call)
        return gateway.PongResponse(caps(FRONTEND), caps(LLB), [self._control.worker()])

    async def solve(self, call: Call, request: gateway.SolveRequest) -> gateway.SolveResponse:
        job = await self._job(call)
        if request.definition is not None and request.definition.ops:
            ref = await self._control.load_llb(job, request.definition)
            if request.Evaluate:
                await job.solve_of(ref).evaluate()
            return gateway.SolveResponse(
                result=gateway.Result(ref=gateway.Ref(ref, request.definition))
            )
        if not request.Frontend:
            return gateway.SolveResponse(result=gateway.Result(ref=gateway.Ref()))
        result = await self._control.load(
            *(job, request.Frontend, request.FrontendOpt, request.FrontendInputs),
            imports=entries(request.CacheImports),
        )
        if request.Evaluate and result.ref is not None:
            await job.solve_of(result.ref.id).evaluate()
        return gateway.SolveResponse(result=result)

    async def give_back(self, call: Call, request: gateway.ReturnRequest) -> gateway.ReturnResponse:
        job = await self._job(call)
        if job.returned.done():
            raise InvalidParameter("the build has a result already")
        if request.error is not None and request.error.code:
            error = request.error
            job.returned.set_exception(GrpcError(error.code, error.message, error.details))
        else:
            job.returned.set_result(request.result or gateway.Result())
        return gateway.ReturnResponse()

    async def inputs(self, call: Call, request: gateway.InputsRequest) -> gateway.InputsResponse:
        await self._job(call)
        return gateway.InputsResponse()

    async def warn(self, call: Call, request: gateway.WarnRequest) -> gateway.WarnResponse:
        job = await self._job(call)
        source, places = None, []
        if request.info is not None:
            info = request.info
            source = Source(info.filename, info.data, info.language)
            places = [
                Place(r.start.line, r.end.line, r.start.character, r.end.character)
                for r in request.ranges
                if r.start is not None and r.end is not None
            ]
        job.board.warn(
            Warned(
                vertex=request.digest,
                short=request.short.decode("utf-8", "replace"),
                detail=[line.decode("utf-8", "replace") for line in request.detail],
                url=request.url,
                level=request.level,
                source=source,
                places=places,
            )
        )
        return gateway.WarnResponse()

    async def evaluate(
        self, call: Call, request: gateway.EvaluateRequest
    ) -> gateway.EvaluateResponse:
        job = await self._job(call)
        if request.Ref:
            await job.solve_of(request.Ref).evaluate()
        return gateway.EvaluateResponse()

    async def resolve(
        self, call: Call, request: gateway.ResolveImageConfigRequest
    ) -> gateway.ResolveImageConfigResponse:
        job = await self._job(call)
        asked = request.platform
        platform = (
            Platform(os=asked.OS, architecture=asked.Architecture, variant=asked.Variant)
            if asked is not None
            else None
        )
        if request.ResolverType:
            raise Unsupported("configurations out of OCI layouts are not supported by pierd")
        reference = str(parse_reference(request.Ref).tagged())
        digest, config = await self._control.resolve(job, reference, platform)
        return gateway.ResolveImageConfigResponse(digest, config, reference)

    async def read_file(
        self, call: Call, request: gateway.ReadFileRequest
    ) -> gateway.ReadFileResponse:
        part = request.Range or gateway.FileRange()
        solve = (await self._job(call)).solve_of(request.Ref)
        read = partial(
            reading.read_file, path=request.FilePath, offset=part.Offset, length=part.Length
        )
        return gateway.ReadFileResponse(await solve.look(read))

    async def read_dir(
        self, call: Call, request: gateway.ReadDirRequest
    ) -> gateway.ReadDirResponse:
        solve = (await self._job(call)).solve_of(request.Ref)
        read = partial(reading.read_dir, path=request.DirPath, pattern=request.IncludePattern)
        return gateway.ReadDirResponse(await solve.look(read))

    async def stat_file(
        self, call: Call, request: gateway.StatFileRequest
    ) -> gateway.StatFileResponse:
        solve = (await self._job(call)).solve_of(request.Ref)
        return gateway.StatFileResponse(
            await solve.look(partial(reading.stat_file, path=request.Path))
        )

    async def new_container(
        self, call: Call, request: gateway.NewContainerRequest
    ) -> gateway.NewContainerResponse:
        raise Unsupported("containers of frontends are not supported by pierd")
