"""The terminal of the client: is it one, how large is it, and raw mode."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def size() -> tuple[int, int]:
    """Rows and columns of the terminal on stdout; (0, 0) when it is none."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return rows, columns


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


class Raw:
    """`with Raw(fd):` keys go through unread and unechoed; nothing happens when `fd` is no tty."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> None:
        if is_terminal(self._fd):
            import termios
            import tty

            self._saved = termios.tcgetattr(self._fd)
            # TCSANOW: what was typed ahead belongs to the container and must not be flushed.
            tty.setraw(self._fd, termios.TCSANOW)

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)


class DetachKeys:
    """Finds the key sequence that detaches in what is typed.

    Keys that may begin the sequence are held back until it is clear that they do not, as Docker's
    client does; the engine therefore never sees the sequence.
    """

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete."""
        if not self._sequence:
            return data, False
        out = bytearray()
        for byte in data:
            if byte != self._sequence[self._matched]:
                out += self._sequence[: self._matched]
                self._matched = 0
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    self._matched = 0
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False


DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def parse_keys(text: str) -> bytes:
    """Read `ctrl-p,ctrl-q`, `ctrl-@`, `DEL`, `a,b`. Raises ValueError for an unknown key."""
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            keys += key.encode()
            continue
        name = key.lower()
        letter = name.removeprefix("ctrl-").upper()
        if name == "del":
            keys.append(127)
        elif name.startswith("ctrl-") and len(letter) == 1 and "@" <= letter <= "_":
            keys.append(ord(letter) - ord("@"))
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(keys)
