"""A registry server's life: open, listen, collect now and then, close in reverse."""

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from msgspec import Struct

from pier.errors import InvalidParameter, Unavailable
from pier.registry.server.access import Passwords
from pier.registry.server.accesslog import AccessLog
from pier.registry.server.app import Application
from pier.registry.server.collect import Collected, collect
from pier.registry.server.service import Rules, Service, Shelf
from pier.registry.server.store import Store

log = logging.getLogger("pier.registry")
access = logging.getLogger("pier.registry.access")

# What a connection may hold unread before the client has to wait.
_READ_BYTES = 1 << 20
_GRACE_S = 30.0


class Settings(Struct, frozen=True):
    """`addresses` are host:port, [v6]:port or unix:///path; port 0 is any. Times are in seconds."""

    store: str
    addresses: tuple[str, ...]
    rules: Rules = Rules()
    htpasswd: str = ""
    anonymous_reads: bool = False
    tls_certificate: str = ""
    tls_key: str = ""
    access_log: bool = True
    collect_every_s: float = 3600
    keep_s: float = 86400
    untagged: bool = False


async def serve(settings: Settings, ready: Callable[[list[str]], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is told the addresses once they listen.

    Raises PierError and OSError for what is wrong with the settings, the store or an address.
    """
    store = Store(settings.store)
    stop, collect_now = _signals()
    try:
        async with listening(settings, store) as (service, addresses):
            ready(addresses)
            async with asyncio.TaskGroup() as tasks:
                housekeeping = tasks.create_task(keep_house(service, store, settings, collect_now))
                await stop.wait()
                housekeeping.cancel()
    finally:
        store.close()


@asynccontextmanager
async def listening(settings: Settings, shelf: Shelf) -> AsyncIterator[tuple[Service, list[str]]]:
    """Serve a store, or what else is a shelf, for as long as the `async with` lasts.

    Yields the service and the addresses. The shelf stays the caller's. Raises as `serve` does.
    """
    tls = _tls(settings)
    passwords = _passwords(settings)
    service = Service(shelf, settings.rules)
    application = Application(service, passwords.admit) if passwords else Application(service)
    runner = web.AppRunner(
        application.app,
        access_log=access if settings.access_log else None,
        access_log_class=AccessLog,
        read_bufsize=_READ_BYTES,
        shutdown_timeout=_GRACE_S,
        handle_signals=False,
    )
    await runner.setup()
    try:
        sockets = [_bind(address) for address in settings.addresses]
        for sock in sockets:
            await web.SockSite(runner, sock, ssl_context=tls, backlog=1024).start()
        yield service, [_shown(sock, tls is not None) for sock in sockets]
    finally:
        await runner.cleanup()
        for address in settings.addresses:
            if address.startswith("unix://"):
                with suppress(FileNotFoundError):
                    os.unlink(address.removeprefix("unix://"))
        service.close()


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    stop, collect_now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, collect_now.set)
    return stop, collect_now


async def keep_house(
    service: Service, store: Store, settings: Settings, now: asyncio.Event
) -> None:
    """Collect at the start, then every so often and whenever `now` is set; until cancelled."""
    while True:
        now.clear()  # before: what is asked for during a collection is another one
        await _collect(service, store, settings)
        try:
            await asyncio.wait_for(now.wait(), settings.collect_every_s)
        except TimeoutError:
            continue


async def _collect(service: Service, store: Store, settings: Settings) -> None:
    if settings.rules.read_only:
        return
    try:
        done: Collected = await service.start(
            collect, store, age_s=settings.keep_s, untagged=settings.untagged
        )
    except OSError as exc:
        log.warning("collection: %s", exc)
        return
    if done != Collected():
        log.info("%s", describe(done))


def describe(done: Collected) -> str:
    """Say what a collection removed."""
    return (
        f"collected {done.manifests} manifests, {done.links} unnamed blobs, "
        f"{done.uploads} uploads; {done.files} files, {done.size_bytes} bytes"
    )


def _passwords(settings: Settings) -> Passwords | None:
    if not settings.htpasswd:
        if settings.anonymous_reads:
            raise InvalidParameter("--anonymous-pull needs --htpasswd")
        return None
    return Passwords(settings.htpasswd, anonymous_reads=settings.anonymous_reads)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise InvalidParameter("--tls-cert and --tls-key belong together")
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except ssl.SSLError as exc:
        raise InvalidParameter(
            f"{settings.tls_certificate}, {settings.tls_key}: no certificate with its key: {exc}"
        ) from exc
    return context


def _bind(address: str) -> socket.socket:
    """Bind one address. Raises InvalidParameter, Unavailable."""
    if address.startswith("unix://"):
        sock, target = socket.socket(socket.AF_UNIX), address.removeprefix("unix://")
        return _bound(sock, target, address)
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidParameter(f"invalid address {address!r}: not HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as exc:
        raise InvalidParameter(f"invalid address {address!r}: {exc.strerror}") from exc
    # Without a host, the v6 wildcard, which takes v4 as well.
    family, kind, protocol, _, place = max(
        found, key=lambda entry: not host and entry[0] == socket.AF_INET6
    )
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(host))
    return _bound(sock, place, address)


def _bound(sock: socket.socket, place: object, address: str) -> socket.socket:
    try:
        sock.bind(place)  # type: ignore[arg-type]
    except OSError as exc:
        sock.close()
        raise Unavailable(f"listen on {address}: {str(exc.strerror).lower()}") from exc
    sock.setblocking(False)
    return sock


def _shown(sock: socket.socket, tls: bool) -> str:
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix://{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"
