"""Registries as the engine talks to them: endpoints, connections, and what is remembered of each.

`Registries` lives as long as the engine. `Link` is one endpoint for one user and one piece of work.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import aiohttp

from pier.errors import NotFound, PierError
from pier.registry.auth import Authorizer, Scopes, Tokens, read_limited
from pier.registry.certificates import tls_context
from pier.registry.challenge import Challenge, parse_challenges
from pier.registry.credentials import ANONYMOUS, Credentials
from pier.registry.endpoints import Endpoint, RegistrySettings, lookup, trusting
from pier.registry.errors import Refused, RegistryError, Unreachable, refused
from pier.registry.transport import Body, new_session, send

log = logging.getLogger(__name__)

# How long it is believed that a registry is where and what it was.
REMEMBER_S = 300.0
MAX_ERROR_BYTES = 64 << 10

T = TypeVar("T")


class Registries:
    """To be made and closed on the loop. `threads` is where blobs are read, written and hashed."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self.downloads = asyncio.Semaphore(settings.max_downloads)
        self.uploads = asyncio.Semaphore(settings.max_uploads)
        self.threads = ThreadPoolExecutor(
            settings.max_downloads + settings.max_uploads + 2, thread_name_prefix="registry"
        )
        self.tokens = Tokens()
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[str, bool], tuple[ssl.SSLContext, float]] = {}
        self._pinged: dict[Endpoint, tuple[list[Challenge], float]] = {}

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Use other settings from the next request on; what is under way goes on as it began."""
        self.settings = settings
        self.downloads = asyncio.Semaphore(settings.max_downloads)
        self.uploads = asyncio.Semaphore(settings.max_uploads)

    async def close(self) -> None:
        """Close the connections; no work may be under way."""
        if self._session is not None:
            await self._session.close()
        self.threads.shutdown()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = new_session()
        return self._session

    def tls(self, host: str, *, verify: bool) -> ssl.SSLContext:
        """Return the context for a host, made anew now and then as its files may change."""
        known = self._contexts.get((host, verify))
        if known is not None and known[1] > time.monotonic():
            return known[0]
        context = tls_context(self.settings.certificates, host, verify=verify)
        self._contexts[host, verify] = context, time.monotonic() + REMEMBER_S
        return context

    def challenges(self, endpoint: Endpoint) -> list[Challenge] | None:
        """Return what an endpoint asked for when it was last seen, None for too long ago."""
        known = self._pinged.get(endpoint)
        return known[0] if known is not None and known[1] > time.monotonic() else None

    def remember(self, endpoint: Endpoint, challenges: list[Challenge]) -> None:
        self._pinged[endpoint] = challenges, time.monotonic() + REMEMBER_S

    def forget(self, endpoint: Endpoint) -> None:
        self._pinged.pop(endpoint, None)

    async def reach(
        self,
        domain: str,
        who: Credentials,
        work: Callable[["Link"], Awaitable[T]],
        *,
        pull: bool,
        insecure: bool = False,
        anew: bool = False,
    ) -> T:
        """Do `work` with the first endpoint of a registry that can.

        `insecure` allows plain HTTP and certificates that do not verify, this time; `anew` asks
        endpoints again what they want to be shown.

        A mirror that fails, for whatever reason, is passed over; of the registry's own addresses
        the next is tried only when one does not answer at all. Raises the last failure.
        """
        settings = trusting(self.settings, domain) if insecure else self.settings
        endpoints = await lookup(settings, domain, pull=pull)
        # Plain HTTP that worked a minute ago is not worth another try of HTTPS.
        endpoints.sort(key=lambda e: not e.mirror and self.challenges(e) is None)
        failure: PierError = RegistryError(f"no endpoints found for {domain}")
        for endpoint in endpoints:
            # What is meant for a registry is not shown to those that copy it.
            link = Link(self, endpoint, ANONYMOUS if endpoint.mirror else who)
            if anew:
                self.forget(endpoint)
            try:
                await link.ping()
            except Unreachable as exc:
                log.debug("%s: %s", endpoint.url, exc.message)
                failure = exc
                continue
            try:
                return await work(link)
            except (RegistryError, NotFound) as exc:
                if isinstance(exc, Unreachable):
                    self.forget(endpoint)
                if not endpoint.mirror:
                    raise
                log.warning("mirror %s: %s", endpoint.url, exc.message)
                failure = exc
        raise failure


class Link:
    """One endpoint for one user."""

    def __init__(self, registries: Registries, endpoint: Endpoint, who: Credentials) -> None:
        self.registries = registries
        self.endpoint = endpoint
        self.who = who
        self._is_remembered = False
        self.authorizer = Authorizer(
            self.send, who, registries.tokens, secure=endpoint.scheme == "https"
        )

    def url(self, path: str) -> str:
        """Return the URL of a path below /v2/."""
        return f"{self.endpoint.scheme}://{self.endpoint.host}/v2{self.endpoint.path}/{path}"

    def send(
        self, method: str, url: str, *, headers: dict[str, str], body: Body = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """One request as it is, redirects followed: `transport.send`."""
        session = self.registries.session
        return send(session, method, url, headers=headers, tls=self._tls, body=body)

    def _tls(self, host: str) -> ssl.SSLContext:
        # Elsewhere (a redirect, a token server) there is no permission not to look.
        verify = self.endpoint.verify or host != self.endpoint.host
        return self.registries.tls(host, verify=verify)

    async def ping(self) -> None:
        """Find out that a registry is there, and what it wants. Raises Unreachable."""
        known = self.registries.challenges(self.endpoint)
        self._is_remembered = known is not None
        if known is None:
            url = f"{self.endpoint.scheme}://{self.endpoint.host}/v2/"
            async with self.send("GET", url, headers={}) as response:
                known = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                if response.status >= 500:
                    data = await read_limited(response, MAX_ERROR_BYTES)
                    raise Unreachable(refused(response.status, response.reason or "", data).message)
            self.registries.remember(self.endpoint, known)
        self.authorizer.learn(known)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        scopes: Scopes,
        expect: tuple[int, ...] = (200,),
        headers: dict[str, str] | None = None,
        body: Body = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request with what the registry wants to see; give its answer for the block.

        Raises Unreachable, NoCredentials, Refused for a status that was not expected.
        """
        prefix = f'{method.capitalize()} "{url}"'
        own = dict(headers or {})
        if authorization := await self._authorization(scopes, prefix):
            own["Authorization"] = authorization
        async with self.send(method, url, headers=own, body=body) as response:
            if response.status in expect:
                yield response
                return
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            first = await _refusal(response)
        is_final = authorization.startswith("Basic") and not any(
            challenge.scheme == "bearer" for challenge in challenges
        )
        if first.status != 401 or not challenges or is_final:
            raise first
        # Not known before that it wants to be shown something, or the token ran out: once more.
        self.authorizer.forget(scopes)
        self.authorizer.learn(challenges)
        own["Authorization"] = await self.authorizer.header(scopes, prefix)
        async with self.send(method, url, headers=own, body=body) as response:
            if response.status not in expect:
                raise await _refusal(response)
            yield response

    async def _authorization(self, scopes: Scopes, prefix: str) -> str:
        """Return the header's value. What fails by what is remembered is asked for anew, once: another
        registry may be there by now.
        """
        remembered = self._is_remembered
        try:
            return await self.authorizer.header(scopes, prefix)
        except RegistryError:
            if not remembered:
                raise
        if self._is_remembered:
            self.registries.forget(self.endpoint)
            await self.ping()
        return await self.authorizer.header(scopes, prefix)


async def _refusal(response: aiohttp.ClientResponse) -> Refused:
    try:
        data = await read_limited(response, MAX_ERROR_BYTES)
    except (aiohttp.ClientError, OSError, RegistryError):
        data = b""
    after = response.headers.get("Retry-After", "")
    return refused(
        response.status,
        response.reason or "",
        data,
        retry_after_s=float(after) if after.isdigit() else 0,
        is_json=response.content_type == "application/json",
    )
