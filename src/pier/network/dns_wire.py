"""DNS messages: one question in, answers of addresses and names out (RFC 1035, 3596, 6891).

Only what an answerer for containers needs; everything else is passed on as it came.
"""

import ipaddress
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

A, CNAME, PTR, AAAA, OPT, ANY = 1, 5, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
TTL_S = 600
PLAIN_BYTES = 512
MAX_UDP_BYTES = 4096
MAX_NAME_BYTES = 255

_HEADER = struct.Struct("!HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_POINTER = 0xC0
_POINTER_TO_QUESTION = b"\xc0\x0c"


class Malformed(ValueError):
    """Not a query that could be answered; `ident` is its ID where it had one, else None."""

    def __init__(self, ident: int | None) -> None:
        super().__init__("malformed query")
        self.ident = ident


@dataclass(frozen=True, slots=True)
class Query:
    """A query. `name` is in lower case without its last dot; `size` what the asker takes by UDP."""

    ident: int
    name: str
    kind: int
    klass: int
    recursive: bool
    size: int
    question: bytes


def question(name: str, kind: int) -> bytes:
    """A query for a name. Raises ValueError for what is no domain name."""
    head = _HEADER.pack(int.from_bytes(os.urandom(2), "big"), _RD, 1, 0, 0, 0)
    return head + encode_name(name) + struct.pack("!HH", kind, IN)


def parse(data: bytes) -> Query:
    """Read a query with one question. Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed(None)
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & (_QR | _OPCODE) or questions != 1:
        raise Malformed(ident)
    try:
        name, offset = _read_name(data, _HEADER.size)
        kind, klass = struct.unpack_from("!HH", data, offset)
        end = offset + 4
        size = PLAIN_BYTES
        if not answers and not authorities and additional:
            size = _udp_size(data, end, additional)
    except (struct.error, IndexError, ValueError):
        raise Malformed(ident) from None
    question = data[_HEADER.size : end]
    return Query(ident, name, kind, klass, bool(flags & _RD), size, question)


def answer(query: Query, records: Sequence[bytes], *, limit: int, code: int = NOERROR) -> bytes:
    """Return a response; without room for all records within `limit` bytes it says so (TC)."""
    flags = _QR | _RA | (_RD if query.recursive else 0) | code
    body = bytearray()
    count = 0
    room = limit - _HEADER.size - len(query.question)
    for record in records:
        if len(body) + len(record) > room:
            flags |= _TC
            break
        body += record
        count += 1
    return _HEADER.pack(query.ident, flags, 1, count, 0, 0) + query.question + bytes(body)


def failure(ident: int, code: int) -> bytes:
    """Return a response without a question, for what could not be read."""
    return _HEADER.pack(ident, _QR | _RA | code, 0, 0, 0, 0)


def address_record(address: IPv4Address | IPv6Address) -> bytes:
    """An answer to the question's own name: A or AAAA."""
    kind = A if address.version == 4 else AAAA
    return _record(kind, address.packed)


def pointer_record(name: str) -> bytes:
    """An answer to a reverse question. Raises ValueError for what is no domain name."""
    return _record(PTR, encode_name(name))


def reverse_address(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a name of in-addr.arpa or ip6.arpa asks about, None for any other name."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return IPv4Address(".".join(reversed(labels[:4])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            digits = "".join(reversed(labels[:32]))
            return ipaddress.IPv6Address(int(digits, 16))
    except ValueError:
        return None
    return None


def encode_name(name: str) -> bytes:
    """A domain name as labels. Raises ValueError."""
    encoded = bytearray()
    for label in name.rstrip(".").split("."):
        raw = label.encode("latin-1", errors="strict") if label else b""
        if not 0 < len(raw) < 64:
            raise ValueError(f"{name!r} is not a domain name")
        encoded += bytes((len(raw),)) + raw
    encoded.append(0)
    if len(encoded) > MAX_NAME_BYTES:
        raise ValueError(f"{name!r} is too long for a domain name")
    return bytes(encoded)


def same_question(query: bytes, response: bytes) -> bool:
    """Whether a response is one to that query: the ID, and the question if it repeats one."""
    if len(response) < _HEADER.size or query[:2] != response[:2]:
        return False
    flags, questions = struct.unpack_from("!HH", response, 2)
    if not flags & _QR:
        return False
    if questions == 0:
        return True
    end = _question_end(query)
    return query[_HEADER.size : end].lower() == response[_HEADER.size : end].lower()


def addresses_of(response: bytes) -> tuple[set[str], dict[IPv4Address | IPv6Address, int]]:
    """What a response says of its question's name: its names (CNAME) and addresses with their TTLs.

    Records of other names are left out; what cannot be read is none.
    """
    found: dict[IPv4Address | IPv6Address, int] = {}
    try:
        _, _, questions, answers, _, _ = _HEADER.unpack_from(response)
        names: set[str] = set()
        offset = _HEADER.size
        for _ in range(questions):
            name, offset = _read_compressed(response, offset)
            names.add(name)
            offset += 4
        for _ in range(answers):
            name, offset = _read_compressed(response, offset)
            kind, klass, ttl, size = struct.unpack_from("!HHIH", response, offset)
            offset += 10
            data = response[offset : offset + size]
            if klass == IN and name in names:
                if kind == CNAME:
                    names.add(_read_compressed(response, offset)[0])
                elif kind in (A, AAAA) and size in (4, 16):
                    found[ipaddress.ip_address(data)] = ttl
            offset += size
    except (struct.error, IndexError, ValueError):
        return set(), {}
    return names, found


def response_code(response: bytes) -> int:
    return response[3] & 0xF


def _question_end(data: bytes) -> int:
    try:
        return _read_name(data, _HEADER.size)[1] + 4
    except (ValueError, IndexError):
        return len(data)


def _record(kind: int, data: bytes) -> bytes:
    return _POINTER_TO_QUESTION + struct.pack("!HHIH", kind, IN, TTL_S, len(data)) + data


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    """A name without compression, which a question has none of. Raises ValueError, IndexError."""
    labels = []
    start = offset
    while size := data[offset]:
        if size > 63 or offset + 1 + size >= len(data) or offset - start > MAX_NAME_BYTES:
            raise ValueError("bad label")
        labels.append(data[offset + 1 : offset + 1 + size].decode("latin-1"))
        offset += 1 + size
    return ".".join(labels).lower(), offset + 1


def _read_compressed(data: bytes, offset: int) -> tuple[str, int]:
    """A name, and where it ends. Raises ValueError, IndexError."""
    labels: list[str] = []
    end = 0
    for _ in range(MAX_NAME_BYTES):
        size = data[offset]
        if size >= _POINTER:
            end = end or offset + 2
            offset = (size & ~_POINTER) << 8 | data[offset + 1]
        elif size > 63:
            raise ValueError("bad label")
        elif size:
            labels.append(data[offset + 1 : offset + 1 + size].decode("latin-1"))
            offset += 1 + size
        else:
            return ".".join(labels).lower(), end or offset + 1
    raise ValueError("a name without end")


def _udp_size(data: bytes, offset: int, records: int) -> int:
    """What the OPT record says that the asker takes, within bounds."""
    for _ in range(records):
        _, offset = _read_name(data, offset)
        kind, klass, _, size = struct.unpack_from("!HHIH", data, offset)
        if kind == OPT:
            return min(max(int(klass), PLAIN_BYTES), MAX_UDP_BYTES)
        offset += 10 + size
    return PLAIN_BYTES
