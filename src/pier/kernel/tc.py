"""tc(8) by rtnetlink: a token bucket, tc-tbf(8), delay and loss, tc-netem(8). Pure messages.

Of a link's two directions the kernel shapes what is sent. What a container receives is sent by the
host's end of its pair, what it sends by its own.
"""

import socket
import struct

from pier.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, attribute, message, nested, text, u32

RTM_NEWQDISC, RTM_DELQDISC = 36, 37
TC_H_ROOT = 0xFFFFFFFF
TCA_KIND = 1
TCA_OPTIONS = 2
TCA_TBF_PARMS = 1
TCA_TBF_RATE64 = 4
TCA_TBF_BURST = 6
TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64 = 10, 11
_LINKLAYER_ETHERNET = 1
_HANDLE = 0x10000
_BUCKET_CLASS = 0x10001
_NETEM_HANDLE = 0x100000
_NETEM_PACKETS = 10_000

_TCMSG = struct.Struct("=BxxxiIII")
_RATESPEC = struct.Struct("=BBHhHI")
_TBF = struct.Struct("=12s12sIII")
_NETEM = struct.Struct("=IIIIII")
_MAX_RATE = 0xFFFFFFFF


def token_bucket(index: int, rate: int, burst: int, queue: int) -> bytes:
    """Let a link send `rate` bytes a second, `burst` bytes at once; `queue` bytes may wait."""
    spec = _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, _MAX_RATE))
    parameters = _TBF.pack(spec, bytes(12), queue, 0, 0)
    options = [attribute(TCA_TBF_PARMS, parameters), u32(TCA_TBF_BURST, burst)]
    if rate > _MAX_RATE:
        options.append(attribute(TCA_TBF_RATE64, struct.pack("=Q", rate)))
    head = _TCMSG.pack(socket.AF_UNSPEC, index, _HANDLE, TC_H_ROOT, 0)
    return message(
        RTM_NEWQDISC,
        NLM_F_CREATE | NLM_F_REPLACE,
        head,
        text(TCA_KIND, "tbf"),
        nested(TCA_OPTIONS, *options),
    )


def emulated(index: int, delay_us: int, jitter_us: int, loss: float, *, in_bucket: bool) -> bytes:
    """Let a link send later, and lose a share of packets (0 to 1); `in_bucket`: with a token bucket.

    ENOENT where the kernel has no netem.
    """
    head = _TCMSG.pack(
        socket.AF_UNSPEC, index, _NETEM_HANDLE, _BUCKET_CLASS if in_bucket else TC_H_ROOT, 0
    )
    # The old fields of delay and jitter hold 32 bits of another unit; the attributes replace them.
    options = _NETEM.pack(0, _NETEM_PACKETS, min(round(loss * (1 << 32)), 0xFFFFFFFF), 0, 0, 0)
    options += attribute(TCA_NETEM_LATENCY64, struct.pack("=q", delay_us * 1000))
    options += attribute(TCA_NETEM_JITTER64, struct.pack("=q", jitter_us * 1000))
    kind = text(TCA_KIND, "netem")
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return message(RTM_NEWQDISC, flags, head, kind, attribute(TCA_OPTIONS, options))


def no_queue(index: int) -> bytes:
    """Take the root qdisc away: the link sends as it likes. ENOENT or EINVAL where there is none."""
    return message(RTM_DELQDISC, 0, _TCMSG.pack(socket.AF_UNSPEC, index, 0, TC_H_ROOT, 0))
