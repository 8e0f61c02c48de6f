"""`pier network policy test`: what a policy says of a target, and what a connection comes to."""

import asyncio
import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from pier.engine.container import Container
from pier.engine.egress import Egress
from pier.engine.endpoints import Endpoints
from pier.engine.etc_files import HOST_GATEWAY, split_extra_host
from pier.engine.plug import Plug
from pier.errors import Conflict
from pier.model.egress import EgressTest
from pier.network import egress
from pier.network.egress import Address
from pier.network.namespaces import Namespaces

_CONNECT_S = 3.0


async def try_target(
    container: Container,
    text: str,
    *,
    policies: Egress,
    endpoints: Endpoints,
    namespaces: Namespaces,
    gateways: Sequence[str],
) -> list[EgressTest]:
    """Judge HOST[:PORT][/PROTOCOL] as from a container; TCP is tried. Conflict when it is not running.

    Raises InvalidParameter for a target that is none.
    """
    host, protocol, port = egress.target(text)
    plug = endpoints.plug(container)
    if plug is None:
        raise Conflict(f"container {container.id} has no running network of its own")
    found = []
    for address in await _addresses(container, plug, host, gateways):
        allowed, reason = policies.verdict(container.record, address, protocol, port)
        trial = EgressTest(text, str(address), protocol, port, allowed, reason)
        if protocol == "tcp":
            trial.Connection = await _connect(namespaces, plug, address, port)
        found.append(trial)
    if not found:
        may = plug.dns is None or policies.may_ask(container.record, host)
        reason = "the name is not known" if may else "the name is not in the policy"
        found.append(EgressTest(text, "", protocol, port, Allowed=False, Reason=reason))
    return found


async def _addresses(
    container: Container, plug: Plug, host: str, gateways: Sequence[str]
) -> Sequence[Address]:
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    for item in container.record.HostConfig.ExtraHosts or ():
        name, address = split_extra_host(item)
        if name.lower() == host:
            texts = gateways if address == HOST_GATEWAY else [address]
            return [ip_address(each) for each in texts]
    if plug.dns is not None:
        return await plug.dns.resolve(host)
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return list(dict.fromkeys(ip_address(info[4][0]) for info in infos))


async def _connect(namespaces: Namespaces, plug: Plug, address: Address, port: int) -> str:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with namespaces.entered(plug.netns_fd):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        except TimeoutError:
            return "timed out"
        except OSError as exc:
            return os.strerror(exc.errno).lower() if exc.errno else str(exc)
    return "connected"
