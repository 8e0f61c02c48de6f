r"""The json-file log: one JSON object a line, as Docker writes it and its readers expect.

    {"log":"text of the line\n","stream":"stdout","time":"2026-11-23T21:00:00.123456789Z"}

A read of up to 64 KiB becomes one write: the text is escaped by the JSON encoder's C function as a
whole, and its line breaks are then replaced, again as a whole, by what stands between two records.
Nothing is done line by line. All lines of one read carry the time of that read. Plain ASCII without
anything to escape, which most logs are, is not even decoded: that is four times faster again.

A line that has not ended yet waits for its end, up to 16 KiB; then it goes out as a record whose
text has no "\n", which is how readers know that it goes on.

With `attributes` every record has them, as Docker's with labels, env or tag do:

    {"log":"…\n","stream":"stdout","attrs":{"app":"web"},"time":"…"}
"""

from __future__ import annotations

import os
import time

from pier.kernel.lean import encode_basestring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PARTIAL_BYTES = 16 << 10
# What stands for a line break while the text is escaped: never in decoded text (a lone surrogate
# cannot come out of UTF-8), never touched by the escaping. DEL is as good for most texts, and keeps
# a text of ASCII in one byte a character.
BREAK_ASCII = "\x7f"
BREAK_ANY = "\udc0a"
# Bytes that are themselves in JSON, and line breaks.
PLAIN = b"\n" + bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')


class JsonLog:
    """Writes the log of one container and rotates it.

    `path` is the current file; older ones are `path`.1 (newest) to `path`.<max_file - 1>.
    `max_size` is in bytes, 0 for one file without end. When the disk is full, records are dropped
    and counted in `dropped_bytes`: a container does not stop because its log cannot be written.
    With `compress` the older files are `path`.<n>.gz, made by a process of their own
    (`log_compress`); the newest of them may not be compressed yet.
    """

    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        *,
        compress: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max_file
        self.dropped_bytes = 0
        self._compress = compress
        self._compressor_pid = 0
        self._attributes = _encoded(attributes) if attributes else ""
        self._partial = {"stdout": b"", "stderr": b""}
        self._second = 0
        self._second_text = ""
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.path, flags, 0o640)

    def write(self, stream: str, data: bytes) -> None:
        """Log what was read from `stream`, "stdout" or "stderr"."""
        held = self._partial[stream]
        if held:
            data = held + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        whole = data[:end]
        if len(rest) >= PARTIAL_BYTES:
            cut = len(rest) - len(rest) % PARTIAL_BYTES
            self._put(stream, [*_split_long(whole), *_pieces(rest[:cut])])
            rest = rest[cut:]
        elif whole:
            self._put(stream, _split_long(whole))
        self._partial[stream] = rest

    def finish(self) -> None:
        """Write the lines that never ended, and close the file."""
        for stream, rest in self._partial.items():
            if rest:
                self._put(stream, [rest])
                self._partial[stream] = b""
        os.close(self._fd)

    def _put(self, stream: str, parts: list[bytes]) -> None:
        stamp = self._timestamp()
        end = f'","stream":"{stream}"{self._attributes},"time":"{stamp}"}}\n'.encode()
        self._write_out(b"".join(_records(part, end) for part in parts if part))

    def _write_out(self, records: bytes) -> None:
        view = memoryview(records)
        while view:
            if self.max_size:
                room = self._room(records, len(records) - len(view))
                if room < len(view):
                    self._write_all(view[:room])
                    view = view[room:]
                    self._rotate()
                    continue
            self._write_all(view)
            return

    def _room(self, records: bytes, start: int) -> int:
        """How many bytes of whole records from `start` on fit into the file; at least one record.

        A file may be one record larger than `max_size`, as Docker's, which looks before it writes.
        """
        left = self.max_size - self._size
        if left <= 0 and self._size:
            return 0
        end = records.find(b"\n", start + max(left, 1) - 1)
        return (end + 1 if end >= 0 else len(records)) - start

    def _write_all(self, view: memoryview) -> None:
        while view:
            try:
                written = os.write(self._fd, view)
            except OSError:
                self.dropped_bytes += len(view)
                return
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        """Shift the files by one and begin a new one; with one file, begin it anew."""
        self._wait_compressed()
        try:
            if self.max_file > 1:
                self._shift()
            else:
                os.truncate(self.path, 0)
            fd = self._open()
        except OSError:
            # The directory cannot be written: go on in the file that is open.
            pass
        else:
            os.close(self._fd)
            self._fd = fd
            if self._compress:
                self._compress_newest()
        self._size = 0

    def _shift(self) -> None:
        if self._compress:
            # Whichever of the two the oldest is, and perhaps both: a compression may have failed.
            for suffix in (".gz", ""):
                _remove(f"{self.path}.{self.max_file - 1}{suffix}")
        for number in range(self.max_file - 1, 1, -1):
            for suffix in (".gz", "") if self._compress else ("",):
                _rename(f"{self.path}.{number - 1}{suffix}", f"{self.path}.{number}{suffix}")
        _rename(self.path, f"{self.path}.1")

    def _compress_newest(self) -> None:
        from pier.runtime import log_compress  # noqa: PLC0415  # few logs are compressed

        self._compressor_pid = log_compress.start(f"{self.path}.1")

    def _wait_compressed(self) -> None:
        """Wait for the file before: the names move on, and one at a time is load enough."""
        if self._compressor_pid:
            os.waitpid(self._compressor_pid, 0)
            self._compressor_pid = 0

    def _timestamp(self) -> str:
        now = time.time_ns()
        second, nanoseconds = divmod(now, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        fraction = f"{nanoseconds:09d}".rstrip("0")
        return f"{self._second_text}.{fraction}Z" if fraction else f"{self._second_text}Z"


def _encoded(attributes: Mapping[str, str]) -> str:
    pairs = (
        f"{encode_basestring(key)}:{encode_basestring(value)}"
        for key, value in sorted(attributes.items())
    )
    return ',"attrs":{' + ",".join(pairs) + "}"


def _records(data: bytes, end: bytes) -> bytes:
    """Return the records for `data`, which is whole lines, or a piece of one."""
    between = b"\\n" + end + b'{"log":"'
    if not data.translate(None, PLAIN):
        escaped = data.removesuffix(b"\n").replace(b"\n", between)
    else:
        text = data.decode("utf-8", "replace").removesuffix("\n")
        mark = BREAK_ANY if BREAK_ASCII in text else BREAK_ASCII
        quoted = encode_basestring(text.replace("\n", mark))[1:-1]
        escaped = quoted.replace(mark, between.decode()).encode()
    return b'{"log":"' + escaped + (b"\\n" if data.endswith(b"\n") else b"") + end


def _split_long(data: bytes) -> list[bytes]:
    """Cut lines of over 16 KiB out of `data`, whole lines; nearly always there are none."""
    position, start = 0, 0
    parts = []
    size = len(data)
    while size - position > PARTIAL_BYTES:
        newline = data.rfind(b"\n", position, position + PARTIAL_BYTES)
        if newline >= 0:
            position = newline + 1
            continue
        if position > start:
            parts.append(data[start:position])
        parts.append(data[position : position + PARTIAL_BYTES])
        position = start = position + PARTIAL_BYTES
    parts.append(data[start:])
    return parts


def _pieces(data: bytes) -> list[bytes]:
    return [data[i : i + PARTIAL_BYTES] for i in range(0, len(data), PARTIAL_BYTES)]


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
