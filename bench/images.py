"""Moving images: a large one loaded, saved, imported, pushed and pulled."""

import os
import tempfile
from collections.abc import Callable, Iterator

import archives
import pulls
from rows import Row, take_turns
from sides import Bench, timed

from engine_process import Client, place


def load(bench: Bench) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory:
        made = archives.Archives(directory)
        sides = {s: _load(c, made) for s, c in bench.clients.items()}
        row = Row("`docker load` of 300 MB, 11,000 files", goal=3)
        yield take_turns(row, bench.few, sides, warm_up=1)
        bench.both("load", "-i", made.image)
        row = Row("`docker save` of the same", goal=2)
        yield take_turns(row, bench.few, bench.command("save", archives.NAME), warm_up=1)
        bench.both("rmi", "-f", archives.NAME)
        sides = {s: _import(c, made) for s, c in bench.clients.items()}
        row = Row("`docker import` of the same", goal=3)
        yield take_turns(row, bench.few, sides, warm_up=1)


def _remove(client: Client) -> Callable[[], object]:
    return lambda: client("rmi", "-f", archives.NAME, timeout=300)


def _load(client: Client, made: archives.Archives) -> Callable[[], float]:
    return archives.without(_remove(client), lambda: timed(client, "load", "-i", made.image))


def _import(client: Client, made: archives.Archives) -> Callable[[], float]:
    words = ("import", made.root, archives.NAME)
    return archives.without(_remove(client), lambda: timed(client, *words))


def registry(bench: Bench) -> Iterator[Row]:
    """Debian's docker-registry beside each engine."""
    beside = ["nsenter", "--net", "--target", str(bench.peer.pid)]
    with (
        tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory,
        pulls.registry(bench.engine.in_network, bench.pier),
        pulls.registry(beside, bench.dockerd),
    ):
        made = archives.Archives(directory)
        row = Row("the first `docker push` of 300 MB, 11,000 files", goal=3)
        sides = {s: pulls.push_side(c, timed, made) for s, c in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
        row = Row("… again, to a registry that has nothing of it")
        sides = {s: pulls.push_again_side(c, timed) for s, c in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
        row = Row("`docker pull` of the same", goal=3)
        yield take_turns(row, bench.few, _pulls(bench, made.image, archives.NAME), warm_up=1)
        bench.both("pull", pulls.NAME)
        row = Row("… again, nothing has changed", most=100)
        yield take_turns(row, bench.runs, bench.command("pull", pulls.NAME))
        layered = os.path.join(directory, "layered.tar")
        archives.layered_image(layered)
        row = Row(f"`docker pull` of as much in {archives.LAYERS} layers", goal=3)
        yield take_turns(row, bench.few, _pulls(bench, layered, archives.LAYERED), warm_up=1)


def _pulls(bench: Bench, archive: str, name: str) -> dict[str, Callable[[], float]]:
    for client in bench.clients.values():
        pulls.remove(client)
    return {s: pulls.pull_side(c, timed, archive, name) for s, c in bench.clients.items()}
