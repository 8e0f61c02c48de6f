"""The host's ports that lead to containers: which are taken, and the sockets that hold them.

Every published port is held by a socket of ours that is bound to it, so that no other program takes
it meanwhile, and none gets it that another program has. What arrives is led past the socket by the
firewall (`rules.publish`), but for what cannot be: `relay` serves that.
"""

import errno
import itertools
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pier.errors import Internal
from pier.model.container import PortBinding
from pier.network.links import read_sysctl

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_BACKLOG = 128
_EPHEMERAL = (32768, 60999)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port of a container to publish. `hosts` are the addresses to bind; `first` 0: any port."""

    protocol: str
    port: int
    hosts: tuple[str, ...]
    first: int = 0
    last: int = 0


@dataclass(slots=True)
class Held:
    """A host's port that is ours, on one address. `sock` is None where the kernel has no such.

    `host_port` 0 is none of the host's: the container's own is open to others.
    """

    protocol: str
    host: str
    host_port: int
    port: int
    sock: socket.socket | None = field(default=None, repr=False)


def wanted_ports(
    bindings: Mapping[str, Sequence[PortBinding] | None],
    exposed: Iterable[str],
    *,
    publish_all: bool,
    default_hosts: tuple[str, ...],
) -> list[Wanted]:
    """Return what to publish for a container, in a stable order. Raises InvalidParameter."""
    found: list[Wanted] = []
    listed = dict.fromkeys(_normal(port) for port in bindings)
    if publish_all:
        listed |= dict.fromkeys(_normal(port) for port in exposed)
    by_port = {_normal(port): list(entries or ()) for port, entries in bindings.items()}
    for port in sorted(listed, key=_port_key):
        protocol, first, last = split_port(port)
        for number in range(first, last + 1):
            entries = by_port.get(port) or ([PortBinding()] if publish_all else [])
            if not entries and port in by_port:
                entries = [PortBinding()]
            for entry in entries:
                hosts = (entry.HostIp,) if entry.HostIp else default_hosts
                low, high = _host_range(entry.HostPort)
                found.append(Wanted(protocol, number, hosts, low, high))
    return found


def split_port(text: str) -> tuple[str, int, int]:
    """("tcp", first, last) of "80", "80/tcp" or "80-90/udp"."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    return protocol or "tcp", int(first), int(last or first)


def _freedom(wanted: Wanted) -> int:
    """0 for one number, 1 for a range, 2 for any."""
    if not wanted.first:
        return 2
    return 1 if wanted.last > wanted.first else 0


class Ports:
    """The ports of one engine. In the loop's one thread."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], set[str]] = {}

    def hold(self, wanted: Sequence[Wanted]) -> list[Held]:
        """Take all ports or none. Raises Internal with Docker's words.

        Those with a number of their own first, so that a made-up one is never theirs.
        """
        held: list[list[Held]] = [[] for _ in wanted]
        try:
            for place in sorted(range(len(wanted)), key=lambda place: _freedom(wanted[place])):
                held[place] = self._hold(wanted[place])
        except BaseException:
            self.release(itertools.chain.from_iterable(held))
            raise
        return [*itertools.chain.from_iterable(held)]

    def release(self, held: Iterable[Held]) -> None:
        """Give ports back."""
        for each in held:
            if each.sock is not None:
                each.sock.close()
                each.sock = None
            addresses = self._taken.get((each.protocol, each.host_port))
            if addresses is not None:
                addresses.discard(each.host)
                if not addresses:
                    del self._taken[each.protocol, each.host_port]

    def retake(self, held: Held) -> None:
        """Take a port that was ours before pierd was started again. Raises Internal."""
        held.sock = self._bind(held.protocol, held.host, held.host_port)
        self._taken.setdefault((held.protocol, held.host_port), set()).add(held.host)

    def _hold(self, wanted: Wanted) -> list[Held]:
        failure: Internal | None = None
        for number in _candidates(wanted):
            try:
                return self._hold_number(wanted, number)
            except Internal as exc:
                failure = exc
        if failure is not None and wanted.first and wanted.first == wanted.last:
            raise failure
        if wanted.first and failure is not None:
            raise failure
        raise Internal("all ports are allocated")

    def _hold_number(self, wanted: Wanted, number: int) -> list[Held]:
        held: list[Held] = []
        try:
            for host in wanted.hosts:
                self._check_free(wanted.protocol, host, number)
                sock = self._bind(wanted.protocol, host, number)
                held.append(Held(wanted.protocol, host, number, wanted.port, sock))
                self._taken.setdefault((wanted.protocol, number), set()).add(host)
        except BaseException:
            self.release(held)
            raise
        return held

    def _check_free(self, protocol: str, host: str, number: int) -> None:
        for other in self._taken.get((protocol, number), ()):
            if _overlap(host, other):
                raise Internal(
                    f"Bind for {_shown(host)}:{number} failed: port is already allocated"
                )

    def _bind(self, protocol: str, host: str, number: int) -> socket.socket | None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            sock = socket.socket(
                family,
                _KINDS[protocol] | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                socket.IPPROTO_SCTP if protocol == "sctp" else 0,
            )
        except OSError as exc:
            if protocol == "sctp" and exc.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                return None  # a kernel without SCTP sockets still leads its packets on
            raise
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol != "udp":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, number))
            if protocol != "udp":
                sock.listen(_BACKLOG)
        except OSError as exc:
            sock.close()
            raise Internal(
                f"failed to bind host port {_shown(host)}:{number}/{protocol}: {_reason(exc)}"
            ) from exc
        return sock


def _reason(exc: OSError) -> str:
    if exc.errno == errno.EADDRNOTAVAIL:
        return "cannot assign requested address"
    return (exc.strerror or str(exc)).lower()


def _candidates(wanted: Wanted) -> Iterator[int]:
    if wanted.first:
        yield from range(wanted.first, wanted.last + 1)
        return
    words = read_sysctl("net/ipv4/ip_local_port_range").split()
    low, high = (int(words[0]), int(words[1])) if len(words) == 2 else _EPHEMERAL
    yield from range(low, high + 1)


def _overlap(one: str, other: str) -> bool:
    if (":" in one) != (":" in other):
        return False
    return one == other or one in ("0.0.0.0", "::") or other in ("0.0.0.0", "::")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_range(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _normal(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"


def _port_key(port: str) -> tuple[int, str]:
    protocol, first, _ = split_port(port)
    return first, protocol
