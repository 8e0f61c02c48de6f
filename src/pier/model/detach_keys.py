"""Detach keys: the bytes that, typed at a TTY, leave the client's attach and nothing else."""

from pier.errors import InvalidParameter

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p,ctrl-q


def parse_detach_keys(text: str) -> bytes:
    r"""Return the bytes of keys such as "ctrl-p,ctrl-q" or "a,ctrl-\"; the default for "".

    Each key is one ASCII character, "DEL", or "ctrl-" and a letter or one of @[\]^_.
    Raises InvalidParameter.
    """
    if not text:
        return DEFAULT_DETACH_KEYS
    return bytes(_key(key, text) for key in text.split(","))


def _key(key: str, text: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    lowered = key.lower()
    if lowered == "del":
        return 0x7F
    letter = lowered.removeprefix("ctrl-")
    if len(letter) == 1 and letter != lowered and letter in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
        return ord(letter.upper()) & 0x1F
    raise InvalidParameter(f"Invalid detach keys ({text}) provided")
