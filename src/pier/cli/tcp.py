"""`tcp://host:port`: the engine over TCP, with TLS where there are certificates.

TLS is spoken by a thread, between the engine's socket and one end of a socket pair; the rest of the
client has the other end and knows of nothing. The files are those of `Tls`, named as docker's are.
"""

import os
import socket

from pier.cli.errors import Failure, NoEngine
from pier.cli.http import Client, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

_CONNECT_TIMEOUT_S = 30
_READ_BYTES = 64 * 1024
DEFAULT_PORT = 2375
TLS_PORT = 2376


class Tls:
    """Paths of PEM files, "" for none. `verify` is off for a server that is trusted as it is."""

    def __init__(self, *, ca: str, cert: str, key: str, verify: bool) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify

    def context(self) -> "ssl.SSLContext":
        """Raises Failure for files that are no good."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            if self.verify and self.ca:
                context.load_verify_locations(self.ca)
            elif self.verify:
                context.load_default_certs()
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            missing = getattr(error, "filename", None) or self.cert or self.ca
            raise Failure(
                f"Failed to initialize: unable to resolve docker endpoint: open {missing}: "
                f"{(error.strerror or str(error)).lower()}"
            ) from None
        return context


def parse_address(url: str, *, secured: bool) -> "tuple[str, int]":
    """Host and port of a tcp:// address. Raises Failure."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure(f"unable to parse docker host `{url}`: {error}") from None
    if not parts.hostname:
        raise Failure(f"unable to parse docker host `{url}`")
    return parts.hostname, port or (TLS_PORT if secured else DEFAULT_PORT)


class TcpClient(Client):
    """A client of the engine that listens on TCP."""

    def __init__(self, url: str, api_version: str, tls: "Tls | None") -> None:
        super().__init__("", url, api_version)
        self._address = parse_address(url, secured=tls is not None)
        self._tls = tls

    def _another(self) -> "TcpClient":
        return TcpClient(self.host, self.api_version, self._tls)

    def dial(self) -> Connection:
        """A new connection. Raises NoEngine; Failure when the two do not trust each other."""
        context = self._tls.context() if self._tls is not None else None
        try:
            sock = socket.create_connection(self._address, _CONNECT_TIMEOUT_S)
        except OSError:
            raise NoEngine(
                f"Cannot connect to the Docker daemon at {self.host}. Is the docker daemon running?"
            ) from None
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return Connection(sock)
        return Connection(_secured(sock, context, self._address[0]))


def _secured(sock: socket.socket, context: "ssl.SSLContext", host: str) -> socket.socket:
    """Shake hands, and return the plain end of what a thread relays from here on."""
    import ssl
    import threading

    stream = _Stream(sock, context, host)
    try:
        stream.handshake()
    except (OSError, ssl.SSLError) as error:
        sock.close()
        reason = getattr(error, "verify_message", "") or error.strerror or str(error)
        raise Failure(f"error during connect: tls: {reason}") from None
    ours, theirs = socket.socketpair()
    threading.Thread(target=stream.relay, args=(theirs,), daemon=True).start()
    return ours


class _Stream:
    """The TLS of one connection, over a socket that only we use."""

    def __init__(self, sock: socket.socket, context: "ssl.SSLContext", host: str) -> None:
        import ssl

        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._want_read: type[Exception] = ssl.SSLWantReadError
        self._error: type[Exception] = ssl.SSLError
        self._ended = False

    def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except self._want_read:
                self._flush()
                data = self._sock.recv(_READ_BYTES)
                if not data:
                    raise OSError("EOF") from None
                self._incoming.write(data)
            else:
                self._flush()
                return

    def relay(self, plain: socket.socket) -> None:
        """Pass bytes both ways until the engine ends. A side is read while the other takes what it
        gets, and neither waits for the other: `cat` echoes what is still being sent.
        """
        import contextlib

        with self._sock, plain, contextlib.suppress(OSError):
            self._sock.setblocking(False)
            plain.setblocking(False)
            self._relay(plain)

    def _relay(self, plain: socket.socket) -> None:
        import select

        to_plain = self._deciphered()
        to_engine = b""
        typing = not self._ended
        while to_plain or not self._ended:
            poll = select.poll()
            poll.register(
                self._sock.fileno(),
                (0 if to_plain else select.POLLIN) | (select.POLLOUT if to_engine else 0),
            )
            poll.register(
                plain.fileno(),
                (select.POLLIN if typing and not to_engine else 0)
                | (select.POLLOUT if to_plain else 0),
            )
            ready = dict(poll.poll())
            if ready.get(plain.fileno(), 0) & select.POLLIN and not to_engine:
                typing = self._encipher(plain.recv(_READ_BYTES))
            if (
                ready.get(self._sock.fileno(), 0) & (select.POLLIN | select.POLLHUP)
                and not to_plain
            ):
                data = self._sock.recv(_READ_BYTES)
                self._ended = self._ended or not data
                self._incoming.write(data)
                to_plain = self._deciphered()
            to_engine = _sent(self._sock, to_engine + self._outgoing.read())
            to_plain = _sent(plain, to_plain)

    def _deciphered(self) -> bytes:
        """What has come whole; after it, `_ended` says whether more can come."""
        found = []
        while True:
            try:
                data = self._tls.read(_READ_BYTES)
            except self._want_read:
                break
            except self._error:
                data = b""
            if not data:
                self._ended = True
                break
            found.append(data)
        return b"".join(found)

    def _encipher(self, data: bytes) -> bool:
        """Write what there is to send, or that there is no more: False then."""
        import contextlib

        if data:
            self._tls.write(data)
        else:
            with contextlib.suppress(self._error):
                # The other direction stays open, and its end is not to be waited for.
                self._tls.unwrap()
        return bool(data)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._sock.sendall(data)


def _sent(sock: socket.socket, data: bytes) -> bytes:
    """Send what can be now; the rest."""
    if not data:
        return b""
    try:
        return data[sock.send(data) :]
    except BlockingIOError:
        return data


def from_environment(*, ca: str, cert: str, key: str, on: bool, verify: bool) -> "Tls | None":
    """What the flags --tls* and DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ask for.

    Paths that are not given are docker's, and those of them that do not exist are none.
    """
    verify = verify or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not (on or verify or os.environ.get("DOCKER_TLS")):
        return None
    home = os.path.join(os.path.expanduser("~"), ".docker")
    directory = os.environ.get("DOCKER_CERT_PATH") or os.environ.get("DOCKER_CONFIG") or home

    def default(given: str, name: str) -> str:
        path = os.path.join(directory, name)
        return given or (path if os.path.exists(path) else "")

    return Tls(
        ca=default(ca, "ca.pem"),
        cert=default(cert, "cert.pem"),
        key=default(key, "key.pem"),
        verify=verify,
    )
