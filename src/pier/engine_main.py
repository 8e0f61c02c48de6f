"""pierd: the engine as a program. It wires settings, engine and API, and lives until a signal.

SIGTERM and SIGINT end pierd, not the containers: their keepers go on, and the next pierd finds
them. SIGUSR1 writes the stacks of all threads to stderr.
"""

import asyncio
import faulthandler
import gc
import json
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvloop

from pier import __version__
from pier.api.listeners import Listeners
from pier.api.server import ApiServer
from pier.engine.engine import Engine
from pier.engine.network_clean import clean
from pier.engine.networks import DEFAULT_DATA_ROOT
from pier.engine.reload import level
from pier.engine.settings import Settings, parse, usage
from pier.errors import Conflict, PierError
from pier.kernel import heap
from pier.model.version import API_VERSION, ENGINE_VERSION

log = logging.getLogger("pier")


def main(argv: Sequence[str] | None = None) -> int:
    """Run pierd with these arguments, without the program's name; return its exit status."""
    try:
        words = sys.argv[1:] if argv is None else argv
        invocation = parse(words)
    except PierError as exc:
        return _complain(exc.message)
    match invocation.action:
        case "help":
            print(usage())  # noqa: T201 - asked for
            return 0
        case "version":
            print(  # noqa: T201 - asked for
                f"Pier version {__version__}, Docker Engine {ENGINE_VERSION}, API {API_VERSION}"
            )
            return 0
        case "validate":
            return _complain("configuration OK", status=0)
        case "network-clean":
            return _clean_network(invocation.settings)
        case "run":
            return _run(invocation.settings, words)


def _complain(text: str, status: int = 1) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - before there is a log
    return status


def _clean_network(settings: Settings) -> int:
    if os.geteuid() != 0:
        return _complain("pierd needs to be started with root privileges")
    try:
        removed = clean(settings.data_root, DEFAULT_DATA_ROOT)
    except PierError as exc:
        return _complain(exc.message)
    for what in removed:
        print(f"removed: {what}")  # noqa: T201 - asked for
    return 0


def _run(settings: Settings, argv: Sequence[str]) -> int:
    if os.geteuid() != 0:
        return _complain("pierd needs to be started with root privileges")
    _log_to_stderr(settings)
    os.umask(0o022)
    # Threads that move layers would keep 27 MB more after a pull of twenty of them.
    heap.share_arenas(2)
    _raise_descriptor_limit()
    _set_proxies(settings)
    faulthandler.register(signal.SIGUSR1)
    try:
        with (
            _pidfile(settings.pidfile),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_serve(settings, argv))
    except PierError as exc:
        return _complain(f"failed to start daemon: {exc.message}")
    except OSError as exc:
        return _complain(f"failed to start daemon: {exc}")
    return 0


def _set_proxies(settings: Settings) -> None:
    """What the settings say of proxies counts before the environment, where clients look for it."""
    for field in ("http_proxy", "https_proxy", "no_proxy"):
        if value := getattr(settings, field):
            os.environ[field] = os.environ[field.upper()] = value


async def _serve(settings: Settings, argv: Sequence[str]) -> None:
    """Open everything, say so, wait for the end, close everything in reverse."""
    stop = _stop_signal()
    listeners = Listeners()
    tls = _tls(settings)
    try:
        # First the sockets: a second pierd must fail before it touches the first one's state.
        listeners.open(settings.hosts, settings.group, os.environ)
        engine = Engine(settings)
        await engine.open()
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, engine, argv)
            server = ApiServer(engine)
            await server.serve(listeners.sockets, tls)
            async with _registry(settings, engine), _metrics(settings, engine):
                _announce(listeners)
                await stop.wait()
                _notify("STOPPING=1")
            await server.close()
        finally:
            await engine.close()
    finally:
        listeners.close()
    log.info("Daemon shutdown complete")


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Return what TCP is served with. Raises InvalidParameter for bad files."""
    if not settings.tls:
        return None
    from pier.api.tls import server_context  # noqa: PLC0415 - as _registry

    ca = settings.tlscacert if settings.tlsverify else ""
    return server_context(settings.tlscert, settings.tlskey, ca)


@asynccontextmanager
async def _metrics(settings: Settings, engine: Engine) -> AsyncIterator[None]:
    """Serve the engine's numbers, if the settings say where."""
    if not settings.metrics_addr:
        yield
        return
    from pier.api.metrics import Metrics  # noqa: PLC0415 - as _registry

    metrics = Metrics(engine, settings.metrics_addr)
    log.info("metrics API listening on %s", await metrics.open())
    try:
        yield
    finally:
        await metrics.close()


@asynccontextmanager
async def _registry(settings: Settings, engine: Engine) -> AsyncIterator[None]:
    """Serve the engine's images as a registry, if the settings say where."""
    if not settings.registry_listen:
        yield
        return
    # Half a megabyte that few engines need.
    from pier.registry.server import running  # noqa: PLC0415
    from pier.registry.server.engine_shelf import EngineShelf  # noqa: PLC0415
    from pier.registry.server.engine_store import EngineStore  # noqa: PLC0415
    from pier.registry.server.store import Store  # noqa: PLC0415

    options = running.Settings(
        store="",
        addresses=settings.registry_listen,
        htpasswd=settings.registry_htpasswd,
        tls_certificate=settings.registry_tls_cert,
        tls_key=settings.registry_tls_key,
        access_log=False,
    )
    images = engine.images
    async with AsyncExitStack() as stack:
        shelf: EngineShelf | EngineStore = EngineShelf(images.store)
        if settings.registry_push:
            pushed = Store(images.store.root.join("registry"))
            stack.callback(pushed.close)
            shelf = EngineStore(
                images.store, pushed, arrived=images.tell_pushed, remove=images.remove_name
            )
            stack.callback(shelf.close)
        service, addresses = await stack.enter_async_context(running.listening(options, shelf))
        for address in addresses:
            log.info("Registry listen on %s", address)
        if isinstance(shelf, EngineStore):
            for work in (
                running.keep_house(service, shelf.pushed, options, asyncio.Event()),
                shelf.keep_settled(service),
            ):
                stack.push_async_callback(_cancelled, asyncio.create_task(work))
        yield


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _announce(listeners: Listeners) -> None:
    # What was made so far stays: the collector need not walk it again, and again.
    gc.collect()
    gc.freeze()
    heap.give_back()  # what the start needed, 2 MB
    log.info("Daemon has completed initialization")
    for sock in listeners.sockets:
        log.info("API listen on %s", sock.getsockname())
    _notify("READY=1")


def _stop_signal() -> asyncio.Event:
    """Return the event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told_to_stop(number: int) -> None:
        log.info("Processing signal '%s'", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop, number)
    # Until there is an engine to tell.
    loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP ignored: still starting")
    return stop


def _reload(engine: Engine, argv: Sequence[str]) -> None:
    """Read the settings anew; bad ones change nothing."""
    log.info("Got signal to reload configuration")
    try:
        engine.reload(parse(argv).settings)
    except PierError as exc:
        log.error("Error reconfiguring the daemon: %s", exc.message)  # noqa: TRY400 - no trace


def _notify(state: str) -> None:
    """Tell systemd, if it asked to be told: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as exc:
            log.warning("cannot notify %s: %s", address, exc)


@contextmanager
def _pidfile(path: str) -> Iterator[None]:
    """Hold a file with our process ID. Raises Conflict when its process lives."""
    try:
        with open(path, encoding="ascii") as file:
            pid = int(file.read().strip() or "0")
    except (FileNotFoundError, ValueError):
        pid = 0
    if pid not in (0, os.getpid()) and os.path.exists(f"/proc/{pid}"):
        raise Conflict(
            f"ensure pierd is not running or delete {path}: process with PID {pid} is still running"
        )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    try:
        yield
    finally:
        os.unlink(path)


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as may be: sockets, keepers and logs take several a container."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _LogfmtFormatter(logging.Formatter):
    """Lines as dockerd writes them, since people and harnesses read them for it."""

    def format(self, record: logging.LogRecord) -> str:
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        text = record.getMessage().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        level = "warning" if record.levelname == "WARNING" else record.levelname.lower()
        line = f'time="{at}.{int(record.msecs):03}" level={level} msg="{text}"'
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    """`--log-format json`: one object a line, with dockerd's keys."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        level = "warning" if record.levelname == "WARNING" else record.levelname.lower()
        return json.dumps({"level": level, "msg": text, "time": at}, ensure_ascii=False)


def _log_to_stderr(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.log_format == "json" else _LogfmtFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level(settings))
    # asyncio and aiohttp have nothing to say at these levels that helps a user.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
