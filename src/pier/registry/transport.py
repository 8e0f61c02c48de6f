"""HTTP to registries: one request over the wire, redirects followed, failures in Go's words.

Docker's users, and the tools that read its errors, know these words:
`Get "https://host/v2/": dial tcp 127.0.0.1:5000: connect: connection refused`.
"""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import aiohttp

from pier import __version__
from pier.model.version import ENGINE_VERSION
from pier.registry.endpoints import host_name
from pier.registry.errors import RegistryError, Unreachable

MAX_REDIRECTS = 10
CONNECT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 60.0
READ_BUFFER = 256 << 10
USER_AGENT = f"docker/{ENGINE_VERSION} pier/{__version__} os/linux"

_REDIRECTS = (301, 302, 303, 307, 308)

# Makes the body of one attempt: a retry needs it anew.
Body = Callable[[], AsyncIterator[bytes]] | bytes | None


def new_session() -> aiohttp.ClientSession:
    """Return a session for all registries; no cookies, no decoding, its connections kept alive."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, enable_cleanup_closed=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        ),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
    )


@asynccontextmanager
async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    tls: Callable[[str], ssl.SSLContext],
    body: Body = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request and give its answer, for the time of the block.

    GET and HEAD follow redirects, without credentials where they lead to another origin. `tls`
    gives the context for a host. Raises Unreachable, RegistryError for too many redirects; while
    the answer is read, what aiohttp raises: see `reading`.
    """
    first = url
    headers = dict(headers)
    for _ in range(MAX_REDIRECTS):
        response = await _send_once(session, method, url, headers=headers, tls=tls, body=body)
        try:
            if method not in ("GET", "HEAD") or response.status not in _REDIRECTS:
                yield response
                return
            location = response.headers.get("Location", "")
        finally:
            response.close() if not response.content.at_eof() else response.release()
        target = urljoin(url, location)
        if urlsplit(target).scheme not in ("http", "https") or not location:
            raise RegistryError(
                f'{_verb(method)} "{first}": {response.status} response missing Location header'
            )
        if origin(target) != origin(url):
            headers.pop("Authorization", None)
        url = target
    raise RegistryError(f'{_verb(method)} "{url}": stopped after {MAX_REDIRECTS} redirects')


async def _send_once(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    tls: Callable[[str], ssl.SSLContext],
    body: Body,
) -> aiohttp.ClientResponse:
    parts = urlsplit(url)
    try:
        context = await asyncio.to_thread(tls, parts.netloc) if parts.scheme == "https" else True
        return await session.request(
            method,
            url,
            headers=headers,
            data=body() if callable(body) else body,
            allow_redirects=False,
            ssl=context,
            proxy=proxy_for(url),
        )
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise await unreachable(method, url, exc) from exc


async def unreachable(method: str, url: str, exc: BaseException) -> Unreachable:
    """Return a failed connection in Go's words."""
    what = await in_go_words(url, exc)
    return Unreachable(f'{_verb(method)} "{url}": {what}')


def origin(url: str) -> tuple[str, str, int]:
    """Return what credentials belong to: scheme, host and port."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment asks for (HTTPS_PROXY, NO_PROXY); none to loopback."""
    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme)
    host = parts.hostname or ""
    if not proxy or host == "localhost" or _is_loopback(host):
        return None
    return None if proxy_bypass_environment(parts.netloc, proxies) else proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _verb(method: str) -> str:
    return method.capitalize()


async def in_go_words(url: str, exc: BaseException) -> str:
    """Return what Docker, written in Go, says of a request that failed so."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = origin(url)[2]
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: x509: {_x509(exc.certificate_error)}"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        text = str(exc.os_error).upper()
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text or "HTTP_REQUEST" in text:
            return "http: server gave HTTP response to HTTPS client"
        return f"remote error: tls: {getattr(exc.os_error, 'reason', None) or exc.os_error}"
    if isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return f"dial tcp {await _address(host, port)}: {_why_not_connected(exc)}"
    return await _broken_off(host, port, exc)


def _why_not_connected(exc: aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) -> str:
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return "i/o timeout"
    number = _errno(exc.os_error)
    return "connect: " + (os.strerror(number).lower() if number else str(exc.os_error))


async def _broken_off(host: str, port: int, exc: BaseException) -> str:
    if isinstance(exc, (TimeoutError, aiohttp.ServerTimeoutError)):
        return "net/http: timeout awaiting response headers"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(exc, ConnectionResetError) or _errno(exc) == errno.ECONNRESET:
        return f"read tcp {await _address(host, port)}: connection reset by peer"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "unexpected EOF"
    return str(exc) or type(exc).__name__


def _x509(exc: Exception) -> str:
    text = getattr(exc, "verify_message", "") or str(exc)
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        return f"certificate is not valid: {text}"
    if "expired" in text:
        return f"certificate has expired or is not yet valid: {text}"
    return "certificate signed by unknown authority"


def _errno(exc: BaseException) -> int:
    """Find the error number; asyncio joins several addresses' failures into one without any."""
    number = getattr(exc, "errno", None) or 0
    if number > 0:
        return int(number)
    for inner in getattr(exc, "exceptions", ()):
        if found := _errno(inner):
            return found
    text = str(exc)
    for candidate in (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH):
        if f"[Errno {candidate}]" in text or os.strerror(candidate) in text:
            return candidate
    return 0


async def _address(host: str, port: int) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host_name(host) if "]" in host else host, port, type=socket.SOCK_STREAM
        )
        address = str(found[0][4][0])
    except (OSError, IndexError):
        address = host
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
