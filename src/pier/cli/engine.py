"""Where the engine is, and starting it when the default one does not run.

The address is, first that is given: `-H`, that of `-c`, PIER_HOST, DOCKER_HOST, that of the context in
DOCKER_CONTEXT or in use (`context_store`), and otherwise Pier's own socket:
`/run/pier/pier.sock` for root, `$XDG_RUNTIME_DIR/pier/pier.sock` for others. Only at that last one
an engine is started: an address that somebody gave is somebody's to serve.
"""

import os
import sys

from pier.cli import config_file
from pier.cli.errors import Failure, NoEngine
from pier.cli.http import API_VERSION, Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.tcp import Tls

# pierd answers in a fraction of a second; a machine under load gets this long.
_START_TIMEOUT_S = 20.0
_POLL_S = 0.02
_LOG_TAIL_BYTES = 2048


def runtime_directory() -> str:
    """Pier's directory for sockets and other things gone after a reboot."""
    if os.geteuid() == 0:
        return "/run/pier"
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return base + "/pier"


def default_host(hosts: list[str]) -> str:
    """The engine's address without a context. Raises Failure for more than one -H."""
    if len(hosts) > 1:
        raise Failure("Failed to initialize: unable to resolve pier endpoint: Specify only one -H")
    given = hosts[0] if hosts else os.environ.get("PIER_HOST") or os.environ.get("DOCKER_HOST")
    return given or f"unix://{runtime_directory()}/pier.sock"


def open_client(hosts: list[str], context: str = "", tls: "dict[str, Any] | None" = None) -> Client:
    """A client for the engine the user means, started if it is the default one and not there.

    `hosts` are the values of -H, `context` that of -c, `tls` what --tls* say. Raises NoEngine;
    Failure for an address that is none of ours or an engine that does not come up.
    """
    client = _client(hosts, context, tls)
    client.headers = config_file.headers()
    return client


def _client(hosts: list[str], context: str, tls: "dict[str, Any] | None") -> Client:
    version = os.environ.get("DOCKER_API_VERSION", "").lstrip("v") or API_VERSION
    if context or _may_have_context():
        from pier.cli import context_store

        name = context_store.chosen(context, hosts)
        if name != context_store.DEFAULT:
            return _of_context(name, version)
    given = default_host(hosts)
    if hosts or os.environ.get("PIER_HOST") or os.environ.get("DOCKER_HOST"):
        return _at(given, version, tls)
    directory = runtime_directory()
    path = directory + "/pier.sock"
    client = Client(path, "unix://" + path, version)
    try:
        client.give_back(client.connect())
    except NoEngine:
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise
        _start_once(directory, client)
    return client


def _may_have_context() -> bool:
    """Whether to look closer, told without what that takes: most have no context."""
    return bool(os.environ.get("DOCKER_CONTEXT") or config_file.setting("currentContext"))


def _of_context(name: str, version: str) -> Client:
    from pier.cli import context_store
    from pier.cli.tcp import Tls

    endpoint = context_store.load(name)["Endpoints"]["docker"]
    files = context_store.tls_files(name)
    found = None
    if files or endpoint.get("SkipTLSVerify"):
        ca, cert, key = (files.get(file, "") for file in context_store.TLS_FILES)
        found = Tls(ca=ca, cert=cert, key=key, verify=not endpoint.get("SkipTLSVerify"))
    return _connected(endpoint["Host"], version, found)


def _at(host: str, version: str, flags: "dict[str, Any] | None") -> Client:
    if not host.startswith("tcp://"):
        return _connected(host, version, None)
    from pier.cli.tcp import from_environment

    nothing = {"ca": "", "cert": "", "key": "", "on": False, "verify": False}
    return _connected(host, version, from_environment(**(flags or nothing)))


def _connected(host: str, version: str, tls: "Tls | None") -> Client:
    if host.startswith("ssh://"):
        from pier.cli.ssh import SshClient, Target

        return SshClient(Target(host), version)
    if host.startswith("tcp://"):
        from pier.cli.tcp import TcpClient

        return TcpClient(host, version, tls)
    return Client(_socket_path(host), host, version)


def pierd_command() -> list[str]:
    """What runs the engine of this very installation, with its defaults."""
    return [sys.executable, "-m", "pier.engine_main"]


def _socket_path(host: str) -> str:
    scheme, separator, path = host.partition("://")
    if not separator:
        raise Failure(f"unable to parse docker host `{host}`")
    if scheme != "unix":
        raise Failure(f"unsupported address {host}: pier speaks to unix sockets, tcp and ssh only")
    return path


def _start_once(directory: str, client: Client) -> None:
    """Start pierd unless another client is doing so; return when it answers.

    The lock is held until then, so that of two clients the second finds the first one's engine.
    """
    import fcntl

    try:
        os.makedirs(directory, mode=0o711, exist_ok=True)
        lock_fd = os.open(directory + "/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoEngine(
            f"Cannot connect to the Docker daemon at {client.host}. Is the docker daemon running? "
            f"(it cannot be started: {error.strerror}: {error.filename})"
        ) from None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if not _answers(client):
            _start(directory, client)
    finally:
        os.close(lock_fd)


def _answers(client: Client) -> bool:
    try:
        client.give_back(client.connect())
    except NoEngine:
        return False
    return True


def _start(directory: str, client: Client) -> None:
    import time

    log_path = directory + "/pierd.log"
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        log_start = os.fstat(log_fd).st_size
        pid = _spawn_detached(pierd_command(), log_fd)
    finally:
        os.close(log_fd)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _answers(client):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            raise Failure(f"pierd did not start (status {code}):\n{_tail(log_path, log_start)}")
        if time.monotonic() > deadline:
            raise Failure(
                f"pierd (process {pid}) does not answer at {client.host} after "
                f"{_START_TIMEOUT_S:.0f} s:\n{_tail(log_path, log_start)}"
            )
        time.sleep(_POLL_S)


def _spawn_detached(command: list[str], log_fd: int) -> int:
    """Run `command` in its own session, stdin from /dev/null, output to `log_fd`; its process id."""
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null_fd, 0),
                (os.POSIX_SPAWN_DUP2, log_fd, 1),
                (os.POSIX_SPAWN_DUP2, log_fd, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(null_fd)


def _tail(path: str, start: int) -> str:
    with open(path, "rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(start, end - _LOG_TAIL_BYTES))
        text = log.read().decode("utf-8", "replace").strip()
    return text or f"(nothing in {path})"
