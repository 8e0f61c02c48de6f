"""Connection tracking by netlink (nfnetlink_conntrack): flows that are to be forgotten.

A flow keeps the address translation that it began with for as long as packets come. For UDP, where
nobody closes a flow, that is for ever: a port that is led elsewhere has to be told (moby/moby#8795).
"""

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from pier.kernel.netlink import NETLINK_NETFILTER, Netlink, attribute, message, parse

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_SRC, _CTA_IP_DST = (1, 3), (2, 4)
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_HEAD = struct.Struct("=BBH")
_NESTED = 0x8000


Judge = Callable[[IPv4Address | IPv6Address, IPv4Address | IPv6Address, int, int], bool]


def forget(protocol: int, ports: Collection[int]) -> int:
    """Forget the flows to these ports, in this network namespace; return how many there were.

    `protocol` is of socket.IPPROTO_*. Without connection tracking there are none. Raises OSError.
    """
    return forget_where(lambda _source, _to, kind, port: kind == protocol and port in ports)


def forget_where(judge: Judge) -> int:
    """Forget the flows that `judge(source, destination, protocol, port)` is true of.

    All are of the original direction: who began, and where it was sent first; port 0 for none.
    Return how many there were. Raises OSError.
    """
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            found = [
                message(_SUBSYSTEM | _DELETE, 0, _HEAD.pack(family, 0, 0), original)
                for family in (socket.AF_INET, socket.AF_INET6)
                for original in _flows(netlink, family, judge)
            ]
            for each in found:
                try:
                    netlink.request(each)
                except OSError as exc:
                    if exc.errno != errno.ENOENT:  # it ended by itself
                        raise
    except OSError as exc:
        if exc.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            return 0
        raise
    return len(found)


def _flows(netlink: Netlink, family: int, judge: Judge) -> Iterator[bytes]:
    """The original direction of each flow, as the attribute that names it."""
    for payload in netlink.dump(message(_SUBSYSTEM | _GET, 0, _HEAD.pack(family, 0, 0))):
        original = parse(payload, _HEAD.size).get(_CTA_TUPLE_ORIG, b"")
        parts = parse(original)
        ends = parse(parts.get(_CTA_TUPLE_IP, b""))
        proto = parse(parts.get(_CTA_TUPLE_PROTO, b""))
        source, to = (b"".join(ends.get(n, b"") for n in k) for k in (_CTA_IP_SRC, _CTA_IP_DST))
        kind = proto.get(_CTA_PROTO_NUM, b"")
        port = int.from_bytes(proto.get(_CTA_PROTO_DST_PORT, b""), "big")
        if source and to and kind and judge(ip_address(source), ip_address(to), kind[0], port):
            yield attribute(_CTA_TUPLE_ORIG | _NESTED, original)
