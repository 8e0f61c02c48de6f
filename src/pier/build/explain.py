"""Why a step was not taken from the cache: the first of its inputs that is not as it was.

With each record of the cache its inputs are kept under names; a step that misses the cache is
compared with the one of an earlier build that is nearest to it.
"""

import difflib
import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

MAX_FILES = 20_000
_SHOWN = 60
_RELATED = 0.7


class Inputs(Struct, frozen=True):
    """`kind` is the instruction's name, `parent` the image's ID that it stands on, "" for scratch.

    `named` are (what it is, its value as text) in the order in which they are compared, the one that
    names the step first; `files` the
    sums of files by their paths, empty for more than MAX_FILES.
    """

    kind: str
    parent: str
    named: Sequence[tuple[str, str]] = ()
    files: Mapping[str, str] = {}
    made_at: int = 0

    def packed(self) -> bytes:
        return zlib.compress(msgspec.msgpack.encode(self), 1)


def unpacked(data: bytes) -> Inputs:
    return msgspec.msgpack.decode(zlib.decompress(data), type=Inputs)


def text_of(value: object) -> str:
    """Return a value of an input as the text that is compared and shown."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def why(new: Inputs, known: Iterable[Inputs], *, base: str) -> str:
    """Say why a step missed. `base` is what to call what it stands on."""
    related = [old for old in known if old.kind == new.kind and _is_related(old, new)]
    beside = [old for old in related if old.parent == new.parent]
    if beside:
        nearest = max(beside, key=lambda old: _nearness(old, new))
        return _difference(nearest, new)
    if not related:
        return "no build before had such a step"
    nearest = max(related, key=lambda old: _nearness(old, new))
    if list(nearest.named) == list(new.named):
        return f"{base} is another one: what this step itself reads is as it was"
    return f"{base} is another one, and {_difference(nearest, new)}"


def _is_related(old: Inputs, new: Inputs) -> bool:
    """Tell whether two steps may be one that was edited: by what names them, their first input."""
    if not old.named or not new.named:
        return False
    before, after = old.named[0][1], new.named[0][1]
    return before == after or difflib.SequenceMatcher(None, before, after).ratio() >= _RELATED


def _nearness(old: Inputs, new: Inputs) -> tuple[bool, int, int]:
    """Order by whether it is the same step, how much of it is the same, and how new it is."""
    same = sum(pair in old.named for pair in new.named)
    return old.named[0] == new.named[0], same, old.made_at


def _difference(old: Inputs, new: Inputs) -> str:
    before = dict(old.named)
    for name, value in new.named:
        if before.get(name) == value:
            continue
        if name == "files":
            return _changed_file(old.files, new.files)
        if name not in before:
            return f"the {name}: there was none, now {_short(value)}"
        return f"the {name}: {_short(before[name])} became {_short(value)}"
    return "its image is gone from the cache"


def _changed_file(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            return f"the file {path} is gone"
        if path not in old:
            return f"the file {path} is new"
        if old[path] != new[path]:
            return f"the file {path} changed"
    return "the files changed"


def _short(text: str) -> str:
    if not text:
        return "nothing"
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
