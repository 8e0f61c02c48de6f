"""The four ways in which GNU tar writes a sparse file (GNU tar manual, "Storing Sparse Files").

old GNU   typeflag "S": 4 pieces in the header, 21 more in each block that follows
PAX 0.0   GNU.sparse.offset and GNU.sparse.numbytes, repeated in pairs; GNU.sparse.size
PAX 0.1   GNU.sparse.map "offset,length,…"; GNU.sparse.name, GNU.sparse.size
PAX 1.0   decimal lines in front of the data, padded to blocks; GNU.sparse.name, .realsize
"""

from pier.storage.tar.chunks import Chunks
from pier.storage.tar.errors import TarError, TruncatedError
from pier.storage.tar.header import BLOCK, Entry, check_size, parse_number
from pier.storage.tar.pax import Records, parse_integer

MAX_PIECES = 1 << 20


def read_old_map(entry: Entry, block: bytes, chunks: Chunks) -> None:
    """Take the map of a typeflag "S" header, reading the blocks that continue it."""
    pieces: list[tuple[int, int]] = []
    _add_old_pieces(pieces, block[386:482])
    size = check_size(parse_number(block[483:495]))
    more = block[482]
    while more:
        extension = chunks.take(BLOCK)
        if not extension:
            raise TruncatedError
        _add_old_pieces(pieces, extension[:504])
        more = extension[504]
    _set_map(entry, pieces, size)


def read_pax_map(entry: Entry, records: Records, chunks: Chunks) -> None:
    """Take the map that PAX records announce, if they do; it may stand in front of the data."""
    name = records.get(b"GNU.sparse.name")
    if name and b"\0" not in name:
        entry.name = name
    version = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    if version == (b"1", b"0"):
        numbers = _read_lines(entry, chunks)
        size = records.get(b"GNU.sparse.realsize", b"")
    elif b"GNU.sparse.map" in records:
        numbers = [parse_integer(n) for n in records[b"GNU.sparse.map"].split(b",") if n]
        size = records.get(b"GNU.sparse.size", b"")
    elif records.pairs:
        numbers = [parse_integer(n) for n in records.pairs]
        size = records.get(b"GNU.sparse.size", b"")
    else:
        return
    if len(numbers) % 2:
        raise TarError("archive/tar: invalid tar header")
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    _set_map(entry, pieces, check_size(parse_integer(size or b"0")))


def _add_old_pieces(pieces: list[tuple[int, int]], table: bytes) -> None:
    for at in range(0, len(table) - 23, 24):
        if not table[at]:
            break
        pieces.append((parse_number(table[at : at + 12]), parse_number(table[at + 12 : at + 24])))


def _read_lines(entry: Entry, chunks: Chunks) -> list[int]:
    """Read "count, then count pairs", a number a line, in whole blocks out of the file's data."""
    blocks: list[bytes] = []
    lines = 0
    wanted = 1
    while lines < wanted:
        block = chunks.take(BLOCK) if entry.stored >= BLOCK else b""
        if not block:
            raise TruncatedError
        entry.stored -= BLOCK
        blocks.append(block)
        lines += block.count(b"\n")
        if len(blocks) == 1:
            # The count is in the first block: a number has at most 20 digits.
            count = parse_integer(block.partition(b"\n")[0])
            if not 0 <= count <= MAX_PIECES:
                raise TarError("archive/tar: invalid tar header")
            wanted = 1 + 2 * count
    return [parse_integer(line) for line in b"".join(blocks).split(b"\n")[1:wanted]]


def _set_map(entry: Entry, pieces: list[tuple[int, int]], size: int) -> None:
    """Check that the pieces ascend within the file and make up the stored data, then set them."""
    ends = [0]
    for offset, length in pieces:
        if offset < ends[-1] or length < 0:
            raise TarError("archive/tar: invalid tar header")
        ends.append(offset + length)
    if (
        len(pieces) > MAX_PIECES
        or ends[-1] > size
        or sum(length for _, length in pieces) != entry.stored
    ):
        raise TarError("archive/tar: invalid tar header")
    entry.sparse = pieces
    entry.size = size
