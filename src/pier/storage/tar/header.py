"""One 512-byte tar header: POSIX.1-1988 ustar, old V7 and GNU (pax(1); GNU tar's tar.h).

name 100 | mode 8 | uid 8 | gid 8 | size 12 | mtime 12 | chksum 8 | typeflag 1 | linkname 100 |
magic 6 | version 2 | uname 32 | gname 32 | devmajor 8 | devminor 8 | prefix 155
"""

from pier.storage.tar.errors import TarError

BLOCK = 512
ZEROS = bytes(BLOCK)

V7_REGULAR = 0x00
REGULAR = 0x30  # "0"; also what V7_REGULAR and "7" (contiguous) are read as
LINK = 0x31
SYMLINK = 0x32
CHARACTER = 0x33
BLOCK_DEVICE = 0x34
DIRECTORY = 0x35
FIFO = 0x36
GNU_LONG_LINK = ord("K")
GNU_LONG_NAME = ord("L")
GNU_SPARSE = ord("S")
PAX = ord("x")
PAX_GLOBAL = ord("g")

_REGULARS = frozenset(b"\x000 7")
# These have no data, whatever their size field says.
HEADER_ONLY = frozenset({LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})

_MAX_SIZE = 1 << 62


class Entry:
    """A member of an archive. Names are bytes as they stand in it, neither cleaned nor checked.

    `mtime_ns` is since the epoch and may be negative. `size` is the file's; `stored` the bytes of
    it in the archive, fewer when it is `sparse`: (offset, length) of each piece, in order.
    """

    __slots__ = (
        "devmajor",
        "devminor",
        "gid",
        "linkname",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "sparse",
        "stored",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.name = b""
        self.linkname = b""
        self.type = REGULAR
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.stored = 0
        self.mtime_ns = 0
        self.devmajor = 0
        self.devminor = 0
        self.xattrs: dict[str, bytes] | None = None
        self.sparse: list[tuple[int, int]] | None = None


def parse_number(field: bytes) -> int:
    """Decode an octal field, or GNU's base-256 one (first bit set; two's complement).

    Raises TarError.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (len(field) * 8 - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (len(field) * 8 - 1)
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not digits.isdigit():
        raise TarError("archive/tar: invalid tar header")
    try:
        return int(digits, 8)
    except ValueError as exc:
        raise TarError("archive/tar: invalid tar header") from exc


def parse_header(block: bytes) -> Entry:
    """Decode a header block that is not all zeros. Raises TarError."""
    checksum = parse_number(block[148:156])
    # The field itself counts as eight spaces.
    if sum(block) - sum(block[148:156]) + 256 != checksum and _signed_sum(block) != checksum:
        raise TarError("archive/tar: invalid tar header")
    entry = Entry()
    entry.name = block[:100].partition(b"\0")[0]
    entry.mode = parse_number(block[100:108]) & 0o7777
    entry.uid = parse_number(block[108:116])
    entry.gid = parse_number(block[116:124])
    entry.size = check_size(parse_number(block[124:136]))
    entry.mtime_ns = parse_number(block[136:148]) * 1_000_000_000
    entry.type = kind = block[156]
    entry.linkname = block[157:257].partition(b"\0")[0]
    if block[257:262] == b"ustar":
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.devmajor = parse_number(block[329:337])
            entry.devminor = parse_number(block[337:345])
        # GNU's magic is "ustar  \0"; its headers have times and sparse maps where the prefix is.
        if block[262] == 0 and block[345]:
            entry.name = block[345:500].partition(b"\0")[0] + b"/" + entry.name
    if kind in _REGULARS:
        entry.type = REGULAR
    if entry.type in HEADER_ONLY:
        entry.size = 0
    entry.stored = entry.size
    return entry


def check_size(size: int) -> int:
    """Return `size` when a file can have it. Raises TarError."""
    if not 0 <= size <= _MAX_SIZE:
        raise TarError("archive/tar: invalid tar header")
    return size


def _signed_sum(block: bytes) -> int:
    """Sum as some old tars did, with signed characters."""
    unsigned = sum(block) - sum(block[148:156]) + 256
    high = sum(1 for at, byte in enumerate(block) if byte > 127 and not 148 <= at < 156)
    return unsigned - 256 * high
