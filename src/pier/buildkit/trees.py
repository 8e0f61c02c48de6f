"""Directories that clients' contexts are received into, kept so that the next build sends less.

    <data-root>/contexts/<key>-<number>/tree/     what the client has
                                        /index    its stats (`receive`); absent while it changes

A build has its tree to itself for as long as it runs: a second one of the same client and directory
meanwhile gets another. A tree without an index is refuse, and so is one that was not used for long.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator

from msgspec import Struct

from pier.buildkit.receive import Index, read_index, write_index
from pier.storage.placement import spread
from pier.storage.root import DataRoot

KEPT_S = 48 * 3600


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


class Trees:
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

    def free(self) -> list[tuple[str, str, int]]:
        """Return the name, path and time of last use (ns) of each that no build has now."""
        return [
            (name, os.path.join(self._directory, name), int(used * 1_000_000_000))
            for name, used in self._free()
        ]

    def discard(self, name: str) -> None:
        """Remove one that is free."""
        if name not in self._busy:
            self._root.discard(os.path.join(self._directory, name))
