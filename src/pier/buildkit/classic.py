"""POST /build?version=2: BuildKit by way of the classic API (moby builder/builder-next).

    client                                              pierd
      POST /session, X-Docker-Expose-Session-Uuid: S    ──▶  asked for files, secrets, passwords
      POST /build?version=2&session=S&buildid=B         ──▶
           &remote=client-session        the session's own directory
           &remote=URL                   a repository or an archive that we fetch
           &remote=upload-request        what another request brings, `buildid=upload-request:B`
           &remote=                      the body: an archive, or a Dockerfile alone
      ◀──  {"id": "moby.buildkit.trace", "aux": base64 of a StatusResponse} …
      ◀──  {"id": "moby.image.id", "aux": {"ID": …}}
      POST /build/cancel?id=B           ──▶  at any time

Old docker commands, dockerode and Testcontainers build so, with a session and without one.
"""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pier.build.caches.entry import CacheEntry
from pier.build.export.exporter import HUB_KEY, credentials_of
from pier.build.failures import BuildFailed
from pier.build.fetching import UPLOADS
from pier.build.options import NETWORK_HOST, SANDBOX, BuildOptions, attributes_of
from pier.build.result import Order
from pier.build.session import FileWriter, need
from pier.buildkit.attributes import Wanted
from pier.buildkit.control import Control
from pier.buildkit.jobs import Job, Jobs
from pier.buildkit.messages import control, gateway
from pier.buildkit.session import Session
from pier.buildkit.sessions import Sessions
from pier.buildkit.uploads import Body, Uploads
from pier.buildkit.workshop import CredentialsFor, Workshop
from pier.errors import Internal, NotFound
from pier.registry.credentials import ANONYMOUS, Credentials

CLIENT, _UPLOAD = "client-session", "upload-request"
_IMAGES = ("moby", "image")
_NETWORKS = ("", "default", "none", "host")

Tell = Callable[[Mapping[str, Any]], None]


class Request(Struct, frozen=True):
    """`session` and `build_id` are the client's names for its own, "" for none."""

    options: BuildOptions
    body: Body
    credentials: CredentialsFor
    remote: str = ""
    session: str = ""
    build_id: str = ""


class _Client:
    """Who asks for a build: a session where there is one, and what came with the request.

    `build.export.exporter.Receiver` and `build.fetching.Uploader`.
    """

    def __init__(self, session: Session | None, body: Body, credentials: CredentialsFor) -> None:
        self._session = session
        self._body = body
        self._credentials = credentials

    async def credentials(self, host: str) -> tuple[str, str]:
        """Ask the session, and look into the request's header for what it does not have."""
        if (await credentials_of(self._session, host)) != ANONYMOUS:
            assert self._session is not None
            return await self._session.credentials(host)
        who = await self._credentials("docker.io" if host == HUB_KEY else host)
        return (who.username, who.password) if who.username else ("", who.identitytoken)

    async def send_tree(self, exporter: str, directory: str) -> None:
        await need(self._session, "export of files").send_tree(exporter, directory)

    async def send_file(self, exporter: str, attributes: Mapping[str, str]) -> FileWriter:
        return await need(self._session, "export of an archive").send_file(exporter, attributes)

    def upload(self, path: str) -> Body:
        return self._body


class ClassicBuilds:
    """For pierd's loop."""

    def __init__(
        self, workshop: Workshop, sessions: Sessions, jobs: Jobs, control_: Control
    ) -> None:
        self._workshop = workshop
        self._sessions = sessions
        self._jobs = jobs
        self._control = control_
        self._running: dict[str, asyncio.Task[dict[str, str]]] = {}
        self._uploads = Uploads()

    async def build(self, request: Request, tell: Tell) -> None:
        """Build, or bring another build its context. Raises PierError."""
        role, colon, build_id = request.build_id.partition(":")
        if colon and role == _UPLOAD:
            await self._uploads.bring(build_id, request.body)
            return
        _check(request.options)
        async with contextlib.AsyncExitStack() as stack:
            if request.remote == _UPLOAD:
                body = await stack.enter_async_context(self._uploads.taken(request.build_id))
                request = replace(request, body=body, remote="")
            await self._build(request, tell)

    async def _build(self, request: Request, tell: Tell) -> None:
        session = await self._sessions.wait(request.session) if request.session else None
        context = "" if request.remote == CLIENT else request.remote or f"{UPLOADS}body"
        wanted = _wanted(request, session, context, self._caches(request.options))
        client = _Client(session, request.body, request.credentials)
        identifier = await self._run(request, wanted, session, client, tell)
        if request.options.quiet and identifier:
            tell({"stream": f"{identifier}\n"})

    def cancel(self, build_id: str) -> None:
        if (task := self._running.get(build_id)) is not None:
            task.cancel()

    async def _run(
        self,
        request: Request,
        wanted: Wanted,
        session: Session | None,
        client: _Client,
        tell: Tell,
    ) -> str:
        """Return the image's ID, "" where the output is none."""
        ref, options = uuid.uuid4().hex, wanted.options
        order = _order(options)
        asked = control.SolveRequest(
            Ref=ref,
            Session=request.session,
            Frontend="dockerfile.v0",
            FrontendAttrs=dict(options.frontend_attributes or {}),
            Exporters=[control.Exporter(order.type, dict(order.attributes))] if order else [],
        )

        async def begin(job: Job) -> gateway.Result:
            job.client = client
            return await self._control.begin(job, wanted, session)

        solving = asyncio.create_task(self._control.run(asked, begin), name="build")
        if request.build_id:
            self._running[request.build_id] = solving
        try:
            job = await self._jobs.wait(ref)
            async for response in job.board.listen():
                if not options.quiet:
                    trace = base64.b64encode(response.encode()).decode()
                    tell({"id": "moby.buildkit.trace", "aux": trace})
            await asyncio.wait([solving])
            if solving.cancelled():
                raise BuildFailed("context canceled")
            answer = solving.result()
        finally:
            solving.cancel()
            await asyncio.wait([solving])
            if self._running.get(request.build_id) is solving:
                del self._running[request.build_id]
        if order is None or order.type not in _IMAGES:
            return ""
        identifier = answer.get("containerimage.digest", "")
        if not options.quiet:
            tell({"id": "moby.image.id", "aux": {"ID": identifier}})
        return identifier

    def _caches(self, options: BuildOptions) -> list[CacheEntry]:
        """Return the caches to read: images that are not here are looked for in their registries."""
        store = self._workshop.shop(_nobody).store
        found = list(options.cache_imports)
        for name in options.cache_from:
            try:
                store.get(name)
            except NotFound:
                found.append(CacheEntry("registry", {"ref": name}))
        return found


async def _nobody(_domain: str) -> Credentials:
    return ANONYMOUS


def _check(options: BuildOptions) -> None:
    """Raise for what BuildKit does not do, in its words."""
    if len(options.outputs) > 1:
        raise Internal("multiple outputs not supported")
    if options.network not in _NETWORKS:
        raise Internal(f'network mode "{options.network}" not supported by buildkit')


def _wanted(
    request: Request, session: Session | None, context: str, imports: Sequence[CacheEntry]
) -> Wanted:
    """Return what POST /build asks for as a client of BuildKit's would have."""
    options = request.options
    name = "" if options.dockerfile == "." else options.dockerfile
    is_host = options.network == "host"
    options = replace(
        options,
        dockerfile=name,
        session=session,
        network="" if options.network == "default" else options.network,
        allowed=[NETWORK_HOST] if is_host else [],
        is_cache_from_alone=False,
        cache_imports=imports,
        force_remove=True,
        hostname=SANDBOX,
        remote="",
    )
    options = replace(options, frontend_attributes=_attributes(options, request.remote))
    return Wanted(
        options=options,
        request="",
        context=context,
        context_key="context",
        dockerfile_key="dockerfile",
    )


def _attributes(options: BuildOptions, remote: str) -> dict[str, str]:
    """Return the frontend's attributes, for the history and provenance."""
    found = attributes_of(options)
    if options.dockerfile:
        found["filename"] = options.dockerfile
    if remote and remote != CLIENT:
        found["context"] = remote
    if platforms := options.platforms or ([options.platform] if options.platform else []):
        found["platform"] = ",".join(str(platform) for platform in platforms)
    if not options.use_cache:
        found["no-cache"] = ""
    found["image-resolve-mode"] = "pull" if options.pull else "default"
    return found


def _order(options: BuildOptions) -> Order | None:
    """Return the one output, None for a build that only fills the cache."""
    order = options.outputs[0] if options.outputs else Order("moby")
    if order.type == "cacheonly":
        return None
    if order.type in _IMAGES and options.references:
        names = ",".join(str(reference) for reference in options.references)
        return replace(order, attributes={**order.attributes, "name": names})
    return order
