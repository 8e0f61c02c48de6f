"""Reading a tar stream, member by member, forward only."""

from collections.abc import Iterator

from pier.storage.tar import header, pax, sparse
from pier.storage.tar.chunks import Chunks
from pier.storage.tar.errors import TarError, TruncatedError
from pier.storage.tar.header import BLOCK, ZEROS, Entry

# What one long name or extended header may take, as in Go's archive/tar.
MAX_SPECIAL = 1 << 20

_SPECIAL = frozenset({header.PAX, header.PAX_GLOBAL, header.GNU_LONG_NAME, header.GNU_LONG_LINK})


class TarReader:
    """Iterate for the entries; between two of them, `copy` or `read` takes the entry's data.

    Data that was not taken is skipped. Formats: V7, ustar, PAX, GNU; global PAX headers are
    ignored, as Docker does. Iteration raises TarError (TruncatedError for a stream that ends early).
    """

    def __init__(self, chunks: Iterator[bytes], *, max_entries: int = 0) -> None:
        self._chunks = Chunks(chunks)
        self._left = 0  # data bytes of the current entry not taken yet
        self._padding = 0
        self._max_entries = max_entries
        self._entries = 0

    def __iter__(self) -> Iterator[Entry]:
        chunks = self._chunks
        while True:
            left, padding = self._left, self._padding
            self._left = self._padding = 0
            if left:
                chunks.skip(left)
            # `docker build -f -` ends its archive with the last byte of the last file.
            if padding and not chunks.skip_or_end(padding):
                return
            entry = self._next()
            if entry is None:
                return
            self._entries += 1
            if 0 < self._max_entries < self._entries:
                raise TarError(f"archive has more than {self._max_entries} entries")
            self._left = entry.stored
            self._padding = -entry.stored % BLOCK
            yield entry

    @property
    def offset(self) -> int:
        """How many bytes of the archive were taken: between an entry and its data, where that is."""
        return self._chunks.offset

    @property
    def left(self) -> int:
        """Bytes of the current entry's data that were not taken yet."""
        return self._left

    def copy(self, fd: int, size: int) -> None:
        """Write the next `size` bytes of the entry's data to `fd`."""
        self._take(size)
        self._chunks.copy(fd, size)

    def views(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes of the entry's data; take them all."""
        self._take(size)
        return self._chunks.views(size)

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes of the entry's data."""
        self._take(size)
        data = self._chunks.take(size) if size else b""
        if len(data) != size:
            raise TruncatedError
        return data

    def drain(self) -> None:
        """Read what follows the end of the archive, for whoever hashes the whole stream."""
        self._chunks.drain()

    def _take(self, size: int) -> None:
        if size > self._left:
            raise TarError("archive/tar: read past the end of an entry")
        self._left -= size

    def _next(self) -> Entry | None:
        """Return the next real entry with all that the special ones before it say."""
        special: dict[int, bytes] = {}
        while True:
            block = self._chunks.take(BLOCK)
            if not block or block == ZEROS:
                if special:
                    raise TruncatedError
                if block:
                    self._check_end()
                return None
            entry = header.parse_header(block)
            if entry.type not in _SPECIAL:
                break
            data = self._special(entry)
            if entry.type != header.PAX_GLOBAL:
                special[entry.type] = data
        kind = entry.type
        if special:
            self._extend(entry, special)
        if block[156] == header.V7_REGULAR and entry.name[-1:] == b"/":
            # V7 had no directories. Not sooner: a long name may be cut at a slash in the header.
            entry.type = header.DIRECTORY
            entry.size = entry.stored = 0
        elif kind == header.GNU_SPARSE:
            entry.type = header.REGULAR
            sparse.read_old_map(entry, block, self._chunks)
        return entry

    def _extend(self, entry: Entry, special: dict[int, bytes]) -> None:
        """Overrule a header by the special entries before it."""
        if header.GNU_LONG_NAME in special:
            entry.name = special[header.GNU_LONG_NAME].partition(b"\0")[0]
        if header.GNU_LONG_LINK in special:
            entry.linkname = special[header.GNU_LONG_LINK].partition(b"\0")[0]
        if header.PAX in special:
            records = pax.parse_records(special[header.PAX])
            pax.apply_records(entry, records)
            if entry.type in header.HEADER_ONLY:
                entry.size = entry.stored = 0
            sparse.read_pax_map(entry, records, self._chunks)

    def _special(self, entry: Entry) -> bytes:
        if entry.size > MAX_SPECIAL:
            raise TarError("archive/tar: header field too long")
        data = self._chunks.take(entry.size) if entry.size else b""
        if len(data) != entry.size:
            raise TruncatedError
        self._chunks.skip(-entry.size % BLOCK)
        return data

    def _check_end(self) -> None:
        """After one block of zeros comes another, or the end of the stream."""
        block = self._chunks.take(BLOCK)
        if block and block != ZEROS:
            raise TarError("archive/tar: invalid tar header")
