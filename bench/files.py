"""Volumes, and `docker cp` of a tree of 300 MB with 11,000 files, by Pier and by dockerd."""

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator

import archives
from rows import Row, take_turns
from sides import Bench
from sides import timed as _timed

from busybox_image import NAME
from engine_process import Client, place

VOLUME, CONTAINER = "bench-volume", "bench-files"


def volume_side(client: Client, timed: Callable[..., float]) -> Callable[[], float]:
    """Return what makes, inspects and removes a volume, in three calls of the client."""

    def once() -> float:
        return sum(timed(client, "volume", verb, VOLUME) for verb in ("create", "inspect", "rm"))

    return once


class Tree:
    """The tree, in a directory that `close` removes; `into` and `out_of` are what is timed."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="pier-bench-", dir=place())
        self._tree = os.path.join(self._directory, "tree")
        with tarfile.open(fileobj=io.BytesIO(archives.large_root())) as tar:
            tar.extractall(self._tree, filter="fully_trusted")

    def close(self) -> None:
        shutil.rmtree(self._directory)

    def into(self, client: Client, timed: Callable[..., float]) -> Callable[[], float]:
        """Return what copies the tree into a new container, whose making is not timed."""

        def once() -> float:
            client("create", "--name", CONTAINER, NAME)
            try:
                return timed(client, "cp", "-q", self._tree, f"{CONTAINER}:/")
            finally:
                client("rm", CONTAINER)

        return once

    def out_of(self, client: Client, timed: Callable[..., float]) -> Callable[[], float]:
        """Return what copies it back out; each of the two engines has a container with it."""
        client("create", "--name", CONTAINER, NAME)
        client("cp", "-q", self._tree, f"{CONTAINER}:/", timeout=300)
        place = os.path.join(self._directory, "out")

        def once() -> float:
            shutil.rmtree(place, ignore_errors=True)
            return timed(client, "cp", "-q", f"{CONTAINER}:/tree", place)

        return once


def volume(bench: Bench) -> Iterator[Row]:
    row = Row("`docker volume create`, `inspect`, `rm`", goal=1)
    sides = {side: volume_side(c, _timed) for side, c in bench.clients.items()}
    yield take_turns(row, bench.runs, sides)


def copy(bench: Bench) -> Iterator[Row]:
    tree = Tree()
    try:
        row = Row("`docker cp` of 300 MB, 11,000 files, into a container", goal=1.5)
        sides = {side: tree.into(c, _timed) for side, c in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
        row = Row("… of the same out of it", goal=1.5)
        sides = {side: tree.out_of(c, _timed) for side, c in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
        bench.both("rm", CONTAINER)
    finally:
        tree.close()
