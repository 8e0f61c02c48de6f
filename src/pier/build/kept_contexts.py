"""Directories that clients' contexts are received into, kept so that the next build sends less.

    <data-root>/contexts/<key>-<number>/tree/     what the client has
                                        /index    its stats; absent while it changes

A build has its tree to itself for as long as it runs: a second one of the same client and directory
meanwhile gets another. A tree without an index is refuse, and so is one that was not used for long.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from pier.storage.placement import spread
from pier.storage.root import DataRoot

KEPT_S = 48 * 3600
LOCAL = "source.local"

Index = dict[bytes, tuple[bytes, bytes]]
"""What a client says of its files, as it says it, by path (`buildkit.receive`), and the SHA-256 sums
of their contents, b"" for what has none."""


class Tree(Struct):
    """`path` is what a build reads; `place` is where it and its index are."""

    place: str
    is_kept: bool

    @property
    def path(self) -> str:
        return os.path.join(self.place, "tree")

    def begin(self) -> Index:
        """Return what it holds; until `settle` it holds nothing for certain. Blocking."""
        index = os.path.join(self.place, "index")
        found = read_index(index)
        if found:
            os.unlink(index)
        else:
            os.makedirs(self.path, mode=0o755, exist_ok=True)
        return found

    def settle(self, index: Index) -> None:
        """Say what it holds. Blocking."""
        if self.is_kept:
            write_index(os.path.join(self.place, "index"), index)


class KeptContexts:
    """For pierd's loop."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._directory = root.join("contexts")
        self._busy: set[str] = set()
        self._is_spread = False

    @contextlib.contextmanager
    def held(self, key: str) -> Iterator[Tree]:
        """Hold a tree for a build; "" is for a client that cannot be told again."""
        if not key:
            place = self._root.staging("staging")
            os.makedirs(os.path.join(place, "tree"))
            try:
                yield Tree(place, is_kept=False)
            finally:
                self._root.discard(place)
            return
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        number = 0
        while f"{name}-{number}" in self._busy:
            number += 1
        name = f"{name}-{number}"
        self._busy.add(name)
        place = os.path.join(self._directory, name)
        if not self._is_spread:
            os.makedirs(self._directory, mode=0o711, exist_ok=True)
            spread(self._directory)
            self._is_spread = True
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
            if not os.path.exists(os.path.join(place, "index")):
                self._root.discard(os.path.join(place, "tree"))
            yield Tree(place, is_kept=True)
            os.utime(place)
        finally:
            self._busy.discard(name)
            self._forget_old()

    def _forget_old(self) -> None:
        since = time.time() - KEPT_S
        for name, used in self._free():
            if used < since:
                self._root.discard(os.path.join(self._directory, name))

    def _free(self) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            found = [(e.name, e.stat().st_mtime) for e in entries if e.name not in self._busy]
        return sorted(found)

    def all(self, measure: Callable[[str], int]) -> list["Usage"]:
        """Return what there is. Blocking."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                used = int(entry.stat().st_mtime * 1_000_000_000)
                in_use = entry.name in self._busy
                found.append(Usage(entry.name, measure(entry.path), used, in_use))
        return sorted(found, key=lambda usage: usage.used_at)

    def discard(self, name: str) -> bool:
        """Remove one that no build has; tell whether it was."""
        path = os.path.join(self._directory, name)
        if name in self._busy or not os.path.exists(path):
            return False
        self._root.discard(path)
        return True


class Usage(Struct, frozen=True):
    """`used_at` in ns since the epoch, `size` in bytes."""

    name: str
    size: int
    used_at: int
    in_use: bool


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Index)


def read_index(path: str) -> Index:
    """Return what a tree's index says, nothing for one that is not there or not whole."""
    try:
        with open(path, "rb") as file:
            return _DECODER.decode(file.read())
    except (OSError, msgspec.DecodeError):
        return {}


def write_index(path: str, index: Index) -> None:
    with open(f"{path}.new", "wb") as file:
        file.write(_ENCODER.encode(index))
    os.rename(f"{path}.new", path)
