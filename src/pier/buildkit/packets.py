"""fsutil's packets, fast: a build's context is thousands of them (types/wire.proto, stat.proto).

    sender    STAT STAT … STAT without a stat                      the tree, in order of paths
    receiver              REQ id … REQ id …                        ids count the sender's STATs
    sender                          DATA id bytes … DATA id empty  that file has ended
    receiver                                           FIN         enough; the sender answers FIN

Either side may say ERR with a message. A stat's bytes are kept as they came: two that are the same
bytes are the same file.
"""

import os
import stat

from msgspec import Struct

from pier.buildkit.messages.filesync import Stat
from pier.grpc.message import BadMessage, read_varint, varint

STAT, REQ, DATA, FIN, ERR = range(5)

# os.FileMode of Go, which stats carry.
_DIRECTORY, _SYMLINK, _DEVICE, _PIPE, _SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_SETUID, _SETGID, _CHARACTER, _STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
_KINDS = (
    (_DIRECTORY, stat.S_IFDIR),
    (_SYMLINK, stat.S_IFLNK),
    (_PIPE, stat.S_IFIFO),
    (_SOCKET, stat.S_IFSOCK),
)


_NOTHING = memoryview(b"")


class Packet(Struct):
    """`body` is a stat's bytes, or an error's text, `data` a file's; `id` is the file's."""

    kind: int
    id: int
    body: bytes
    data: memoryview


def read_packet(data: bytes) -> Packet:
    """Raises BadMessage."""
    kind = number = 0
    body, content = b"", _NOTHING
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x08:
            kind, at = read_varint(data, at)
        elif tag == 0x18:
            number, at = read_varint(data, at)
        elif tag in (0x12, 0x22):
            size, at = read_varint(data, at)
            if at + size > end:
                raise BadMessage("packet is cut off")
            if kind == DATA:
                content = memoryview(data)[at : at + size]  # not copied: there is a lot of it
            else:
                body = data[at : at + size]
            at += size
        else:
            raise BadMessage(f"packet has a field that is not known: {tag}")
    return Packet(kind, number, body, content)


def request(number: int) -> bytes:
    return b"\x08\x01" + (b"\x18" + varint(number) if number else b"")


def stat_packet(body: bytes) -> bytes:
    """`body` is empty for the end of the tree."""
    return b"\x12" + varint(len(body)) + body if body else b""


def data_packet(number: int, data: bytes) -> bytes:
    head = b"\x08\x02" + (b"\x18" + varint(number) if number else b"")
    return head + b"\x22" + varint(len(data)) + data if data else head


FIN_PACKET = b"\x08\x03"


def path_of(body: bytes) -> bytes:
    """Return the path of a stat's bytes, whose first field it is. Raises BadMessage."""
    if not body or body[0] != 0x0A:
        raise BadMessage("a file without a path")
    size, at = read_varint(body, 1)
    if at + size > len(body) or not size:
        raise BadMessage("a file without a path")
    return body[at : at + size]


def mode_of(mode: int) -> int:
    """Return Go's os.FileMode as st_mode."""
    found = mode & 0o777
    for bit, special in ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX)):
        found |= special if mode & bit else 0
    for bit, kind in _KINDS:
        if mode & bit:
            return found | kind
    if mode & _DEVICE:
        return found | (stat.S_IFCHR if mode & _CHARACTER else stat.S_IFBLK)
    return found | stat.S_IFREG


def go_mode(mode: int) -> int:
    """Return st_mode as Go's os.FileMode."""
    found = mode & 0o777
    for bit, special in ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX)):
        found |= bit if mode & special else 0
    for bit, kind in _KINDS:
        if stat.S_IFMT(mode) == kind:
            return found | bit
    if stat.S_ISCHR(mode):
        return found | _DEVICE | _CHARACTER
    return found | _DEVICE if stat.S_ISBLK(mode) else found


def stat_of(path: str, found: os.stat_result, linkname: str = "") -> Stat:
    """Describe a file for a receiver."""
    is_device = stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
    return Stat(
        path=path,
        mode=go_mode(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size if stat.S_ISREG(found.st_mode) else 0,
        modTime=found.st_mtime_ns,
        linkname=linkname,
        devmajor=os.major(found.st_rdev) if is_device else 0,
        devminor=os.minor(found.st_rdev) if is_device else 0,
    )
