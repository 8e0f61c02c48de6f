"""The DNS server that a container sees at 127.0.0.11: sockets in its network, served by pierd's loop.

The sockets have ports of their own, since a container may want 53 for itself. Rules in its network
turn 53 into those and back on the way, without connection tracking, which would cost every packet
of the container; where rules cannot be made the sockets take 53.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from pier.kernel.nftables import Nftables
from pier.network import dns_wire as wire
from pier.network.dns_upstream import Server, ask
from pier.network.namespaces import Namespaces
from pier.network.relay import Spawner

ADDRESS = "127.0.0.11"
_PORT = 53
_RECEIVE_BYTES = 1 << 16
_IDLE_S = 10.0
_MAX_PENDING = 256
_FORGET = "table ip pier_dns\ndelete table ip pier_dns\n"
_RULES = """\
create table ip pier_dns
table ip pier_dns {{
chain output {{
type filter hook output priority raw; policy accept;
ip daddr 127.0.0.11 udp dport 53 udp dport set {udp}
ip daddr 127.0.0.11 tcp dport 53 tcp dport set {tcp}
ip saddr 127.0.0.11 udp sport {udp} udp sport set 53
ip saddr 127.0.0.11 tcp sport {tcp} tcp sport set 53
}}
}}
"""


class Names(Protocol):
    """What a container may know of others. Names are in lower case."""

    def addresses(self, name: str) -> Sequence[IPv4Address | IPv6Address] | None:
        """Those of a name; none for one that is known and away, None for a name of elsewhere."""

    def name_of(self, address: IPv4Address | IPv6Address) -> str | None:
        """The name behind an address; "" for one of ours that nobody has, None for elsewhere."""

    def servers(self) -> Sequence[Server]:
        """Who is asked for the rest."""

    def may_ask(self, name: str) -> bool:
        """Whether a name of elsewhere may be asked for."""

    def answered(self, name: str, response: bytes) -> None:
        """Somebody answered; called before the container hears of it."""


class DnsServer:
    """`netns_fd` stays the caller's, and open until `close`. Raises OSError, nothing left then."""

    def __init__(self, namespaces: Namespaces, netns_fd: int, names: Names, tasks: Spawner) -> None:
        self._namespaces = namespaces
        self._netns_fd = netns_fd
        self._names = names
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._pending = 0
        self._turn = 0
        with namespaces.entered(netns_fd):
            self._udp, self._tcp = _open_sockets()
        self._loop.add_reader(self._udp.fileno(), self._receive)
        self._loop.add_reader(self._tcp.fileno(), self._accept)

    def close(self) -> None:
        for sock in (self._udp, self._tcp):
            self._loop.remove_reader(sock.fileno())
            sock.close()

    def servers(self) -> Sequence[Server]:
        """Who is asked for what is not a container's name."""
        return self._names.servers()

    async def resolve(self, name: str) -> Sequence[IPv4Address | IPv6Address]:
        """The addresses that the container would be told of, none for a name that is not known."""
        found = self._names.addresses(name)
        if found is not None:
            return found
        addresses: list[IPv4Address | IPv6Address] = []
        for kind in (wire.A, wire.AAAA):
            try:
                response = await self._forward(wire.question(name, kind), tcp=False)
            except ValueError:
                return ()
            addresses += wire.addresses_of(response)[1]
        return addresses

    def _receive(self) -> None:
        try:
            data, client = self._udp.recvfrom(_RECEIVE_BYTES)
        except OSError:
            return
        found = self._local(data, tcp=False)
        if found is not None:
            self._send(found, client)
        elif self._pending < _MAX_PENDING:
            self._pending += 1
            self._tasks.spawn(self._forward_datagram(data, client), name="a DNS question")

    async def _forward_datagram(self, data: bytes, client: tuple[str, int]) -> None:
        try:
            found = await self._forward(data, tcp=False)
        finally:
            self._pending -= 1
        self._send(found, client)

    def _send(self, data: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._udp.sendto(data, client)

    def _accept(self) -> None:
        try:
            client, _ = self._tcp.accept()
        except OSError:
            return
        if self._pending >= _MAX_PENDING:
            client.close()
            return
        client.setblocking(False)
        self._pending += 1
        self._tasks.spawn(self._serve(client), name="DNS over TCP")

    async def _serve(self, client: socket.socket) -> None:
        """Answer the questions of one connection, one after another."""
        try:
            with client, contextlib.suppress(OSError, EOFError):
                while True:
                    async with asyncio.timeout(_IDLE_S):
                        size = int.from_bytes(await self._exactly(client, 2), "big")
                        data = await self._exactly(client, size)
                    found = self._local(data, tcp=True)
                    if found is None:
                        found = await self._forward(data, tcp=True)
                    await self._loop.sock_sendall(client, len(found).to_bytes(2, "big") + found)
        finally:
            self._pending -= 1

    async def _exactly(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await self._loop.sock_recv(sock, size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _local(self, data: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a question about containers, None for any other."""
        try:
            query = wire.parse(data)
        except wire.Malformed as exc:
            return wire.failure(exc.ident or 0, wire.FORMERR)
        limit = 0xFFFF if tcp else query.size
        if query.klass != wire.IN:
            return None
        address = wire.reverse_address(query.name)
        if address is not None:
            name = self._names.name_of(address)
            if name is None:
                return None
            if not name:
                return wire.answer(query, (), limit=limit, code=wire.NXDOMAIN)
            records = [wire.pointer_record(name)] if query.kind in (wire.PTR, wire.ANY) else []
            return wire.answer(query, records, limit=limit)
        found = self._names.addresses(query.name)
        if found is None:
            return None
        if not found:
            return wire.answer(query, (), limit=limit, code=wire.NXDOMAIN)
        version = {wire.A: (4,), wire.AAAA: (6,), wire.ANY: (4, 6)}.get(query.kind, ())
        wanted = [wire.address_record(a) for a in found if a.version in version]
        if len(wanted) > 1:
            self._turn = (self._turn + 1) % len(wanted)
            wanted = wanted[self._turn :] + wanted[: self._turn]
        return wire.answer(query, wanted, limit=limit)

    async def _forward(self, data: bytes, *, tcp: bool) -> bytes:
        query = wire.parse(data)
        if not self._names.may_ask(query.name):
            # NXDOMAIN and not REFUSED, after which musl's resolver waits for its time to be over.
            return wire.answer(query, (), limit=wire.PLAIN_BYTES, code=wire.NXDOMAIN)
        found = await ask(data, self._names.servers(), self._make, tcp=tcp)
        if found is not None:
            self._names.answered(query.name, found)
            return found
        return wire.answer(query, (), limit=wire.PLAIN_BYTES, code=wire.SERVFAIL)

    def _make(self, server: Server, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        if not server.inside or self._udp.fileno() < 0:
            return socket.socket(family, kind | socket.SOCK_CLOEXEC)
        with self._namespaces.entered(self._netns_fd):
            return socket.socket(family, kind | socket.SOCK_CLOEXEC)


def _open_sockets() -> tuple[socket.socket, socket.socket]:
    """In the container's network: a UDP and a TCP socket that serve 127.0.0.11:53."""
    with contextlib.ExitStack() as stack:
        udp = stack.enter_context(_bound(socket.SOCK_DGRAM, 0))
        tcp = stack.enter_context(_bound(socket.SOCK_STREAM, 0))
        try:
            rules = _RULES.format(udp=udp.getsockname()[1], tcp=tcp.getsockname()[1])
            with Nftables() as nft:
                try:
                    nft.run(rules)
                except OSError:
                    # An earlier pierd's are there. Not at once: who has deleted something waits
                    # for RCU when it closes its socket, 10 ms of a start.
                    nft.run(_FORGET + rules)
        except OSError:
            udp.close()
            tcp.close()
            udp = stack.enter_context(_bound(socket.SOCK_DGRAM, _PORT))
            tcp = stack.enter_context(_bound(socket.SOCK_STREAM, _PORT))
        tcp.listen(16)
        stack.pop_all()
    return udp, tcp


def _bound(kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ADDRESS, port))
    except OSError:
        sock.close()
        raise
    return sock
