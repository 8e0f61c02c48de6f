"""The Control service: what clients build, look at and clean up through."""

import itertools
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from pier.build.attest.provenance import provenance
from pier.build.caches.entry import CacheEntry
from pier.build.export.exporter import credentials_of
from pier.build.keeping import Kept, Rule, rule_filters
from pier.build.kept_contexts import KeptContexts
from pier.build.progress import Work, working
from pier.build.result import BuildResult, Order
from pier.build.threads import finished
from pier.buildkit import attributes
from pier.buildkit.attributes import Wanted
from pier.buildkit.details import solve_error
from pier.buildkit.history import History
from pier.buildkit.inputs import Results, definition_of
from pier.buildkit.jobs import Job, Jobs, Solve
from pier.buildkit.messages import control, gateway
from pier.buildkit.messages.ops import Definition
from pier.buildkit.messages.worker import BuildkitVersion, GCPolicy, WorkerRecord
from pier.buildkit.platforms import supported
from pier.buildkit.session import Session
from pier.buildkit.sessions import Sessions
from pier.buildkit.solve import LINT, OUTLINE, TARGETS, DockerfileSolve, check_frontend
from pier.buildkit.workshop import Workshop
from pier.errors import InvalidParameter, NotFound, Unsupported
from pier.grpc.server import Call, Method
from pier.model.gotime import now_ns
from pier.model.platform import Platform as HostPlatform
from pier.registry.credentials import Credentials

SERVICE = "/moby.buildkit.v1.Control"
VERSION = BuildkitVersion(package="github.com/moby/buildkit", version="v0.25.1")
_DESCRIBE = "frontend.subrequests.describe"
_REQUESTS = {
    OUTLINE: "List all parameters current build target supports",
    TARGETS: "List all targets current build supports",
    LINT: "Lint a Dockerfile",
    _DESCRIBE: "List available subrequest types",
}
# What a build begins with: what its result is to be.
Begin = Callable[[Job], Awaitable[gateway.Result]]

_SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"
_IMAGE_CONFIG = "containerimage.config"
_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"


class Control:
    def __init__(
        self,
        workshop: Workshop,
        sessions: Sessions,
        jobs: Jobs,
        trees: KeptContexts,
        history: History,
        worker_id: str,
    ) -> None:
        self._workshop = workshop
        self._sessions = sessions
        self._jobs = jobs
        self._trees = trees
        self._history = history
        self._worker_id = worker_id
        self._results = Results(jobs)

    def methods(self) -> dict[str, Method]:
        table = {
            "Solve": Method(control.SolveRequest, self.solve),
            "Status": Method(control.StatusRequest, self.status),
            "ListWorkers": Method(control.ListWorkersRequest, self.list_workers),
            "Info": Method(control.InfoRequest, self.info),
            "DiskUsage": Method(control.DiskUsageRequest, self.disk_usage),
            "Prune": Method(control.PruneRequest, self.prune),
            "ListenBuildHistory": Method(control.BuildHistoryRequest, self._history.listen),
            "UpdateBuildHistory": Method(control.UpdateBuildHistoryRequest, self._history.update),
        }
        own = {f"{SERVICE}/{name}": method for name, method in table.items()}
        return {**own, **self._history.methods()}

    # Building

    async def solve(self, call: Call, request: control.SolveRequest) -> control.SolveResponse:
        """Build and export. With no frontend the client has its own, which drives the gateway."""
        return control.SolveResponse(await self.run(request, self._asked))

    async def run(self, request: control.SolveRequest, begin: Begin) -> dict[str, str]:
        """Build what `begin` names, and export it as the request says; return the answer's keys."""
        try:
            async with self._jobs.running(request.Ref) as job:
                job.request = request
                if request.Internal:
                    return await self._solved(job, begin)
                with self._history.recorded(job) as record:
                    record.ExporterResponse = await self._solved(job, begin)
                    return dict(record.ExporterResponse)
        finally:
            self._workshop.tidy()

    async def _asked(self, job: Job) -> gateway.Result:
        request = job.request
        if request.definition is not None and request.definition.ops:
            ref = await self.load_llb(job, request.definition)
            return gateway.Result(ref=gateway.Ref(id=ref))
        if request.Frontend:
            return await self.load(
                job, request.Frontend, request.FrontendAttrs, request.FrontendInputs
            )
        return await job.returned

    async def _solved(self, job: Job, begin: Begin) -> dict[str, str]:
        given = await begin(job)
        found = given.ref or (next(iter(given.refs.refs.values())) if given.refs else None)
        ref = found.id if found is not None else ""
        if not ref:
            return {}
        solve = job.solve_of(ref)
        result = await solve.result(given.metadata.get(_IMAGE_CONFIG, b""))
        self._results.keep(ref, result)
        job.provenance = _provenance(result, job.ref)
        answer: dict[str, str] = dict(result.cache_answer)
        for order in _orders(job.request):
            name = _EXPORTING.get(order.type, "exporting")
            with working(job.board, name, key=job.ref) as work:
                answer |= await self._exported(job, work, order, result)
        return answer

    async def _exported(
        self, job: Job, work: Work, order: Order, result: BuildResult
    ) -> dict[str, str]:
        client = job.client or self._sessions.find(job.request.Session)
        try:
            exporter = self._workshop.exporter(order.type)
            kept = order.type == "moby" and "push" not in order.attributes
            if kept and not result.is_list and _is_inline(result.provenance):
                # The engine's own store: as with dockerd's, provenance that nobody asked for in
                # words is the build's history's, and the image stays one manifest.
                result = replace(result, provenance=None)
            return await exporter.export(result, order, client, work)
        except Exception as exc:
            raise solve_error(exc, source=None, places=()) from exc

    async def load(
        self,
        job: Job,
        frontend: str,
        values: Mapping[str, str],
        inputs: Mapping[str, Definition],
        imports: Sequence[CacheEntry] = (),
    ) -> gateway.Result:
        """Read a Dockerfile and begin to build; return the reference of what it comes to, or what
        else was asked for.
        """
        check_frontend(frontend, values)
        session = await self._sessions.wait(job.request.Session)
        merged = {**job.request.FrontendAttrs, **values}
        cache = job.request.Cache or control.CacheOptions()
        wanted = attributes.read(
            *(merged, session, job.request.Entitlements),
            imports=[*imports, *entries(cache.Imports)],
            exports=entries(cache.Exports),
        )
        if wanted.request not in ("", *_REQUESTS):
            raise Unsupported(f"unsupported request {wanted.request}")
        contexts = await self._results.contexts(
            wanted.options.contexts, inputs, partial(self._image, job)
        )
        wanted = replace(wanted, options=replace(wanted.options, contexts=contexts))
        return await self.begin(job, wanted, session, files=await self._files(job, inputs))

    async def begin(
        self, job: Job, wanted: Wanted, session: Session | None, *, files: Solve | None = None
    ) -> gateway.Result:
        """As `load`, of attributes that have been read."""
        solve = DockerfileSolve(
            *(self._workshop, self._trees, session, wanted, job.board),
            client=job.client or session,
            files=files,
        )
        ref = f"{job.ref}-{len(job.solves)}"
        job.solves[ref] = solve
        if wanted.request == _DESCRIBE:
            return gateway.Result(metadata=described())
        await solve.load(ref)
        if wanted.request:
            return gateway.Result(metadata=await solve.answer(wanted.request))
        await solve.warn()
        solve.start()
        return gateway.Result(ref=gateway.Ref(ref, definition_of(ref)))

    async def _files(self, job: Job, inputs: Mapping[str, Definition]) -> Solve | None:
        """Begin to solve the context that a client gave as a definition, None where it gave none."""
        context = inputs.get("context")
        if context is None:
            if "dockerfile" in inputs:
                raise Unsupported("a definition of the Dockerfile alone is not supported by pierd")
            return None
        if inputs.get("dockerfile", context).ops != context.ops:
            raise Unsupported("a Dockerfile of another definition is not supported by pierd")
        return job.solve_of(await self.load_llb(job, context))

    async def _image(self, job: Job, definition: Definition) -> str:
        """Solve an input; return the ID of an image of it."""
        solve = job.solve_of(await self.load_llb(job, definition))
        image = (await solve.result()).platforms[0].image
        assert image is not None  # a definition comes to one, if an empty one
        return image.id

    async def load_llb(self, job: Job, definition: Definition) -> str:
        """Begin to solve a definition; return the reference of what it comes to."""
        from pier.buildkit.llb.solver import LlbSolve  # noqa: PLC0415 - few clients send one

        request = job.request
        session = await self._sessions.wait(request.Session) if request.Session else None
        allowed = attributes.allowed(request.Entitlements)
        solve = LlbSolve(
            self._workshop, self._trees, session, definition, job.board, allowed=allowed
        )
        ref = f"{job.ref}-{len(job.solves)}"
        job.solves[ref] = solve
        solve.start()
        return ref

    async def resolve(
        self, job: Job, reference: str, platform: HostPlatform | None
    ) -> tuple[str, bytes]:
        """Return the digest and the config of an image, pulled where it is not here."""
        session = await self._sessions.wait(job.request.Session)

        async def credentials(domain: str) -> Credentials:
            return await credentials_of(session, domain)

        shop = self._workshop.shop(credentials)
        try:
            image = shop.store.get(reference, platform)
        except NotFound:
            await shop.runner.pull(reference, platform, lambda _: None)
            image = shop.store.get(reference, platform)
        read = partial(shop.store.blobs.read, image.id)
        return image.id, await finished(shop.executor, read)

    async def status(self, call: Call, request: control.StatusRequest) -> None:
        if (stored := self._history.status_of(request.Ref)) is not None:
            await call.send(stored)
            return
        job = await self._jobs.wait(request.Ref)
        async for response in job.board.listen():
            await call.send(response)

    # What there is

    async def list_workers(
        self, call: Call, request: control.ListWorkersRequest
    ) -> control.ListWorkersResponse:
        return control.ListWorkersResponse([self.worker()])

    def worker(self) -> WorkerRecord:
        """Return what is told of the one worker that there is."""
        return WorkerRecord(
            ID=self._worker_id,
            # buildx itself turns `--add-host NAME:host-gateway` into this address.
            Labels={_GATEWAY: self._workshop.host_gateway(), _SNAPSHOTTER: "overlayfs"},
            platforms=supported(),
            gCPolicy=[_policy(rule) for rule in self._workshop.rules()],
            buildkitVersion=VERSION,
        )

    async def info(self, call: Call, request: control.InfoRequest) -> control.InfoResponse:
        return control.InfoResponse(VERSION)

    async def disk_usage(
        self, call: Call, request: control.DiskUsageRequest
    ) -> control.DiskUsageResponse:
        before = now_ns() - request.ageLimit if request.ageLimit else None
        records = [use for use in await self._workshop.usage() if _fits(use, request.filter)]
        return control.DiskUsageResponse(
            [_record(use) for use in records if before is None or use.used_at < before]
        )

    async def prune(self, call: Call, request: control.PruneRequest) -> None:
        """Filters of several strings are rules one after another, since any of them may fit."""
        for text in request.filter or [""]:
            rule = Rule(
                filters=_prune_filters(text),
                everything=request.all,
                unused_ns=request.keepDuration,
                reserved=request.reservedSpace,
                max_used=request.maxUsedSpace,
                min_free=request.minFreeSpace,
            )
            for use in await self._workshop.prune(rule):
                await call.send(_record(use))


def entries(
    given: Sequence[control.CacheOptionsEntry] | Sequence[gateway.CacheOptionsEntry],
) -> list[CacheEntry]:
    return [CacheEntry(entry.Type, entry.Attrs) for entry in given]


def described() -> dict[str, bytes]:
    """What may be asked of the frontend beside a build (`docker buildx build --call`)."""
    metadata = [{"name": "result.json"}, {"name": "result.txt"}]
    requests = [
        {
            "name": name,
            "version": "1.0.0",
            "type": "rpc",
            "description": description,
            "opts": None,
            "metadata": metadata,
        }
        for name, description in _REQUESTS.items()
    ]
    text = "".join(f"{name:<35} {description}\n" for name, description in _REQUESTS.items())
    return {
        "result.json": msgspec.json.encode(requests),
        "result.txt": text.encode(),
        "version": b"1.0.0",
    }


def _provenance(result: BuildResult, ref: str) -> list[tuple[str, bytes]]:
    """Return what the history says of how each platform's image was made."""
    fields = {k: v for k, v in (result.provenance or {}).items() if k != "inline-only"}
    made = [provenance(result, one, fields, ref) for one in result.platforms]
    return [(said.type, msgspec.json.format(msgspec.json.encode(said.body))) for said in made]


def _is_inline(provenance: Mapping[str, str] | None) -> bool:
    return provenance is not None and provenance.get("inline-only") == "true"


_EXPORTING = {
    "moby": "exporting to image",
    "image": "exporting to image",
    "docker": "exporting to docker image format",
    "oci": "exporting to oci image format",
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
}


def _orders(request: control.SolveRequest) -> list[Order]:
    """What is to be exported; the first one also stands in fields of older clients."""
    found = [
        Order(exporter.Type, exporter.Attrs, str(number))
        for number, exporter in enumerate(request.Exporters)
    ]
    if not found and request.ExporterDeprecated:
        found = [Order(request.ExporterDeprecated, request.ExporterAttrsDeprecated, "")]
    return found


def _policy(rule: Rule) -> GCPolicy:
    # Any of them may fit, each of which says something of every key.
    choices = ([f"{key}=={value}" for value in values] for key, values in rule.filters.items())
    filters = [",".join(chosen) for chosen in itertools.product(*choices)] if rule.filters else []
    return GCPolicy(
        all=rule.everything,
        keepDuration=rule.unused_ns,
        filters=filters,
        reservedSpace=rule.reserved,
        maxUsedSpace=rule.max_used,
        minFreeSpace=rule.min_free,
    )


def _record(use: Kept) -> control.UsageRecord:
    return control.UsageRecord(
        ID=use.id,
        Mutable=use.kind != "regular",
        InUse=use.in_use,
        Size=use.size,
        CreatedAt=use.created_at,
        LastUsedAt=use.used_at,
        UsageCount=use.uses,
        Description=use.description,
        RecordType=use.kind,
        Shared=use.shared,
        Parents=[use.parent] if use.parent else [],
    )


_FILTER = re.compile(r"(\w+)(==|!=|~=)(.*)")


def _fits(use: Kept, filters: Sequence[str]) -> bool:
    """Containerd's filters: those of one string are all to fit, of several strings any."""
    if not any(filters):
        return True
    return any(all(_fits_one(use, part) for part in text.split(",")) for text in filters if text)


def _prune_filters(text: str) -> Mapping[str, Collection[str]]:
    """Read one string of containerd's filters, which names what goes. Raises InvalidParameter."""
    found: dict[str, list[str]] = {}
    for part in text.split(",") if text else ():
        match = _FILTER.fullmatch(part)
        if match is None or match[2] == "!=":
            raise InvalidParameter(f"filters: parse error: [{part}]")
        found.setdefault(match[1], []).append(match[3])
    return rule_filters(found, now_ns())[0]


def _fits_one(use: Kept, text: str) -> bool:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise InvalidParameter(f"filters: parse error: [{text}]")
    key, operator, wanted = found.groups()
    values = {
        "id": use.id,
        "type": use.kind,
        "description": use.description,
        "inuse": str(use.in_use).lower(),
        "shared": str(use.shared).lower(),
        "mutable": str(use.kind != "regular").lower(),
        "private": str(not use.shared).lower(),
    }
    value = values.get(key, "")
    if operator == "~=":
        return re.search(wanted, value) is not None
    return (value == wanted) == (operator == "==")
